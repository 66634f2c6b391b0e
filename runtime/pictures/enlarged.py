"""Undo the enlargement of a small picture, so that a file that was enlarged for people is an exact input.

A PNG file of this package has the factor in its text (metadata.py). Of other files, the factor is the ratio
of their size to that of the model. A picture is changed only if all its blocks of pixels have one colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .metadata import read_facts

if TYPE_CHECKING:
    from PIL import Image


def without_enlargement(picture: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """Return a picture with one pixel for each block of equal pixels, or unchanged if it has no such blocks.

    size: width and height of the result; None takes the factor from the text of the picture.
    """
    from PIL import Image

    width, height = picture.size
    if size is None:
        factor = read_facts(picture.info).get("scale")
        if not isinstance(factor, int) or factor < 2 or width % factor or height % factor:
            return picture
        size = width // factor, height // factor
    if width % size[0] or height % size[1] or width // size[0] != height // size[1]:
        return picture
    small = picture.resize(size, Image.Resampling.NEAREST)
    again = small.resize(picture.size, Image.Resampling.NEAREST)
    return small if np.array_equal(np.asarray(again), np.asarray(picture)) else picture
