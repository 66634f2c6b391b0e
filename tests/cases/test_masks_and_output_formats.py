"""Masks with transparent parts, and image formats that results are written in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixture_types import Cli
from PIL import Image

from bcm_edge import BcmError
from bcm_edge.runtime.pictures.masks import read_holes

# Masks


def mask_with_alpha(file: Path) -> None:
    """Save a mask of 8×8 pixels: transparent white, with one black row and a white square of 3×3 pixels."""
    mask = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    mask.paste((0, 0, 0, 255), (0, 0, 8, 1))
    mask.paste((255, 255, 255, 255), (2, 2, 5, 5))
    mask.save(file)


def test_transparent_parts_of_a_mask_count_as_black(tmp_path: Path):
    mask_with_alpha(tmp_path / "mask.png")
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    holes = read_holes(tmp_path / "mask.png", [tmp_path / "digit.png"], (1, 8, 8))
    assert holes.sum() == 9 and holes[0, 0, 2:5, 2:5].all()


def test_inpaint_fills_the_opaque_white_part_of_a_mask(cli: Cli, digits_bundle: Path, tmp_path: Path):
    mask_with_alpha(tmp_path / "mask.png")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "digit.png")
    options = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.npz", "--json")
    result = cli("inpaint", digits_bundle, tmp_path / "digit.png", *options)
    assert result.exit_code == 0
    assert '"filled": 0.140625' in result.stdout  # 9 of 64


def test_fully_transparent_mask_has_no_hole(tmp_path: Path):
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "mask.png")
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    with pytest.raises(BcmError, match="no hole found"):
        read_holes(tmp_path / "mask.png", [tmp_path / "digit.png"], (1, 8, 8))


# Outputs


@pytest.mark.parametrize(
    ("name", "note"), [("out.jpg", "JPEG changes pixels a little"), ("out.jpeg", "JPEG"), ("out.png", "")]
)
def test_lossy_output_formats_are_reported(
    cli: Cli, digits_bundle: Path, tmp_path: Path, name: str, note: str
):
    result = cli("generate", digits_bundle, "--label", "3", "-o", tmp_path / name)
    assert result.exit_code == 0
    assert note in result.stderr and ("note: " in result.stderr) is bool(note)


def test_webp_keeps_every_pixel(cli: Cli, digits_bundle: Path, tmp_path: Path):
    pictures = []
    for name in ("out.png", "out.webp"):
        assert cli("generate", digits_bundle, "--label", "3", "-o", tmp_path / name).exit_code == 0
        pictures.append(np.asarray(Image.open(tmp_path / name).convert("L")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1  # WebP stores grey as colour
