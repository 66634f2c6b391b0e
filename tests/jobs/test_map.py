"""bcm-edge map on a Ray cluster: the results are those of one call, with one worker and with two."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree
from archives import write_npz
from fixture_types import Process
from PIL import Image
from results import only_json

from bcm_edge import BCM
from bcm_edge.jobs.job import Job, Shard
from bcm_edge.jobs.player import play
from bcm_edge.runtime.pixels import to_uint8

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install '.[scale]'", allow_module_level=True)
pq = pytest.importorskip("pyarrow.parquet")
import pyarrow as pa  # noqa: E402

Digits = dict[str, np.ndarray]


def joined(folder: Path, name: str) -> np.ndarray:
    """Return one array of all npz outputs, in the order of their names."""
    return np.concatenate([np.load(file)[name] for file in sorted(folder.glob("*.npz"))])


def outputs(folder: Path) -> set[str]:
    """Return the names of the outputs of a job."""
    return {file.name for file in folder.iterdir() if file.name != "job.json"}


def test_invert_gives_the_latents_of_one_call(
    map_on: Process, bcm: BCM, digits: Digits, shards: Path, tmp_path: Path
):
    expected = bcm.invert(digits["images"], seed=7, labels=digits["labels"])
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        options = ("--task", "invert", "--seed", 7, "--workers", workers, "--json")
        completed = map_on(shards, "-o", folder, *options)
        assert completed.returncode == 0, completed.stderr
        report = only_json(completed.stdout)
        assert (report["shards"], report["images"], report["failed"]) == (3, 50, {})
        assert report["workers"] == workers
        assert "\n3 of 3 shards, " in completed.stderr
        assert outputs(folder) == {"a.npz", "b.npz", "c.npz"}
        seeds, labels, latents = (joined(folder, name) for name in ("seeds", "labels", "latents"))
        np.testing.assert_array_equal(seeds, np.arange(7, 57, dtype=np.uint64))
        np.testing.assert_array_equal(labels, digits["labels"])
        assert_images_agree(latents, expected)


def test_generate_gives_the_images_of_one_call(map_on: Process, bcm: BCM, tmp_path: Path):
    sampling = ("--task", "generate", "--schedule", "mixture-4", "--label", "all", "--seed", 3)
    options = ("--rows", 16, "--format", "parquet")
    assert map_on(40, "-o", tmp_path / "out", *sampling, *options).returncode == 0
    tables = [pq.read_table(file) for file in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [len(table) for table in tables] == [16, 16, 8]
    images = np.concatenate([table["images"].combine_chunks().to_numpy_ndarray() for table in tables])
    assert_images_agree(images, bcm.generate(40, schedule="mixture-4", seed=3, labels=np.arange(40) % 10))
    assert pa.concat_tables(tables)["seeds"].to_pylist() == list(range(3, 43))


def test_reconstruct_reads_parquet_with_seeds(map_on: Process, bcm: BCM, digits: Digits, tmp_path: Path):
    (tmp_path / "in").mkdir()
    pixels = np.rint((digits["images"] + 1) * 127.5).astype(np.uint8)
    images = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    table = pa.table({"image": images, "label": digits["labels"], "seed": digits["seeds"]})
    pq.write_table(table, tmp_path / "in" / "all.parquet", row_group_size=15)
    arguments = ("--task", "reconstruct", "--rows", 20, "--format", "npz", "--batch", 7)
    completed = map_on(tmp_path / "in", "-o", tmp_path / "out", *arguments)
    assert completed.returncode == 0, completed.stderr
    assert outputs(tmp_path / "out") == {f"all-0000{index}.npz" for index in range(3)}
    expected = bcm.reconstruct(pixels, seed=digits["seeds"], labels=digits["labels"])
    assert_images_agree(joined(tmp_path / "out", "images"), expected)


def test_restyle_takes_the_new_classes_in_order_of_the_rows(bcm: BCM, digits: Digits, shards: Path):
    hashes, program = bcm.bundle.hashes("fp32"), str(bcm.schedule("invert-2"))
    last = (1, 20, "", None, [8, 0, 5])
    job = Job("restyle", "80>0.002", program, None, 7, None, hashes, "onnxruntime", "fp32", 16, *last)
    results = play(bcm, job, Shard("b.npz", str(shards / "b.npz"), 0, 10, first=20))
    to = np.resize([8, 0, 5], 50)[20:30]
    np.testing.assert_array_equal(results["labels"], to)
    expected = bcm.restyle(digits["images"][20:30], seed=27, labels=digits["labels"][20:30], to=to)
    assert_images_agree(results["images"], expected)


def test_restore_guesses_labels_and_names_failed_shards(
    map_on: Process, bcm: BCM, digits: Digits, shards: Path, tmp_path: Path
):
    data = bytearray((shards / "a.npz").read_bytes())
    data[400:500] = bytes(100)  # after the header: the rows can be counted, but not read
    (shards / "a.npz").write_bytes(data)
    (shards / "d.npz").write_text("no zip file")
    options = ("--task", "restore", "--strength", 0.5, "--label", "guess", "--json")
    arguments = (shards, "-o", tmp_path / "out", *options)
    completed = map_on(*arguments)
    assert completed.returncode == 1, completed.stderr
    assert set(only_json(completed.stdout)["failed"]) == {"a.npz", "d.npz"}
    assert "error: 2 shards failed, all others are done: " in completed.stderr
    assert outputs(tmp_path / "out") == {"b.npz", "c.npz"}
    labels = joined(tmp_path / "out", "labels")
    np.testing.assert_array_equal(labels, bcm.guess_labels(digits["images"][20:], seed=20))
    restored = bcm.restore(digits["images"][20:], strength=0.5, seed=20, labels=labels)
    assert_images_agree(joined(tmp_path / "out", "images"), restored)
    whole = {name: digits[name][:20] for name in ("images", "labels")}
    # Both files are repaired. Then the same command plays only these two.
    write_npz(shards / "a.npz", whole)
    write_npz(shards / "d.npz", whole)
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in ("b.npz", "c.npz")}
    completed = map_on(*arguments)
    assert completed.returncode == 0, completed.stderr
    assert only_json(completed.stdout)["before"] == 2
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before
    assert outputs(tmp_path / "out") == {"a.npz", "b.npz", "c.npz", "d.npz"}


def test_folders_of_classes_are_shards(map_on: Process, bcm: BCM, digits: Digits, tmp_path: Path):
    pixels = to_uint8(digits["images"][:5])[:, 0]
    for number, label in enumerate((7, 3, 3, 7, 3)):
        (tmp_path / "data" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(tmp_path / "data" / str(label) / f"{number}.png")
    completed = map_on(tmp_path / "data", "-o", tmp_path / "out", "--task", "invert", "--rows", 2)
    assert completed.returncode == 0, completed.stderr
    assert outputs(tmp_path / "out") == {"3-00000.npz", "3-00001.npz", "7.npz"}
    labels, latents = (joined(tmp_path / "out", name) for name in ("labels", "latents"))
    assert labels.tolist() == [3, 3, 3, 7, 7]
    assert_images_agree(latents, bcm.invert(pixels[[1, 2, 4, 0, 3], None], labels=labels))
    (tmp_path / "data" / "7").rename(tmp_path / "data" / "cat")
    completed = map_on(tmp_path / "data", "-o", tmp_path / "x", "--task", "invert")
    assert completed.returncode == 2 and "/data/cat: 'cat' is not a label" in completed.stderr
    completed = map_on(tmp_path / "data" / "cat", "-o", tmp_path / "x", "--task", "invert")
    assert completed.returncode == 2 and "this model is class-conditional" in completed.stderr
    assert (
        map_on(tmp_path / "data" / "cat", "-o", tmp_path / "x", "--task", "invert", "--label", 7).returncode
        == 0
    )
