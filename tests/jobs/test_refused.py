"""Jobs and data sets that map refuses before it starts Ray, and the reading of data sets, without Ray."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.util
import io
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fixture_types import Cli
from PIL import Image

from bcm_edge import BCM
from bcm_edge.errors import ImageError
from bcm_edge.jobs.dataset import find, read, write
from bcm_edge.jobs.job import Job, Shard, opened
from bcm_edge.jobs.player import Player
from bcm_edge.runtime.checks import doctor

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install '.[scale]'", allow_module_level=True)
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SHAPE = (1, 8, 8)


@pytest.fixture
def job(bcm: BCM) -> Job:
    """An inversion in parts of 1024 rows."""
    hashes = bcm.bundle.hashes("fp32")
    return Job(
        "invert", None, "+0.07 0.07>15>80", None, 0, None, hashes, "onnxruntime", "fp32", 16, 1, 1024, ""
    )


@pytest.fixture
def begun(job: Job, bcm: BCM, digits_bundle: Path, shards: Path, tmp_path: Path) -> tuple[object, ...]:
    """The arguments of a job whose shards are all done, so that continuing it needs no Ray."""
    program = bcm.bundle.schedule("invert-2")
    started = dataclasses.replace(job, inversion=str(program))
    with opened(tmp_path / "out", started, find(str(shards), "invert", SHAPE)) as todo:
        for shard in todo:
            write(tmp_path / "out" / shard.name, {"latents": np.zeros((1, *SHAPE), np.float32)})
    options = ("--task", "invert", "--backend", "onnxruntime", "--inversion", "invert-2")
    return ("map", digits_bundle, shards, "-o", tmp_path / "out", *options)


def assert_refused(result: Result, message: str) -> None:
    """Check that a command refused its input with a message."""
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_job_that_is_done_has_nothing_to_do(begun: tuple[object, ...], cli: Cli):
    result = cli(*begun)
    assert result.exit_code == 0, result.output
    assert "all 3 shards were already done" in result.stderr


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (("--seed", 5), "other arguments: seed was 0, now it is 5"),
        (("--label", "3"), "other arguments: labels was null, now it is [3]"),
        (("--batch", 4), "other arguments: batch was 16, now it is 4"),
        (("--inversion", "invert-1"), "other arguments: inversion was "),
    ],
)
def test_restart_with_other_arguments_is_refused(
    begun: tuple[object, ...], cli: Cli, other: tuple[object, ...], message: str
):
    assert_refused(cli(*begun, *other), message)


def test_restart_on_changed_data_is_refused(
    begun: tuple[object, ...], cli: Cli, shards: Path, digits: dict[str, np.ndarray]
):
    np.savez(shards / "b.npz", images=digits["images"][:10], labels=digits["labels"][:10])
    assert_refused(cli(*begun), "b.npz has changed since the job in ")
    (shards / "b.npz").unlink()
    assert_refused(cli(*begun), "for other data: b.npz is missing")


def test_folder_of_another_process_or_with_other_files_is_refused(
    begun: tuple[object, ...], cli: Cli, tmp_path: Path
):
    descriptor = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert_refused(cli(*begun), "another process runs this job")
    os.close(descriptor)
    (tmp_path / "out" / "job.json").unlink()
    assert_refused(cli(*begun), "contains other files and no job")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "--task", "invert"), "nowhere: no such file or folder"),
        ((".", "--task", "invert"), "the folder has no .npz, .npy, .parquet files"),
        (("0", "--task", "generate", "--label", "1"), "must be at least 1, not 0"),
        (("5", "--task", "generate"), "this model is class-conditional: give labels from 0 to 9"),
        (("5", "--task", "generate", "--label", "10"), "label 10 is out of range"),
        (
            ("5", "--task", "generate", "--label", "guess"),
            "--label guess needs images as input; give a number or a name",
        ),
        (
            ("5", "--task", "generate", "--label", "1", "--strength", "1"),
            "--strength is not an option of generate, which has --schedule",
        ),
        (
            ("in/images.npz", "--task", "restyle", "--label", "1"),
            "restyle needs the class to generate: give --to with a number from 0 to 9",
        ),
        (
            ("in/images.npz", "--task", "reconstruct", "--label", "1", "--to", "2"),
            "--to is not an option of reconstruct, which has --inversion, --schedule",
        ),
        (
            ("5", "--task", "generate", "--label", "1", "--ray", "127.0.0.1:1"),
            "--ray 127.0.0.1:1: no cluster answers at this address",
        ),
        (("5", "--task", "generate", "--label", "1", "--ray", "here"), "expected HOST:PORT, or auto"),
    ],
)
def test_wrong_arguments_are_refused(
    digits_bundle: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    np.savez("in/images.npz", images=np.zeros((2, *SHAPE), np.uint8))
    assert_refused(cli("map", digits_bundle, *arguments, "-o", "out"), message)


def test_command_without_ray_names_the_extra(
    digits_bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(doctor, "missing_packages", lambda extra: ["ray"] if extra == "scale" else [])
    assert_refused(
        cli("map", digits_bundle, 3, "-o", tmp_path / "o", "--task", "generate"),
        "needs packages that are not installed (ray); pip install '.[scale]'",
    )


def test_shard_that_kills_its_workers_is_given_up(
    job: Job, digits_bundle: Path, shards: Path, tmp_path: Path
):
    (tmp_path / ".a.npz.tried").write_bytes(b"....")  # the file that four workers leave which died
    player = Player(job, str(digits_bundle), str(tmp_path))
    result = player(dataclasses.asdict(Shard("a.npz", str(shards / "a.npz"), 0, 20, 0)))
    assert result["problem"].startswith("its worker died 4 times, perhaps because memory does not suffice")
    assert not (tmp_path / "a.npz").exists()
    result = player(dataclasses.asdict(Shard("b.npz", str(shards / "b.npz"), 0, 10, -1)))
    reason = "its seeds depend on the numbers of its rows, which are unknown"
    assert f"{reason} because a file before it cannot be read" in result["problem"]


def test_parquet_images_may_have_five_types(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    pictures = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        pictures.append(file.getvalue())
    kinds = {
        "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels),
        "nested": pa.array(pixels.tolist(), pa.list_(pa.list_(pa.uint8()))),
        "flat": pa.array(pixels.reshape(6, 64).tolist(), pa.list_(pa.uint8(), 64)),
        "encoded": pa.array(pictures),
        "structs": pa.array([{"bytes": picture, "path": None} for picture in pictures]),
    }
    for kind, column in kinds.items():
        file = tmp_path / f"{kind}.parquet"
        pq.write_table(pa.table({"image": column, "label": list(range(6))}), file, row_group_size=4)
        (source,) = find(str(file), "invert", SHAPE)
        assert (source.rows, source.holds, source.problem) == (6, ("images", "labels"), "")
        rows = read(str(file), 2, 5, "invert", SHAPE)
        np.testing.assert_array_equal(np.rint((rows["images"][:, 0] + 1) * 127.5), pixels[2:5], err_msg=kind)
        np.testing.assert_array_equal(rows["labels"], [2, 3, 4])


def test_parquet_that_does_not_fit_is_named(tmp_path: Path):
    ragged = pa.array([[0.0], [0.0, 1.0]])
    for column, message in (
        (ragged, "lists have different lengths"),
        (pa.array([None, [0.0] * 64]), "1 rows have no value"),
        (["a", "b"], "has the type"),
    ):
        file = tmp_path / "x.parquet"
        pq.write_table(pa.table({"images": column}), file)
        with pytest.raises(ImageError, match=message):
            read(str(file), 0, 2, "invert", SHAPE)
