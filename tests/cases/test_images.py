"""Images and folders of many kinds are read correctly or refused in one line; conversions are reported."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fixture_types import Cli
from PIL import Image
from refusals import refusal

from bcm_edge import BcmError
from bcm_edge.jobs.dataset import find
from bcm_edge.runtime.pictures.folders import ignored_by_systems
from bcm_edge.runtime.pictures.images import ImageSet, read_image_set
from bcm_edge.runtime.pictures.writing import save_images

COLOUR = (3, 16, 16)


def colour(folder: Path, name: str, size: int = 16, kind: str | None = None) -> Image.Image:
    """Save a reddish image, whose channels differ, so that a conversion to grey shows."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 100, (size, size, 3), dtype=np.uint8)
    pixels[..., 0] += 150
    picture = Image.fromarray(pixels)
    picture.save(folder / name, format=kind)
    return picture


def is_coloured(image: np.ndarray) -> bool:
    """Whether the channels of an image differ."""
    return bool(np.abs(image[0] - image[1]).max() > 0.5)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_16_bit_png(file: Path, values: np.ndarray, transparent: int | None = None) -> None:
    """Write a grey PNG of 16 bits, in which one value may mean transparent (the tRNS chunk)."""
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    extra = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.fixture
def invert(cli: Cli, digits_bundle: Path, tmp_path: Path) -> Cli:
    """Run `invert` with label 3 and the output out.npz."""

    def run(*arguments: object) -> Result:
        return cli("invert", digits_bundle, *arguments, "--label", "3", "-o", tmp_path / "out.npz", "--force")

    return run


# Folders


def test_one_grey_image_leaves_the_others_in_colour(tmp_path: Path):
    colour(tmp_path, "0.png").convert("L").save(tmp_path / "0.png")
    for k in range(1, 6):
        colour(tmp_path, f"{k}.png")
    images = read_image_set([tmp_path], COLOUR)
    assert [is_coloured(image) for image in images.images] == [False, True, True, True, True, True]
    assert images.note == "6 images: 1 converted from grey to colour"


def test_conversions_are_counted_in_one_line(tmp_path: Path):
    colour(tmp_path, "a.png", size=20)
    colour(tmp_path, "b.png")
    (tmp_path / "labels.csv").write_text("a,0\n")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "README").write_text("")
    for left_behind in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png"):
        (tmp_path / left_behind).write_bytes(b"\0")
    assert read_image_set([tmp_path], (1, 16, 16)).note == (
        "2 images: 2 converted from colour to grey, 1 cropped or resized to 16×16; "
        "skipped 3 files that are not images (1 without a suffix, 1 .csv, 1 .txt)"
    )


def test_only_known_system_folders_are_ignored(tmp_path: Path):
    """A folder whose name begins with @ is read: it often contains the images of one account."""
    assert ignored_by_systems(tmp_path / "@eaDir") and ignored_by_systems(tmp_path / ".thumbnails")
    assert not ignored_by_systems(tmp_path / "@nasa")
    for name in ("@nasa.png", "a.png", "~$a.png", "thumbs.db"):
        colour(tmp_path, name, kind="PNG")
    assert read_image_set([tmp_path], COLOUR).names == ["@nasa", "a"]


def test_command_prints_the_conversions(invert: Cli, tmp_path: Path):
    for k in range(3):
        colour(tmp_path / "in", f"{k}.jfif", kind="JPEG")
        colour(tmp_path / "in", f"{k}.PNG", kind="PNG")
    result = invert(tmp_path / "in")
    assert result.exit_code == 0
    assert "note: 6 images: 6 converted from colour to grey, 6 cropped or resized to 8×8\n" in result.stderr
    assert np.load(tmp_path / "out.npz")["latents"].shape == (6, 1, 8, 8)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_an_animation_is_read_and_reported(tmp_path: Path, suffix: str):
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue", "lime")]
    frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:])
    images = read_image_set([tmp_path], COLOUR)
    assert images.images[0].mean(axis=(1, 2)).round(1).tolist() == [1, -1, -1]
    assert images.note == "1 image: 1 read as the first frame of an animation"


# Modes and bit depths


def test_32_bit_integers_are_refused(invert: Cli, tmp_path: Path):
    values = (np.add.outer(np.arange(8), np.arange(8)) * 16).astype(np.int32)
    Image.fromarray(values).save(tmp_path / "int32.tif")
    assert refusal(invert(tmp_path / "int32.tif")) == (
        f"{tmp_path}/int32.tif: contains 32-bit or signed integers, whose range is unknown; "
        "save it with 8 or 16 bits, unsigned"
    )


@pytest.mark.parametrize(("transparent", "first"), [(None, 0), (0, 255), (257 * 7, 0)])
def test_16_bit_grey_with_a_transparent_value(tmp_path: Path, transparent: int | None, first: int):
    write_16_bit_png(tmp_path / "deep.png", np.arange(64).reshape(8, 8) * 257, transparent)
    pixels = np.rint((read_image_set([tmp_path / "deep.png"], (1, 8, 8)).images.ravel() + 1) * 127.5)
    assert pixels[0] == first
    assert pixels[7] == (255 if transparent == 257 * 7 else 7)
    assert pixels[8:].tolist() == list(range(8, 64))


def write_tiff(file: Path, data: bytes, bits: int, photometric: int = 1, sample_format: int = 1) -> None:
    """Write a TIFF of 8×8 pixels in one channel. photometric 0: white is zero. sample_format 2: signed."""
    entries = [(256, 8), (257, 8), (258, bits), (259, 1), (262, photometric), (273, 134), (277, 1), (278, 8)]
    entries += [(279, len(data)), (339, sample_format)]
    table = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in entries
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    assert len(head) == 134
    file.write_bytes(head + data)


def packed_12_bits(values: np.ndarray) -> bytes:
    """Pack every two values into three bytes."""
    pairs = values.reshape(-1, 2).astype(int)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


def test_tiff_with_other_bit_depths_and_white_as_zero(tmp_path: Path):
    levels = np.arange(64)
    write_tiff(tmp_path / "12.tif", packed_12_bits(levels * 65), 12)
    write_tiff(tmp_path / "16.tif", (levels * 1040).astype("<u2").tobytes(), 16)
    write_tiff(
        tmp_path / "white_is_zero.tif", (65535 - levels * 1040).astype("<u2").tobytes(), 16, photometric=0
    )
    for name in ("12.tif", "16.tif", "white_is_zero.tif"):
        images = read_image_set([tmp_path / name], (1, 8, 8)).images.ravel()
        np.testing.assert_allclose(images, levels * 65 / 4095 * 2 - 1, atol=0.005)
    write_tiff(tmp_path / "signed.tif", levels.astype(np.int8).tobytes(), 8, sample_format=2)
    with pytest.raises(BcmError, match="signed integers, whose range is unknown"):
        read_image_set([tmp_path / "signed.tif"], (1, 8, 8))


def test_pgm_is_scaled_by_its_own_maximum(tmp_path: Path):
    (tmp_path / "deep.pgm").write_bytes(b"P5 8 8 1023\n" + np.full((8, 8), 1023, ">u2").tobytes())
    assert read_image_set([tmp_path / "deep.pgm"], (1, 8, 8)).images.min() == 1


def test_cmyk_and_ycbcr_are_converted(tmp_path: Path):
    picture = colour(tmp_path, "rgb.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.tif")
    # Pillow before version 13 cannot read YCbCr in a TIFF.
    picture.convert("YCbCr").save(tmp_path / "ycc.jpg", quality=100, subsampling=0)
    expected = read_image_set([tmp_path / "rgb.png"], COLOUR).images
    for name in ("cmyk.tif", "ycc.jpg"):
        assert np.abs(read_image_set([tmp_path / name], COLOUR).images - expected).max() < 0.1


# Damaged files


def damaged(kind: str) -> bytes:
    """The start of a file of this format, followed by invalid data."""
    if kind == "ppm":
        return b"P6 -4 8 255\n" + b"\0" * 20
    if kind == "pfm":
        return b"Pf\n8 8\nnan\n" + b"\0" * 256
    if kind == "tiff":
        return b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40
    if kind == "gif":
        return b"GIF89a\x08\0\x08\0\xf7\0\0"
    if kind == "qoi":
        return b"qoif" + b"\xff" * 30
    if kind == "eps":
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(%pipe%touch run) (w) file\n"
    return b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\xff" * 200


@pytest.mark.parametrize("kind", ["avif", "ppm", "pfm", "tiff", "gif", "qoi", "eps"])
def test_damaged_images_are_refused_in_one_line(invert: Cli, tmp_path: Path, kind: str):
    (tmp_path / "broken.png").write_bytes(damaged(kind))
    assert refusal(invert(tmp_path / "broken.png")).startswith(
        f"{tmp_path}/broken.png: not a readable image ("
    )
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "AVIF"])
def test_image_truncated_anywhere_is_read_or_refused(tmp_path: Path, image_format: str):
    if image_format == "AVIF" and image_format not in registered():
        pytest.skip("this build of Pillow has no AVIF")
    whole = tmp_path / "whole"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
        whole, format=image_format
    )
    data = whole.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 60)):
        (tmp_path / "cut.png").write_bytes(data[:length])
        refused_or_read(lambda: read_image_set([tmp_path / "cut.png"], COLOUR))
        flipped = bytearray(data)
        flipped[length] ^= 0xFF
        (tmp_path / "cut.png").write_bytes(flipped)
        refused_or_read(lambda: read_image_set([tmp_path / "cut.png"], COLOUR))


def registered() -> set[str]:
    """The formats that this Pillow can read."""
    Image.init()
    return set(Image.OPEN)


def refused_or_read(read: Callable[[], ImageSet]) -> None:
    """Check that a call returns finite images or raises an error of one line."""
    try:
        assert np.isfinite(read().images).all()
    except BcmError as error:
        assert "\n" not in str(error)


def test_pipes_and_broken_links_are_refused_without_waiting(invert: Cli, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("pipe.png", "pipe.npz"):
        assert (
            refusal(invert(tmp_path / name))
            == f"{tmp_path}/{name}: is a pipe, a device or a socket; give a file"
        )
    with pytest.raises(BcmError, match="is a pipe, a device or a socket"):
        find(str(tmp_path / "pipe.npz"), "invert", (1, 8, 8))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "dangling.png").symlink_to("nowhere")
    assert "dangling.png: cannot be read (No such file or directory)" in refusal(invert(tmp_path / "folder"))


def test_names_that_are_not_valid_file_names(tmp_path: Path):
    for name in ("x" * 300, "x" * 300 + ".png", "a\0b.png"):
        with pytest.raises(BcmError, match="cannot be read"):
            read_image_set([tmp_path / name], COLOUR)
        with pytest.raises(BcmError, match="cannot"):
            save_images(np.zeros((1, 1, 8, 8)), tmp_path / f"{name}.xyz")


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "a Git LFS pointer, not the image; .* git lfs pull",
        ),
        (b"", r"not a readable image \(it is empty\)"),
        (b"\n<!DOCTYPE html><html>login", "an HTML page, not the image; download the image again"),
        (b"some text", "its format is not supported"),
    ],
)
def test_files_that_are_not_images_are_identified(tmp_path: Path, content: bytes, advice: str):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BcmError, match=advice):
        read_image_set([tmp_path / "x.png"], COLOUR)


def test_truncated_image(tmp_path: Path):
    colour(tmp_path, "whole.png", size=64)
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    with pytest.raises(BcmError, match=r"it ends too early\); download or copy it again"):
        read_image_set([tmp_path / "cut.png"], COLOUR)
