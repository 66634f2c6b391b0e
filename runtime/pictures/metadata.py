"""What a PNG file of this package says about its origin: one text, JSON, under the keyword `bcm-edge`.

Writers leave out paths, names of files, and everything about the machine and its user. A text that is read
may be from anybody: its length is limited, it must be a JSON object, and nothing in it is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

KEYWORD = "bcm-edge"
LONGEST = 20_000  # characters of a text; longer ones are not read
MOST_VALUES = 100  # of a list; longer lists are not written
PER_IMAGE = ("seeds", "labels")  # the facts that are lists with a value per image


def png_text(facts: Mapping[str, Any]) -> PngInfo:
    """Return facts, which are JSON values, as the text of a PNG file, with the version of this package."""
    from PIL.PngImagePlugin import PngInfo

    from ... import __version__

    short = {
        name: value for name, value in facts.items() if name not in PER_IMAGE or len(value) <= MOST_VALUES
    }
    info = PngInfo()
    info.add_text(KEYWORD, json.dumps({"version": __version__, **short}))
    return info


def of_image(facts: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the facts of one of several images: of its PER_IMAGE lists, its own values."""
    return {name: [value[index]] if name in PER_IMAGE else value for name, value in facts.items()}


def read_facts(info: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the facts in `PIL.Image.Image.info` as the file has them, {} without a text that can be read."""
    text = info.get(KEYWORD)
    if not isinstance(text, str) or len(text) > LONGEST:
        return {}
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
