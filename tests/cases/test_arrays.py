"""npz, npy and Parquet files as people bring them: value ranges that are unclear, headers that lie, names in capitals."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from fixture_types import Cli
from refusals import refusal

import bcm_edge
from bcm_edge import BcmError
from bcm_edge.errors import ImageError
from bcm_edge.jobs.dataset import find, read
from bcm_edge.runtime.pictures.images import images_from_array, read_images
from bcm_edge.runtime.storage.arrays import array_shapes
from bcm_edge.serving.answers import TASKS

SHAPE = (1, 8, 8)
UNCLEAR = "images have no value below 0, so they seem to lie in [0, 1] instead of [-1, 1]; convert them with images * 2 - 1, or"


def unit_images(n: int = 4) -> np.ndarray:
    """float32 [n, 1, 8, 8] in [0, 1]."""
    return np.random.default_rng(0).random((n, *SHAPE), dtype=np.float32)


@pytest.fixture
def unit_npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "unit.npz", images=unit_images(), labels=np.arange(4))
    return tmp_path / "unit.npz"


@pytest.fixture
def invert(cli: Cli, digits_bundle: Path, tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        return cli("invert", digits_bundle, *arguments, "-o", tmp_path / "out.npz", "--force")

    return run


# ---- value ranges


def test_images_of_an_unclear_range_are_refused(invert: Callable[..., Result], unit_npz: Path):
    message = refusal(invert(unit_npz))
    assert message.startswith(f"{unit_npz}: {UNCLEAR}")
    assert "--value-range 0,1" in message


def test_a_value_range_says_what_is_meant(invert: Callable[..., Result], unit_npz: Path, tmp_path: Path):
    latents = {}
    for value_range in ("0,1", "-1,1"):
        assert invert(unit_npz, "--value-range", value_range).exit_code == 0
        latents[value_range] = np.load(tmp_path / "out.npz")["latents"]
    np.savez(unit_npz, images=unit_images() * 2 - 1, labels=np.arange(4))
    assert invert(unit_npz).exit_code == 0
    np.testing.assert_allclose(latents["0,1"], np.load(tmp_path / "out.npz")["latents"], atol=1e-5)
    assert np.abs(latents["-1,1"] - latents["0,1"]).max() > 0.01


@pytest.mark.parametrize("task", ["reconstruct", "restore", "variations", "upscale", "inpaint"])
def test_every_command_refuses_them(cli: Cli, digits_bundle: Path, unit_npz: Path, tmp_path: Path, task: str):
    if task == "upscale":
        np.savez(unit_npz, images=unit_images()[..., ::2, ::2], labels=np.arange(4))
    mask = tmp_path / "mask.npz"
    np.savez(mask, masks=np.eye(8))
    options = ("--mask", mask) if task == "inpaint" else ()
    ended = cli(task, digits_bundle, unit_npz, *options, "-o", tmp_path / "out.npz")
    assert UNCLEAR in refusal(ended)


def test_python_refuses_them_unless_load_says_what_is_meant(digits_bundle: Path):
    with bcm_edge.load(digits_bundle) as bcm:
        for task in (bcm.invert, bcm.reconstruct, bcm.restore, bcm.variations):
            with pytest.raises(ImageError, match="no value below 0"):
                task(unit_images(), labels=0)
        expected = bcm.invert(unit_images() * 2 - 1, labels=0)
        pixels = np.rint(unit_images() * 255).astype(np.uint8)
        assert bcm.invert(pixels, labels=0).shape == (4, *SHAPE)
    with bcm_edge.load(digits_bundle, value_range=(0, 1)) as bcm:
        np.testing.assert_allclose(bcm.invert(unit_images(), labels=0), expected, atol=1e-5)
        near = bcm.variations(unit_images(), 1, strength=0, labels=0)[:, 0]  # converted once, not twice
        np.testing.assert_allclose(near, bcm.reconstruct(unit_images(), labels=0), atol=1e-4)
        with pytest.raises(ImageError, match=r"must lie in \[0, 1\]; these go from -0.996 to"):
            bcm.invert(unit_images() * 2 - 1 - 1e-3, labels=0)
    with bcm_edge.load(digits_bundle, value_range=(-1, 1)) as bcm:
        assert bcm.invert(unit_images(), labels=0).shape == (4, *SHAPE)


@pytest.mark.parametrize("task", ["invert", "reconstruct", "interpolate", "inpaint"])
def test_a_server_judges_every_request_by_itself(digits_bundle: Path, task: str):
    """Company must not decide: a request of an unclear range is refused beside one whose range is clear."""
    values = {
        "image": unit_images(1),
        "image_b": unit_images(1),
        "mask": np.eye(8, dtype=bool)[None],
        "seed": np.array([1], np.uint64),
        "label": np.array([3]),
    }
    names = {
        "interpolate": ("image", "image_b", "seed", "label"),
        "inpaint": ("image", "mask", "seed", "label"),
    }
    unclear = {name: values[name] for name in names.get(task, ("image", "seed", "label"))}
    clear = {**unclear, **{name: unclear[name] * 2 - 1 for name in ("image", "image_b") if name in unclear}}
    declared = {**unclear, "value_range": np.array(["0,1"], object)}
    with bcm_edge.load(digits_bundle, value_range=(-1, 1)) as bcm:
        first, second, third = TASKS[task].answer(bcm, [clear, unclear, declared])
    assert isinstance(second, BcmError) and "no value below 0" in str(second)
    assert not isinstance(first, BcmError) and not isinstance(third, BcmError)
    for name, values in first.items():
        assert np.abs(values.astype(float) - third[name]).max() <= (1 if values.dtype == np.uint8 else 1e-4)


def test_map_refuses_a_shard_of_an_unclear_range(unit_npz: Path):
    [source] = find(str(unit_npz), "invert", SHAPE)
    with pytest.raises(ImageError, match="no value below 0"):
        read(source.path, 0, 4, "invert", SHAPE)
    assert read(source.path, 0, 4, "invert", SHAPE, (0, 1))["images"].min() < -0.9


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (np.full((1, *SHAPE), 127.0), "convert pixels from 0 to 255 with images / 127.5 - 1"),
        (np.full((1, *SHAPE), 200, np.int64), r"convert pixels from 0 to 255 with images.astype\('uint8'\)"),
        (np.full((1, *SHAPE), -3.0), r"must lie in \[-1, 1\]; these go from -3 to -3$"),
        (np.full((1, *SHAPE), np.inf), "NaN or infinity"),
        (np.zeros((1, *SHAPE), bool), "not bool"),
        (np.zeros((1, *SHAPE), complex), "not complex128"),
    ],
)
def test_other_arrays_are_refused_with_the_line_that_converts(images: np.ndarray, problem: str):
    with pytest.raises(ImageError, match=problem):
        images_from_array(images, "in.npz")


def test_a_range_that_rounding_leaves_by_a_hair_is_unclear_too():
    with pytest.raises(ImageError, match="no value below 0"):
        images_from_array(unit_images() - np.float32(1e-4), "in.npz")


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64])
def test_pixels_of_0_and_1_would_be_black(dtype: type):
    ones = (unit_images() > 0.5).astype(dtype)
    with pytest.raises(ImageError, match=r"convert 0 and 1 to pixels with \(?images \* 255"):
        images_from_array(ones, "in.npz")
    assert images_from_array(np.zeros((1, *SHAPE), np.uint8), "in.npz").max() == -1
    if dtype is np.uint8:
        assert images_from_array(ones, "in.npz", (-1, 1)).max() < -0.99


@pytest.mark.parametrize("value_range", [(0, 255), [1], "0,1", 3, np.array([0, 1, 2])])
def test_load_refuses_other_ranges_at_once(digits_bundle: Path, value_range: Any):
    with pytest.raises(BcmError, match=r"value_range must be \(-1, 1\) or \(0, 1\)"):
        bcm_edge.load(digits_bundle, value_range=value_range)
    assert bcm_edge.load(digits_bundle, value_range=np.array([0, 1])).value_range == (0, 1)  # pyright: ignore[reportArgumentType]


# ---- latents and seeds


def test_states_at_the_highest_level_are_not_latents(cli: Cli, digits_bundle: Path, tmp_path: Path):
    states = 80 * np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    np.savez(tmp_path / "states.npz", latents=states)
    ended = cli(
        "generate",
        digits_bundle,
        "--latents",
        tmp_path / "states.npz",
        "--label",
        3,
        "-o",
        tmp_path / "x.png",
    )
    assert "unit variance is expected" in refusal(ended) and "latents / 80" in refusal(ended)


def test_labels_and_seeds_of_a_latents_file_are_one_each(cli: Cli, digits_bundle: Path, tmp_path: Path):
    latents = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    for name in ("labels", "seeds"):
        np.savez(tmp_path / "x.npz", latents=latents, **{name: np.arange(3)})  # pyright: ignore[reportArgumentType]
        ended = cli("generate", digits_bundle, "--latents", tmp_path / "x.npz", "-o", tmp_path / "x.png")
        assert refusal(ended) == f"{tmp_path}/x.npz: {name} has shape [3], but there are 2 latents"
    with (
        bcm_edge.load(digits_bundle) as bcm,
        pytest.raises(BcmError, match="n is 3, but there are 2 latents"),
    ):
        bcm.generate(3, latents=latents, labels=0)


def test_generate_takes_the_seeds_of_a_latents_file(cli: Cli, digits_bundle: Path, tmp_path: Path):
    """As map does. A schedule that adds noise draws it from them."""
    latents = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    np.savez(tmp_path / "latents.npz", latents=latents, seeds=np.array([70, 90], np.uint64))
    options = ("--latents", tmp_path / "latents.npz", "--label", 3, "--schedule", "80>2 +2 2>0.002")
    images = {}
    for name, more in (("stored", ()), ("seed 70", ("--seed", 70)), ("seed 0", ("--seed", 0))):
        assert (
            cli("generate", digits_bundle, *options, *more, "-o", tmp_path / "out.npz", "--force").exit_code
            == 0
        )
        arrays = np.load(tmp_path / "out.npz")
        images[name] = arrays["images"]
        assert arrays["seeds"].tolist() == {"stored": [70, 90], "seed 70": [70, 71], "seed 0": [0, 1]}[name]
    same = np.abs(images["stored"] - images["seed 70"]).max(axis=(1, 2, 3))
    assert same[0] < 1e-5 < 0.01 < same[1]
    assert np.abs(images["stored"] - images["seed 0"]).max() > 0.01


# ---- files


def write_bomb(file: Path) -> None:
    """A header that promises 10^13 values, and none behind it."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", npy_header("(10000000, 1, 1000, 1000)"))


def npy_header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_a_header_that_promises_more_than_the_file_holds(invert: Callable[..., Result], tmp_path: Path):
    write_bomb(tmp_path / "bomb.npz")
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
            "holds Python objects, which are not read because they can run code",
        ),
        (npy_header("(-1, 8)") + bytes(64), "images.npy: its header has the shape (-1, 8)"),
        (npy_header("(-2, 1, 8, -8)") + bytes(512), "images.npy: its header has the shape (-2, 1, 8, -8)"),
        (npy_header("(2, 1, 8, 8)") + bytes(256), "describes 128 values of 4 bytes, but 256 bytes follow"),
    ],
)
def test_members_that_are_no_arrays(
    invert: Callable[..., Result], tmp_path: Path, member: bytes, problem: str
):
    with zipfile.ZipFile(tmp_path / "words.npz", "w") as archive:
        archive.writestr("images.npy", member)
    message = refusal(invert(tmp_path / "words.npz", "--label", 3))
    assert (
        message.startswith(f"{tmp_path}/words.npz: not a readable npz file of arrays (")
        and problem in message
    )


def test_an_archive_that_unpacks_to_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Zeros compress a thousandfold: what counts is the size that the header promises."""
    np.savez_compressed(tmp_path / "zeros.npz", images=np.zeros((2000, *SHAPE), np.float32))
    monkeypatch.setattr("bcm_edge.runtime.machine.resources.available_memory", lambda: 10**5)
    with pytest.raises(BcmError, match=r"would take 0.512 MB of memory, and 0.1 MB are available"):
        array_shapes(tmp_path / "zeros.npz", "images")


def test_npy_files_and_names_in_capitals(invert: Callable[..., Result], tmp_path: Path):
    np.save(tmp_path / "images.npy", unit_images(2) * 2 - 1)
    np.savez(tmp_path / "images.npz", images=unit_images(3) * 2 - 1)
    (tmp_path / "images.npz").rename(tmp_path / "IMAGES.NPZ")
    for name, n in (("images.npy", 2), ("IMAGES.NPZ", 3)):
        assert invert(tmp_path / name, "--label", 3).exit_code == 0
        assert np.load(tmp_path / "out.npz")["latents"].shape == (n, *SHAPE)


def test_an_array_without_a_name_is_the_images(invert: Callable[..., Result], tmp_path: Path):
    np.savez(tmp_path / "unnamed.npz", unit_images(2) * 2 - 1)
    assert invert(tmp_path / "unnamed.npz", "--label", 3).exit_code == 0
    assert np.load(tmp_path / "out.npz")["latents"].shape == (2, *SHAPE)


def test_latents_and_masks_may_be_npy_files(cli: Cli, digits_bundle: Path, tmp_path: Path):
    np.save(
        tmp_path / "latents.npy", np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    )
    ended = cli(
        "generate",
        digits_bundle,
        "--latents",
        tmp_path / "latents.npy",
        "--label",
        3,
        "-o",
        tmp_path / "OUT.NPZ",
    )
    assert ended.exit_code == 0
    np.save(tmp_path / "mask.npy", np.eye(8))
    options = ("--mask", tmp_path / "mask.npy", "--label", 3, "-o", tmp_path / "filled.npz", "--json")
    ended = cli("inpaint", digits_bundle, tmp_path / "OUT.NPZ", *options)
    assert json.loads(ended.stdout)["filled"] == 0.125  # 8 of 64 pixels


def test_bytes_before_an_archive(invert: Callable[..., Result], unit_npz: Path):
    """zipfile finds the archive from its end, numpy does not, and would say that pickle can be allowed."""
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


def test_an_npz_beside_other_inputs_is_refused(invert: Callable[..., Result], unit_npz: Path):
    assert "an npz or npy file is read alone" in refusal(invert(unit_npz, unit_npz, "--label", 3))


def test_a_missing_array_is_named_beside_those_that_are_there(tmp_path: Path):
    np.savez(tmp_path / "x.npz", x_train=np.zeros((1, 8, 8), np.uint8), y_train=np.zeros(1))
    with pytest.raises(ImageError, match=r"has no array `images` \(it has x_train, y_train\)"):
        read_images([tmp_path / "x.npz"], SHAPE)


def test_an_array_saved_under_the_wrong_name(tmp_path: Path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, unit_images())
    with pytest.raises(ImageError, match=r"it is a single array; name it \.npy"):
        read_images([tmp_path / "x.npz"], SHAPE)
    for name in ("page.npy", "page.npz"):
        (tmp_path / name).write_text("<html>login</html>")
        with pytest.raises(ImageError, match="it is an HTML page; download the file again"):
            read_images([tmp_path / name], SHAPE)
    (tmp_path / "lfs.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ImageError, match="git lfs pull"):
        read_images([tmp_path / "lfs.npz"], SHAPE)


# ---- Parquet and folders of shards


def test_parquet_names_its_real_columns(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"pixels": [1], "target": [2]}), tmp_path / "x.parquet")
    with pytest.raises(ImageError, match=r"has no array `images` \(it has pixels, target\)"):
        find(str(tmp_path / "x.parquet"), "invert", SHAPE)


def test_labels_in_parquet_may_be_names(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    words = pyarrow.array(["cat", "dog"])
    for column in (words, words.dictionary_encode(), pyarrow.array([0, 1])):
        images = [(unit_images(1) * 2 - 1).ravel().tolist()] * 2
        parquet.write_table(pyarrow.table({"image": images, "label": column}), tmp_path / "x.parquet")
        labels = read(str(tmp_path / "x.parquet"), 0, 2, "invert", SHAPE)["labels"]
        assert labels.tolist() == ([0, 1] if column.type == pyarrow.int64() else ["cat", "dog"])


@pytest.mark.parametrize("name", ["labels", "seeds"])
def test_a_shard_with_more_labels_than_images(tmp_path: Path, name: str):
    arrays = {"images": unit_images(2) * 2 - 1, name: np.arange(4)}
    with (tmp_path / "a.npz").open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(ImageError, match=f"has 2 rows, but 4 {name}"):
        find(str(tmp_path / "a.npz"), "invert", SHAPE)


def test_shards_in_capitals_count_and_hidden_ones_do_not(tmp_path: Path):
    for name in ("A.NPZ", "b.npz", ".c.npz", "._d.npz"):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, images=unit_images() * 2 - 1)
    np.save(tmp_path / "e.npy", unit_images() * 2 - 1)
    assert [(source.name, source.rows) for source in find(str(tmp_path), "invert", SHAPE)] == [
        ("A.NPZ", 4),
        ("b.npz", 4),
        ("e.npy", 4),
    ]
