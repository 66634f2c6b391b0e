"""Files of arrays (npz, npy, Parquet): wrong headers, names in capitals, missing or misnamed arrays."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from archives import write_npz
from fixture_types import Cli
from refusals import refusal
from unit_images import SHAPE, unit_images

import bcm_edge
from bcm_edge import BcmError
from bcm_edge.errors import ImageError
from bcm_edge.jobs.dataset import find, read
from bcm_edge.runtime.pictures.images import read_image_set
from bcm_edge.runtime.storage.arrays import array_shapes

# Latents and seeds


def test_states_at_the_highest_level_are_refused_as_latents(cli: Cli, digits_bundle: Path, tmp_path: Path):
    states = 80 * np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    np.savez(tmp_path / "states.npz", latents=states)
    options = ("--latents", tmp_path / "states.npz", "--label", 3, "-o", tmp_path / "x.png")
    result = cli("generate", digits_bundle, *options)
    assert "unit variance is expected" in refusal(result) and "latents / 80" in refusal(result)


def test_latents_file_needs_one_label_and_one_seed_each(cli: Cli, digits_bundle: Path, tmp_path: Path):
    latents = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    for name in ("labels", "seeds"):
        write_npz(tmp_path / "x.npz", {"latents": latents, name: np.arange(3)})
        result = cli("generate", digits_bundle, "--latents", tmp_path / "x.npz", "-o", tmp_path / "x.png")
        expected = f"{tmp_path}/x.npz: {name} has shape [3], expected [2], one per latent"
        assert refusal(result) == expected
    with (
        bcm_edge.load(digits_bundle) as bcm,
        pytest.raises(BcmError, match="n is 3, but there are 2 latents"),
    ):
        bcm.generate(3, latents=latents, labels=0)


def test_generate_uses_the_seeds_of_a_latents_file(cli: Cli, digits_bundle: Path, tmp_path: Path):
    """A schedule that adds noise draws it from these seeds, as in map."""
    latents = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    np.savez(tmp_path / "latents.npz", latents=latents, seeds=np.array([70, 90], np.uint64))
    options = ("--latents", tmp_path / "latents.npz", "--label", 3, "--schedule", "80>2 +2 2>0.002")
    images = {}
    for name, more in (("stored", ()), ("seed 70", ("--seed", 70)), ("seed 0", ("--seed", 0))):
        output = ("-o", tmp_path / "out.npz", "--force")
        assert cli("generate", digits_bundle, *options, *more, *output).exit_code == 0
        arrays = np.load(tmp_path / "out.npz")
        images[name] = arrays["images"]
        assert arrays["seeds"].tolist() == {"stored": [70, 90], "seed 70": [70, 71], "seed 0": [0, 1]}[name]
    same = np.abs(images["stored"] - images["seed 70"]).max(axis=(1, 2, 3))
    assert same[0] < 1e-5 < 0.01 < same[1]
    assert np.abs(images["stored"] - images["seed 0"]).max() > 0.01


# Damaged and unusual files


def write_header_without_data(file: Path) -> None:
    """Write an array whose header describes 10^13 values and which has no data."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", npy_header("(10000000, 1, 1000, 1000)"))


def npy_header(shape: str, dtype: str = "<f4") -> bytes:
    """The header of an npy file."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_header_that_describes_more_values_than_the_file_has(invert: Cli, tmp_path: Path):
    write_header_without_data(tmp_path / "bomb.npz")
    message = refusal(invert(tmp_path / "bomb.npz", "--label", 3))
    assert "its header describes 10000000000000 values of 4 bytes, but 0 bytes follow" in message


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        (b"hello", "images.npy: not an npy array"),
        (b"", "images.npy: not an npy array"),
        (b"\x93NUMPY\x01\x00\x05\x00hello", "images.npy: "),
        (
            npy_header("(1, 1, 8, 8)", "|O"),
            "contains Python objects, which are not read because they can run code",
        ),
        (npy_header("(-1, 8)") + bytes(64), "images.npy: its header has the shape (-1, 8)"),
        (npy_header("(-2, 1, 8, -8)") + bytes(512), "images.npy: its header has the shape (-2, 1, 8, -8)"),
        (npy_header("(2, 1, 8, 8)") + bytes(256), "describes 128 values of 4 bytes, but 256 bytes follow"),
    ],
)
def test_members_of_an_npz_that_are_not_arrays(invert: Cli, tmp_path: Path, member: bytes, problem: str):
    with zipfile.ZipFile(tmp_path / "words.npz", "w") as archive:
        archive.writestr("images.npy", member)
    message = refusal(invert(tmp_path / "words.npz", "--label", 3))
    assert (
        message.startswith(f"{tmp_path}/words.npz: not a readable npz file of arrays (")
        and problem in message
    )


def test_archive_that_unpacks_to_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Zeros compress a thousandfold; the size in the header counts."""
    np.savez_compressed(tmp_path / "zeros.npz", images=np.zeros((2000, *SHAPE), np.float32))
    monkeypatch.setattr("bcm_edge.runtime.machine.resources.available_memory", lambda: 10**5)
    with pytest.raises(BcmError, match=r"would take 0.512 MB of memory, and 0.1 MB are available"):
        array_shapes(tmp_path / "zeros.npz", "images")


def test_npy_files_and_suffixes_in_capitals(invert: Cli, tmp_path: Path):
    np.save(tmp_path / "images.npy", unit_images(2) * 2 - 1)
    np.savez(tmp_path / "images.npz", images=unit_images(3) * 2 - 1)
    (tmp_path / "images.npz").rename(tmp_path / "IMAGES.NPZ")
    for name, n in (("images.npy", 2), ("IMAGES.NPZ", 3)):
        assert invert(tmp_path / name, "--label", 3).exit_code == 0
        assert np.load(tmp_path / "out.npz")["latents"].shape == (n, *SHAPE)


def test_unnamed_array_is_taken_as_images(invert: Cli, tmp_path: Path):
    np.savez(tmp_path / "unnamed.npz", unit_images(2) * 2 - 1)
    assert invert(tmp_path / "unnamed.npz", "--label", 3).exit_code == 0
    assert np.load(tmp_path / "out.npz")["latents"].shape == (2, *SHAPE)


def test_latents_and_masks_may_be_npy_files(cli: Cli, digits_bundle: Path, tmp_path: Path):
    latents = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    np.save(tmp_path / "latents.npy", latents)
    options = ("--latents", tmp_path / "latents.npy", "--label", 3, "-o", tmp_path / "OUT.NPZ")
    result = cli("generate", digits_bundle, *options)
    assert result.exit_code == 0
    np.save(tmp_path / "mask.npy", np.eye(8))
    options = ("--mask", tmp_path / "mask.npy", "--label", 3, "-o", tmp_path / "filled.npz", "--json")
    result = cli("inpaint", digits_bundle, tmp_path / "OUT.NPZ", *options)
    assert json.loads(result.stdout)["filled"] == 0.125  # 8 of 64 pixels


def test_npz_with_bytes_before_the_archive(invert: Cli, unit_npz: Path):
    """zipfile finds such an archive from its end. numpy does not, and would suggest to allow pickle."""
    unit_npz.write_bytes(b"junk" + unit_npz.read_bytes())
    assert refusal(invert(unit_npz, "--label", 3)).endswith(
        "not a readable npz file of arrays (it is not a zip archive)"
    )


@pytest.mark.parametrize("masks", [np.full((8, 8), np.nan), np.full((8, 8), "x"), np.eye(8) * 1j])
def test_masks_that_are_not_numbers(cli: Cli, digits_bundle: Path, tmp_path: Path, masks: np.ndarray):
    np.savez(tmp_path / "m.npz", masks=masks)
    np.savez(tmp_path / "x.npz", images=unit_images(1) * 2 - 1)
    options = ("--mask", tmp_path / "m.npz", "--label", 3, "-o", tmp_path / "out.npz")
    assert "masks must be booleans or finite numbers" in refusal(
        cli("inpaint", digits_bundle, tmp_path / "x.npz", *options)
    )


def test_npz_together_with_other_inputs_is_refused(invert: Cli, unit_npz: Path):
    assert "an npz or npy file is read alone" in refusal(invert(unit_npz, unit_npz, "--label", 3))


def test_missing_array_message_lists_the_existing_arrays(tmp_path: Path):
    np.savez(tmp_path / "x.npz", x_train=np.zeros((1, 8, 8), np.uint8), y_train=np.zeros(1))
    with pytest.raises(ImageError, match=r"has no array `images` \(it has x_train, y_train\)"):
        read_image_set([tmp_path / "x.npz"], SHAPE)


def test_file_with_the_wrong_suffix(tmp_path: Path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, unit_images())
    with pytest.raises(ImageError, match=r"it is a single array; name it \.npy"):
        read_image_set([tmp_path / "x.npz"], SHAPE)
    for name in ("page.npy", "page.npz"):
        (tmp_path / name).write_text("<html>login</html>")
        with pytest.raises(ImageError, match="it is an HTML page; download the file again"):
            read_image_set([tmp_path / name], SHAPE)
    (tmp_path / "lfs.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ImageError, match="git lfs pull"):
        read_image_set([tmp_path / "lfs.npz"], SHAPE)


# Parquet and folders of shards


def test_missing_parquet_column_message_lists_the_columns(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"pixels": [1], "target": [2]}), tmp_path / "x.parquet")
    with pytest.raises(
        ImageError, match=r"has no array `images`, which invert needs \(it has pixels, target\)"
    ):
        find(str(tmp_path / "x.parquet"), "invert", SHAPE)


def test_parquet_labels_may_be_names(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    words = pyarrow.array(["cat", "dog"])
    for column in (words, words.dictionary_encode(), pyarrow.array([0, 1])):
        images = [(unit_images(1) * 2 - 1).ravel().tolist()] * 2
        parquet.write_table(pyarrow.table({"image": images, "label": column}), tmp_path / "x.parquet")
        labels = read(str(tmp_path / "x.parquet"), 0, 2, "invert", SHAPE)["labels"]
        assert labels.tolist() == ([0, 1] if column.type == pyarrow.int64() else ["cat", "dog"])


@pytest.mark.parametrize("name", ["labels", "seeds"])
def test_shard_with_more_labels_than_images(tmp_path: Path, name: str):
    arrays = {"images": unit_images(2) * 2 - 1, name: np.arange(4)}
    with (tmp_path / "a.npz").open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(ImageError, match=f"has 4 {name}, but 2 rows"):
        find(str(tmp_path / "a.npz"), "invert", SHAPE)


def test_shards_in_capitals_are_found_and_hidden_ones_ignored(tmp_path: Path):
    for name in ("A.NPZ", "b.npz", ".c.npz", "._d.npz"):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, images=unit_images() * 2 - 1)
    np.save(tmp_path / "e.npy", unit_images() * 2 - 1)
    assert [(source.name, source.rows) for source in find(str(tmp_path), "invert", SHAPE)] == [
        ("A.NPZ", 4),
        ("b.npz", 4),
        ("e.npy", 4),
    ]
