"""One Ray cluster with two processors for all tests of this folder, and data sets of digits as shards."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from archives import write_npz
from fixture_types import Process
from processes import child

import bcm_edge
from bcm_edge import BCM

CLUSTER = """
import ray
options = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 100 << 20}
context = ray.init(address="local", num_cpus=2, **options)
print(context.address_info["gcs_address"], flush=True)
input()
"""


@pytest.fixture(scope="session")
def cluster(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment variables with which a process reaches the cluster, and its address as ADDRESS.

    The cluster requires a token and listens only on the loopback interface.
    """
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    paths = [str(packages(tmp_path_factory)), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    log = tmp_path_factory.mktemp("ray") / "log"
    with (
        log.open("w") as errors,
        child(
            [sys.executable, "-c", CLUSTER],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as running,
    ):
        assert running.stdin and running.stdout
        address = running.stdout.readline().strip()
        assert address, log.read_text()
        yield {**environment, "ADDRESS": address}
        running.communicate("\n", timeout=60)


def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder from which workers import the package of this checkout."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "bcm_edge").symlink_to(Path(bcm_edge.__file__).resolve().parent)
    return folder


@pytest.fixture(scope="session")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    """The shipped model in this process."""
    with bcm_edge.load(digits_bundle, precision="fp32", backend="onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="session")
def digits(bcm: BCM) -> dict[str, np.ndarray]:
    """Images, labels and seeds of 50 generated digits."""
    labels, seeds = np.arange(50) % 10, np.arange(900, 950)
    return {"images": bcm.generate(50, seed=seeds, labels=labels), "labels": labels, "seeds": seeds}


@pytest.fixture
def shards(digits: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """a.npz of 20 rows, b.npz of 10, c.npz of 20: images and labels, no seeds."""
    return write_shards(tmp_path / "shards", digits, (20, 10, 20), ("images", "labels"))


def write_shards(
    folder: Path, arrays: dict[str, np.ndarray], lengths: tuple[int, ...], names: tuple[str, ...]
) -> Path:
    """Write one npz file a.npz, b.npz, … per length, with the next rows of the arrays. Return the folder."""
    folder.mkdir()
    ends = np.cumsum(lengths)
    for index, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        rows = {name: arrays[name][end - length : end] for name in names}
        write_npz(folder / f"{chr(ord('a') + index)}.npz", rows)
    return folder


@pytest.fixture
def map_on(cluster: dict[str, str], digits_bundle: Path, process: Process) -> Process:
    """Run `bcm-edge map BUNDLE … --ray ADDRESS` as a process, because Ray reads the environment only once."""
    return lambda *arguments: process(
        "map", digits_bundle, *arguments, "--ray", cluster["ADDRESS"], **cluster
    )
