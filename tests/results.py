"""Reading and comparing what commands write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from agreement import assert_images_agree
from archives import read_npz
from PIL import Image


def only_json(text: str) -> dict[str, Any]:
    """Parse a text that is one JSON object. NaN and Infinity, which are not JSON, fail the test."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def read_pixels(picture: Path) -> np.ndarray:
    """Return the pixels of a picture: uint8 [H, W] or [H, W, C], one per block if it was enlarged."""
    opened = Image.open(picture)
    factor = json.loads(opened.info.get("bcm-edge", "{}")).get("scale", 1)
    return np.asarray(opened)[::factor, ::factor]


def assert_same_results(actual: Path, expected: Path) -> None:
    """Check that two npz files of `generate` have the same seeds and labels, and images that agree."""
    a, b = read_npz(actual), read_npz(expected)
    assert set(a) == set(b) == {"images", "seeds", "labels"}
    assert_images_agree(a["images"], b["images"])
    for name in ("seeds", "labels"):
        np.testing.assert_array_equal(a[name], b[name])
