"""Pictures and folders as people bring them: read right, or refused in one line. Nothing is skipped or converted silently."""

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
from bcm_edge.runtime.pictures.images import ImageSet, read_images
from bcm_edge.runtime.pictures.masks import read_holes
from bcm_edge.runtime.pictures.writing import save_images

COLOUR = (3, 16, 16)


def colour(folder: Path, name: str, size: int = 16, kind: str | None = None) -> Image.Image:
    """A reddish picture: its channels differ, so that grey would be seen."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 100, (size, size, 3), dtype=np.uint8)
    pixels[..., 0] += 150
    picture = Image.fromarray(pixels)
    picture.save(folder / name, format=kind)
    return picture


def is_coloured(image: np.ndarray) -> bool:
    return bool(np.abs(image[0] - image[1]).max() > 0.5)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_16_bit_png(file: Path, values: np.ndarray, transparent: int | None = None) -> None:
    """Grey of 16 bits, where one value may stand for transparent (the tRNS chunk)."""
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    extra = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.fixture
def invert(cli: Cli, digits_bundle: Path, tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        return cli("invert", digits_bundle, *arguments, "--label", "3", "-o", tmp_path / "out.npz", "--force")

    return run


# ---- folders


def test_one_grey_picture_turns_no_other_grey(tmp_path: Path):
    colour(tmp_path, "0.png").convert("L").save(tmp_path / "0.png")
    for k in range(1, 6):
        colour(tmp_path, f"{k}.png")
    images = read_images([tmp_path], COLOUR)
    assert [is_coloured(image) for image in images.images] == [False, True, True, True, True, True]
    assert images.note == "6 images: 1 converted from grey to colour"


def test_what_is_converted_is_counted_in_one_line(tmp_path: Path):
    colour(tmp_path, "a.png", size=20)
    colour(tmp_path, "b.png")
    (tmp_path / "labels.csv").write_text("a,0\n")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "README").write_text("")
    for left_behind in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png"):
        (tmp_path / left_behind).write_bytes(b"\0")
    assert read_images([tmp_path], (1, 16, 16)).note == (
        "2 images: 2 converted from colour to grey, 1 cropped or resized to 16×16; "
        "skipped 3 files that are not images (1 without a suffix, 1 .csv, 1 .txt)"
    )


def test_only_known_folders_of_systems_are_left_out(tmp_path: Path):
    """A name that begins with @ is often that of an account, whose pictures were collected."""
    assert ignored_by_systems(tmp_path / "@eaDir") and ignored_by_systems(tmp_path / ".thumbnails")
    assert not ignored_by_systems(tmp_path / "@nasa")
    for name in ("@nasa.png", "a.png", "~$a.png", "thumbs.db"):
        colour(tmp_path, name, kind="PNG")
    assert read_images([tmp_path], COLOUR).names == ["@nasa", "a"]


def test_the_command_prints_the_line(invert: Callable[..., Result], tmp_path: Path):
    for k in range(3):
        colour(tmp_path / "in", f"{k}.jfif", kind="JPEG")
        colour(tmp_path / "in", f"{k}.PNG", kind="PNG")
    ended = invert(tmp_path / "in")
    assert ended.exit_code == 0
    assert "note: 6 images: 6 converted from colour to grey, 6 cropped or resized to 8×8\n" in ended.stderr
    assert np.load(tmp_path / "out.npz")["latents"].shape == (6, 1, 8, 8)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_read_and_said(tmp_path: Path, suffix: str):
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue", "lime")]
    frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:])
    images = read_images([tmp_path], COLOUR)
    assert images.images[0].mean(axis=(1, 2)).round(1).tolist() == [1, -1, -1]
    assert images.note == "1 image: 1 read as the first frame of an animation"


# ---- modes and depths


def test_32_bit_integers_are_refused(invert: Callable[..., Result], tmp_path: Path):
    values = (np.add.outer(np.arange(8), np.arange(8)) * 16).astype(np.int32)
    Image.fromarray(values).save(tmp_path / "int32.tif")
    assert refusal(invert(tmp_path / "int32.tif")) == (
        f"{tmp_path}/int32.tif: holds 32-bit or signed integers, whose range is unknown; save it with 8 or 16 bits, unsigned"
    )


@pytest.mark.parametrize(("transparent", "first"), [(None, 0), (0, 255), (257 * 7, 0)])
def test_16_bit_grey_with_a_transparent_value(tmp_path: Path, transparent: int | None, first: int):
    write_16_bit_png(tmp_path / "deep.png", np.arange(64).reshape(8, 8) * 257, transparent)
    pixels = np.rint((read_images([tmp_path / "deep.png"], (1, 8, 8)).images.ravel() + 1) * 127.5)
    assert pixels[0] == first
    assert pixels[7] == (255 if transparent == 257 * 7 else 7)
    assert pixels[8:].tolist() == list(range(8, 64))


def write_tiff(file: Path, data: bytes, bits: int, photometric: int = 1, sample_format: int = 1) -> None:
    """8×8 pixels of one channel; photometric 0: white is zero; sample_format 2: signed."""
    entries = [(256, 8), (257, 8), (258, bits), (259, 1), (262, photometric), (273, 134), (277, 1), (278, 8)]
    entries += [(279, len(data)), (339, sample_format)]
    table = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in entries
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    assert len(head) == 134
    file.write_bytes(head + data)


def packed_12_bits(values: np.ndarray) -> bytes:
    pairs = values.reshape(-1, 2).astype(int)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


def test_tiff_of_other_depths_and_directions(tmp_path: Path):
    levels = np.arange(64)
    write_tiff(tmp_path / "12.tif", packed_12_bits(levels * 65), 12)
    write_tiff(tmp_path / "16.tif", (levels * 1040).astype("<u2").tobytes(), 16)
    write_tiff(
        tmp_path / "white_is_zero.tif", (65535 - levels * 1040).astype("<u2").tobytes(), 16, photometric=0
    )
    for name in ("12.tif", "16.tif", "white_is_zero.tif"):
        images = read_images([tmp_path / name], (1, 8, 8)).images.ravel()
        np.testing.assert_allclose(images, levels * 65 / 4095 * 2 - 1, atol=0.005)
    write_tiff(tmp_path / "signed.tif", levels.astype(np.int8).tobytes(), 8, sample_format=2)
    with pytest.raises(BcmError, match="signed integers, whose range is unknown"):
        read_images([tmp_path / "signed.tif"], (1, 8, 8))


def test_a_deep_pgm_is_scaled_by_its_own_maximum(tmp_path: Path):
    (tmp_path / "deep.pgm").write_bytes(b"P5 8 8 1023\n" + np.full((8, 8), 1023, ">u2").tobytes())
    assert read_images([tmp_path / "deep.pgm"], (1, 8, 8)).images.min() == 1


def test_the_modes_of_printers_and_cameras_are_converted(tmp_path: Path):
    picture = colour(tmp_path, "rgb.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.tif")
    picture.convert("YCbCr").save(
        tmp_path / "ycc.jpg", quality=100, subsampling=0
    )  # as TIFF, Pillow before 13 cannot read it
    for name in ("cmyk.tif", "ycc.jpg"):
        assert (
            np.abs(
                read_images([tmp_path / name], COLOUR).images
                - read_images([tmp_path / "rgb.png"], COLOUR).images
            ).max()
            < 0.1
        )


# ---- files that are damaged


def damaged(kind: str) -> bytes:
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
def test_damaged_pictures_are_refused_in_a_line(invert: Callable[..., Result], tmp_path: Path, kind: str):
    (tmp_path / "broken.png").write_bytes(damaged(kind))
    assert refusal(invert(tmp_path / "broken.png")).startswith(
        f"{tmp_path}/broken.png: not a readable image ("
    )
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "AVIF"])
def test_a_picture_cut_anywhere_is_read_or_refused(tmp_path: Path, format_: str):
    if format_ == "AVIF" and format_ not in registered():
        pytest.skip("this build of Pillow has no AVIF")
    whole = tmp_path / "whole"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
        whole, format=format_
    )
    data = whole.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 60)):
        (tmp_path / "cut.png").write_bytes(data[:length])
        refused_or_read(lambda: read_images([tmp_path / "cut.png"], COLOUR))
        flipped = bytearray(data)
        flipped[length] ^= 0xFF
        (tmp_path / "cut.png").write_bytes(flipped)
        refused_or_read(lambda: read_images([tmp_path / "cut.png"], COLOUR))


def registered() -> set[str]:
    Image.init()
    return set(Image.OPEN)


def refused_or_read(read: Callable[[], ImageSet]) -> None:
    try:
        assert np.isfinite(read().images).all()
    except BcmError as error:
        assert "\n" not in str(error)


def test_what_is_not_a_file_is_refused_without_waiting(invert: Callable[..., Result], tmp_path: Path):
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


def test_names_that_no_file_system_takes(tmp_path: Path):
    for name in ("x" * 300, "x" * 300 + ".png", "a\0b.png"):
        with pytest.raises(BcmError, match="cannot be read"):
            read_images([tmp_path / name], COLOUR)
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
def test_what_is_not_a_picture_is_named(tmp_path: Path, content: bytes, advice: str):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BcmError, match=advice):
        read_images([tmp_path / "x.png"], COLOUR)


def test_a_picture_that_ends_too_early(tmp_path: Path):
    colour(tmp_path, "whole.png", size=64)
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    with pytest.raises(BcmError, match=r"it ends too early\); download or copy it again"):
        read_images([tmp_path / "cut.png"], COLOUR)


# ---- masks


def mask_with_alpha(file: Path) -> None:
    """8×8: transparent white, one black row, and a white square of 3×3 pixels."""
    mask = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    mask.paste((0, 0, 0, 255), (0, 0, 8, 1))
    mask.paste((255, 255, 255, 255), (2, 2, 5, 5))
    mask.save(file)


def test_transparent_parts_of_a_mask_count_as_black(tmp_path: Path):
    mask_with_alpha(tmp_path / "mask.png")
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    holes = read_holes(tmp_path / "mask.png", [tmp_path / "digit.png"], (1, 8, 8))
    assert holes.sum() == 9 and holes[0, 0, 2:5, 2:5].all()


def test_inpaint_fills_the_painted_part_of_a_mask(cli: Cli, digits_bundle: Path, tmp_path: Path):
    mask_with_alpha(tmp_path / "mask.png")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "digit.png")
    options = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.npz", "--json")
    ended = cli("inpaint", digits_bundle, tmp_path / "digit.png", *options)
    assert ended.exit_code == 0
    assert '"filled": 0.140625' in ended.stdout  # 9 of 64


def test_a_mask_that_is_transparent_everywhere_has_no_hole(tmp_path: Path):
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "mask.png")
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    with pytest.raises(BcmError, match="no hole found"):
        read_holes(tmp_path / "mask.png", [tmp_path / "digit.png"], (1, 8, 8))


# ---- outputs


@pytest.mark.parametrize(
    ("name", "note"), [("out.jpg", "JPEG changes pixels a little"), ("out.jpeg", "JPEG"), ("out.png", "")]
)
def test_lossy_outputs_are_announced(cli: Cli, digits_bundle: Path, tmp_path: Path, name: str, note: str):
    ended = cli("generate", digits_bundle, "--label", "3", "-o", tmp_path / name)
    assert ended.exit_code == 0
    assert note in ended.stderr and ("note: " in ended.stderr) is bool(note)


def test_webp_keeps_every_pixel(cli: Cli, digits_bundle: Path, tmp_path: Path):
    pictures = []
    for name in ("out.png", "out.webp"):
        assert cli("generate", digits_bundle, "--label", "3", "-o", tmp_path / name).exit_code == 0
        pictures.append(np.asarray(Image.open(tmp_path / name).convert("L")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1  # WebP stores grey as colour
