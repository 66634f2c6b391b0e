"""Where a grid shows an image."""

from __future__ import annotations

import numpy as np

from bcm_edge.runtime.pixels import to_uint8


def find(image: np.ndarray, sheet: np.ndarray, tolerance: int = 0) -> tuple[int, int]:
    """Return the row and column of an image [C, H, W] in a sheet [C, H', W']; it must be in it once.

    tolerance: the largest difference of a pixel.
    """
    sheet, image = sheet.astype(np.int16), image.astype(np.int16)
    _, height, width = image.shape
    rows, columns = sheet.shape[1] - height + 1, sheet.shape[2] - width + 1
    random = np.random.default_rng(0)
    here = np.ones((rows, columns), bool)
    for y, x in zip(random.integers(0, height, 50), random.integers(0, width, 50), strict=True):
        here &= (abs(sheet[:, y : y + rows, x : x + columns] - image[:, y, x, None, None]) <= tolerance).all(
            axis=0
        )
    places = [
        (int(y), int(x))
        for y, x in np.argwhere(here)
        if (abs(sheet[:, y:, x:][:, :height, :width] - image) <= tolerance).all()
    ]
    assert len(places) == 1
    return places[0]


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    return to_uint8(image).repeat(factor, axis=1).repeat(factor, axis=2)
