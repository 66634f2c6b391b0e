"""The programs in examples/onnx compute what this package computes, without it.

Each generates images, inverts them, and generates them again from the latents.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from agreement import assert_pixels_show, relative_l2
from fixture_types import ROOT
from networks import TINY, random_model

import bcm_edge
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.model.checkpoint import Checkpoint
from bcm_edge.runtime.storage.bundle import open_bundle

EXAMPLES = ROOT / "examples" / "onnx"
CLIENTS = ROOT / ".clients"  # tests/examples/fetch.sh makes it
SEEDS = [7, 8, 2**64 - 1]
LABELS = [3, 1, 4]
# As sys.executable runs round_trip.py, but this package and torch cannot be imported.
ALONE = (
    "import runpy, sys; sys.modules['bcm_edge'] = sys.modules['torch'] = None; "
    "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)

Example = Callable[..., dict[str, np.ndarray]]  # runs a program on a bundle, and returns its three arrays


def run(command: Sequence[object], **variables: str) -> None:
    """Run a program, which must succeed."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", **variables}
    completed = subprocess.run(
        [str(word) for word in command], env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr


def listed(seeds: Sequence[int], labels: Sequence[int] | None) -> list[str]:
    """The arguments SEEDS and LABELS."""
    lists = [seeds] if labels is None else [seeds, labels]
    return [",".join(map(str, numbers)) for numbers in lists]


def raw_arrays(folder: Path, bundle: Path) -> dict[str, np.ndarray]:
    """Read the three files that the programs in C++ and JavaScript write."""
    shape = open_bundle(bundle).manifest.model.sample_shape
    return {
        name: np.fromfile(folder / f"{name}.f32", np.float32).reshape(-1, *shape)
        for name in ("images", "latents", "again")
    }


@pytest.fixture
def python(tmp_path: Path) -> Example:
    """Run round_trip.py."""

    def example(bundle: Path, seeds: Sequence[int], labels: Sequence[int] | None) -> dict[str, np.ndarray]:
        program = EXAMPLES / "round_trip.py"
        run([sys.executable, "-c", ALONE, program, bundle, tmp_path / "out", *listed(seeds, labels)])
        return dict(np.load(tmp_path / "out" / "round_trip.npz"))

    return example


@pytest.fixture
def javascript(tmp_path: Path) -> Example:
    """Run round_trip.mjs with onnxruntime-node."""
    if not (CLIENTS / "node_modules").exists() or not shutil.which("node"):
        pytest.skip("onnxruntime-node is not installed; tests/examples/fetch.sh .clients installs it")
    (tmp_path / "node_modules").symlink_to(CLIENTS / "node_modules")
    program = shutil.copy(EXAMPLES / "round_trip.mjs", tmp_path)

    def example(bundle: Path, seeds: Sequence[int], labels: Sequence[int] | None) -> dict[str, np.ndarray]:
        run(["node", program, bundle, tmp_path / "out", *listed(seeds, labels)])
        return raw_arrays(tmp_path / "out", bundle)

    return example


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """round_trip.cpp, compiled with the headers of Debian for the library in the Python package."""
    if not (CLIENTS / "include").exists() or not shutil.which("g++"):
        pytest.skip("no headers of ONNX Runtime; tests/examples/fetch.sh .clients fetches them")
    folder = tmp_path_factory.mktemp("compiled")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    sources = ["-Wall", "-Wextra", "-Werror", EXAMPLES / "round_trip.cpp", "-isystem", CLIENTS / "include"]
    libraries = [f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"]
    run(["g++", "-std=c++17", *sources, *libraries, "-o", folder / "round_trip"])
    return folder / "round_trip"


@pytest.fixture
def cpp(compiled: Path, tmp_path: Path) -> Example:
    """Run the compiled round_trip.cpp. It has no parser of JSON: its schedules are arguments."""

    def example(bundle: Path, seeds: Sequence[int], labels: Sequence[int] | None) -> dict[str, np.ndarray]:
        schedules = open_bundle(bundle).manifest.schedules
        chosen = [schedules["mixture-4"], schedules["invert-2"]]
        run([compiled, bundle, tmp_path, *chosen, *listed(seeds, labels)])
        return raw_arrays(tmp_path, bundle)

    return example


@pytest.fixture(scope="module")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights, for colour images of 16 × 16, without classes."""
    config = replace(TINY, num_classes=None)
    checkpoint = Checkpoint("tiny.pt", config, random_model(config).network.state_dict())
    bundle = tmp_path_factory.mktemp("colour") / "tiny.bundle"
    export(ExportPlan(checkpoint, bundle, verify="none"), "0" * 64)
    return bundle


@pytest.fixture(params=["python", "javascript", "cpp"])
def example(request: pytest.FixtureRequest) -> Example:
    """Each program in turn."""
    return request.getfixturevalue(request.param)


def expected(bundle: Path, seeds: Sequence[int], labels: Sequence[int] | None) -> dict[str, np.ndarray]:
    """What this package computes."""
    with bcm_edge.load(bundle, "onnxruntime", precision="fp32") as bcm:
        images = bcm.generate(schedule="mixture-4", seed=seeds, labels=labels)
        latents = bcm.invert(images, inversion="invert-2", seed=seeds, labels=labels)
        again = bcm.generate(schedule="one-step", latents=latents, labels=labels)
    return {"images": images, "latents": latents, "again": again}


def assert_equal(actual: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Compare each image and latent, up to rounding."""
    assert actual.keys() == wanted.keys()
    for name, array in wanted.items():
        assert actual[name].shape == array.shape and actual[name].dtype == np.float32
        for row, right in zip(actual[name], array, strict=True):
            assert relative_l2(row, right) < 1e-4, name


def test_three_digits_of_three_classes(example: Example, digits_bundle: Path):
    assert_equal(example(digits_bundle, SEEDS, LABELS), expected(digits_bundle, SEEDS, LABELS))


def test_one_colour_image_without_label(example: Example, colour_bundle: Path):
    assert_equal(example(colour_bundle, [5], None), expected(colour_bundle, [5], None))


def test_python_writes_a_picture(python: Example, digits_bundle: Path, tmp_path: Path):
    images = python(digits_bundle, SEEDS, LABELS)["images"]
    header, _, pixels = (tmp_path / "out" / "images.pnm").read_bytes().partition(b" 255\n")
    assert header == b"P5 8 24"
    assert_pixels_show(np.frombuffer(pixels, np.uint8).reshape(3, 1, 8, 8), images)


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("round_trip.*")), ids=lambda file: file.suffix)
def test_programs_are_short(program: Path):
    assert len(program.read_text().splitlines()) < 60
