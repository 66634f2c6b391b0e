"""The ONNX Runtime backend: threads, the cache of optimised graphs, one copy of the weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree

import bcm_edge
from bcm_edge.errors import BackendError
from bcm_edge.runtime.backends.onnxruntime import threads


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(bundle: Path) -> np.ndarray:
    with bcm_edge.load(bundle) as bcm:
        return bcm.reconstruct(bcm.generate(2, labels=3), labels=3)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity mask on this system")
def test_threads_follow_the_affinity_mask():
    allowed = os.sched_getaffinity(0)
    assert threads() == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_both_directions_map_one_weights_file(digits_bundle: Path, empty_cache: Path):
    with bcm_edge.load(digits_bundle) as bcm:
        bcm.reconstruct(bcm.generate(1, labels=3), labels=3)
        (entry,) = (empty_cache / "onnxruntime").iterdir()
        files = [entry / direction / "weights.bin" for direction in ("forward", "inverse")]
        assert files[0].stat().st_ino == files[1].stat().st_ino
        assert files[0].stat().st_size > 1_000_000
        if Path("/proc/self/maps").exists():  # mapped, not read into memory of our own
            assert str(files[0]) in Path("/proc/self/maps").read_text()


def test_an_entry_serves_the_next_start(digits_bundle: Path, empty_cache: Path):
    first = picture(digits_bundle)
    (entry,) = (empty_cache / "onnxruntime").iterdir()
    made = (entry / "forward" / "model.onnx").stat().st_mtime_ns
    assert_images_agree(picture(digits_bundle), first)
    assert (entry / "forward" / "model.onnx").stat().st_mtime_ns == made


@pytest.mark.parametrize("name", ["forward/weights.bin", "inverse/model.onnx", "entry.json"])
def test_a_damaged_entry_is_rebuilt(digits_bundle: Path, empty_cache: Path, name: str):
    first = picture(digits_bundle)
    (entry,) = (empty_cache / "onnxruntime").iterdir()
    content = bytearray((entry / name).read_bytes())
    content[len(content) // 2] ^= 0x55
    (entry / name).write_bytes(content)
    assert_images_agree(picture(digits_bundle), first)
    assert (entry / name).read_bytes() != bytes(content)


def test_a_cache_that_cannot_be_made_costs_nothing_but_time(digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = picture(digits_bundle)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert_images_agree(picture(digits_bundle), expected)


def test_threads_are_the_users_to_choose(digits_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BCM_EDGE_THREADS", "3")
    with bcm_edge.load(digits_bundle, "onnxruntime") as bcm:
        assert bcm.backend.device.startswith("CPU, 3 threads")
        assert np.isfinite(bcm.generate(1, labels=3)).all()
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv("BCM_EDGE_THREADS", wrong)
        with pytest.raises(BackendError, match="a number of threads from 1"):
            bcm_edge.load(digits_bundle, "onnxruntime")
