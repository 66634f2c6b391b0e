"""Labels, images and latents that cannot be used are refused in one line, with exit code 2."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from archives import write_npz
from fixture_types import Cli, Refusal
from PIL import Image
from refusals import Payload, edit_manifest, refusal

# Labels


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("10", "label 10 is out of range; this model has classes 0 to 9"),
        ("-1", "label -1 is out of range; this model has classes 0 to 9"),
        ("0,99", "label 99 is out of range; this model has classes 0 to 9"),
        ("three", "'three' is not a label: this model has no class names; give a number from 0 to 9"),
        ("3,", "--label: empty entry in '3,'; separate labels with one comma"),
        ("1,,2", "--label: empty entry in '1,,2'; separate labels with one comma"),
        ("", "'' is not a label: this model has no class names; give a number from 0 to 9"),
        ("guess", "--label guess needs images as input; give a number or a name"),
        ("1.5", "'1.5' is not a label: this model has no class names; give a number from 0 to 9"),
    ],
)
def test_invalid_label(refuse_generate: Refusal, label: str, problem: str) -> None:
    assert refuse_generate("-n", 2, "--label", label) == problem


def test_missing_label(refuse_generate: Refusal) -> None:
    advice = "give labels from 0 to 9 with --label, for example --label 3 or --label all"
    assert refuse_generate() == f"this model is class-conditional: {advice}"


@pytest.mark.parametrize("label", ["0", "all"])
def test_label_for_a_model_without_classes(bundle_copy: Path, cli: Cli, tmp_path: Path, label: str) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest["model"].update(num_classes=None))
    result = cli("generate", bundle_copy, "--backend", "null", "--label", label, "-o", tmp_path / "a.png")
    assert refusal(result) == "this model has no classes, so it takes no labels; leave them out"


def test_seed_beyond_64_bits(refuse_generate: Refusal) -> None:
    assert refuse_generate("--label", 3, "--seed", 2**64) == f"seeds must lie in [0, 2**64), got {2**64}"


def test_seed_of_64_bits(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    arguments = ("--backend", "null", "--label", 3, "--seed", 2**64 - 1, "-o", tmp_path / "a.npz")
    assert cli("generate", digits_bundle, *arguments).exit_code == 0
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["seeds"].tolist() == [2**64 - 1]


def test_unknown_backend(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    result = cli("generate", digits_bundle, "--backend", "abacus", "--label", 3, "-o", tmp_path / "a.png")
    assert refusal(result).startswith("unknown backend 'abacus'; choose auto, ")


# Images and latents


@pytest.fixture
def refuse_invert(cli: Cli, digits_bundle: Path, tmp_path: Path) -> Refusal:
    """Run `invert`, which must refuse its images and leave no file behind; return its message."""

    def run(*images: Path) -> str:
        options = ("--backend", "null", "--label", 3, "-o", tmp_path / "refused.npz")
        message = refusal(cli("invert", digits_bundle, *images, *options))
        assert [file.name for file in tmp_path.iterdir() if "refused" in file.name] == []
        return message

    return run


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_image_that_cannot_be_read(refuse_invert: Refusal, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    assert refuse_invert(tmp_path / "bad.png").startswith(f"{tmp_path}/bad.png: not a readable image (")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
def test_truncated_image(refuse_invert: Refusal, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(file)
    os.truncate(file, file.stat().st_size // 2)
    assert refuse_invert(file).startswith(f"{file}: not a readable image (")


def test_unreadable_image_in_a_folder_is_named(refuse_invert: Refusal, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    (folder / "b.png").write_text("not a picture")
    assert refuse_invert(folder).startswith(f"{folder}/b.png: not a readable image (")


def test_image_that_does_not_exist(refuse_invert: Refusal, tmp_path: Path) -> None:
    assert (
        refuse_invert(tmp_path / "no.npz") == f"{tmp_path}/no.npz: cannot be read (No such file or directory)"
    )
    assert (
        refuse_invert(tmp_path / "no.png") == f"{tmp_path}/no.png: cannot be read (No such file or directory)"
    )


def test_folder_without_images(refuse_invert: Refusal, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    assert refuse_invert(folder).startswith(
        f"{folder}: no images in this folder or its sub-folders (looked for .png, .apng, .jpg, "
    )


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"pictures": np.zeros((1, 1, 8, 8), np.float32)}, "has no array `images` (it has pictures)"),
        (
            {"images": np.zeros((2, 3, 8, 8), np.float32)},
            "images has shape [2, 3, 8, 8], expected [N, 1, 8, 8]",
        ),
        (
            {"images": np.zeros((0, 1, 8, 8), np.float32)},
            "images has shape [0, 1, 8, 8]; expected [N, H, W], [N, H, W, C] or [N, C, H, W], "
            "with at least one image",
        ),
        (
            {"images": np.full((1, 1, 8, 8), np.nan, np.float32)},
            "images contain NaN or infinity; all values must be finite",
        ),
        (
            {"images": np.full((1, 1, 8, 8), 255, np.float32)},
            "images must lie in [-1, 1]; these go from 255 to 255; "
            "convert pixels from 0 to 255 with images / 127.5 - 1",
        ),
        (
            {"images": np.zeros((1, 1, 8, 8), np.int64)},
            "images must be uint8, or floats in [-1, 1], not int64; "
            "convert 0 and 1 to pixels with (images * 255).astype('uint8')",
        ),
    ],
    ids=["no-images", "shape", "none", "nan", "range", "kind"],
)
def test_npz_with_unusable_images(
    refuse_invert: Refusal, tmp_path: Path, arrays: dict[str, np.ndarray], problem: str
) -> None:
    write_npz(tmp_path / "in.npz", arrays)
    assert refuse_invert(tmp_path / "in.npz") == f"{tmp_path}/in.npz: {problem}"


def test_code_in_an_npz_is_never_executed(refuse_invert: Refusal, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", images=np.array([Payload(tmp_path / "executed")], dtype=object))
    assert refuse_invert(tmp_path / "in.npz").startswith(
        f"{tmp_path}/in.npz: not a readable npz file of arrays ("
    )
    assert not (tmp_path / "executed").exists()


def test_npy_file_named_npz(refuse_invert: Refusal, tmp_path: Path) -> None:
    with (tmp_path / "in.npz").open("wb") as file:
        np.save(file, np.zeros((1, 1, 8, 8), np.float32))
    assert refuse_invert(tmp_path / "in.npz").startswith(
        f"{tmp_path}/in.npz: not a readable npz file of arrays ("
    )


@pytest.mark.slow
def test_npz_damaged_anywhere_is_refused_or_harmless(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 3, (2, 1, 8, 8), dtype=np.uint8)
    np.savez_compressed(tmp_path / "good.npz", images=pictures)
    good = (tmp_path / "good.npz").read_bytes()
    refused = 0
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 0x21
        (tmp_path / "in.npz").write_bytes(bad)
        arguments = ("--backend", "null", "--label", 3, "-o", tmp_path / "z.npz", "--force")
        result = cli("invert", digits_bundle, tmp_path / "in.npz", *arguments)
        if result.exit_code:
            assert refusal(result).startswith(f"{tmp_path}/in.npz: ")
            refused += 1
    assert refused > len(good) / 2


@pytest.mark.parametrize(
    ("latents", "problem"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), "latents have shape [1, 3, 8, 8], the model takes [N, 1, 8, 8]"),
        (np.float32(1), "latents have shape [1], the model takes [N, 1, 8, 8]"),
        (np.zeros((1, 1, 8, 8), np.int64), "latents must be floats, not int64"),
        (
            np.full((1, 1, 8, 8), np.inf, np.float32),
            "latents contain NaN or infinity; all values must be finite",
        ),
    ],
    ids=["shape", "number", "kind", "infinity"],
)
def test_unusable_latents(
    refuse_generate: Refusal, tmp_path: Path, latents: np.ndarray, problem: str
) -> None:
    np.savez(tmp_path / "z.npz", latents=latents)
    assert refuse_generate("--label", 3, "--latents", tmp_path / "z.npz") == problem


def test_number_of_latents_other_than_n(refuse_generate: Refusal, tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", latents=np.zeros((2, 1, 8, 8), np.float32))
    message = refuse_generate("--label", 3, "--latents", tmp_path / "z.npz", "-n", 3)
    assert message == f"-n 3 does not fit {tmp_path}/z.npz, which has 2 latents; leave out -n"


def test_latents_file_without_latents(refuse_generate: Refusal, tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", images=np.zeros((2, 1, 8, 8), np.float32))
    message = refuse_generate("--label", 3, "--latents", tmp_path / "z.npz")
    assert (
        message == f"{tmp_path}/z.npz: has no array `latents` (it has images); give a file that invert wrote"
    )


def test_label_of_a_file_that_is_out_of_range(
    cli: Cli, digits_bundle: Path, refuse_generate: Refusal, tmp_path: Path
) -> None:
    problem = "label 11 is out of range; this model has classes 0 to 9; --label replaces these labels"
    file, latents = tmp_path / "in.npz", tmp_path / "z.npz"
    write_npz(file, {"images": np.zeros((1, 1, 8, 8), np.uint8), "labels": np.array([11])})
    write_npz(latents, {"latents": np.zeros((1, 1, 8, 8), np.float32), "labels": np.array([11])})
    assert refuse_generate("--latents", latents) == f"{latents}: {problem}"
    result = cli("invert", digits_bundle, file, "--backend", "null", "-o", tmp_path / "out.npz")
    assert refusal(result) == f"{file}: {problem}"
