"""The ONNX Runtime backend: threads, the cache of optimised graphs, one copy of the weights, the proof of an entry."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree

import bcm_edge
from bcm_edge.errors import BackendError
from bcm_edge.runtime.backends import cached, optimised
from bcm_edge.runtime.checks.parity import compare
from bcm_edge.runtime.checks.recording import load_recording
from bcm_edge.runtime.machine.resources import threads


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
        files = [entry / direction / "optimised.bin" for direction in ("forward", "inverse")]
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


@pytest.mark.parametrize("name", ["forward/optimised.bin", "inverse/model.onnx", "entry.json"])
def test_a_damaged_entry_is_rebuilt(digits_bundle: Path, empty_cache: Path, name: str):
    first = picture(digits_bundle)
    (entry,) = (empty_cache / "onnxruntime").iterdir()
    content = bytearray((entry / name).read_bytes())
    content[len(content) // 2] ^= 0x55
    (entry / name).write_bytes(content)
    assert_images_agree(picture(digits_bundle), first)
    assert (entry / name).read_bytes() != bytes(content)


def test_an_entry_has_played_a_move_of_each_direction(digits_bundle: Path, empty_cache: Path):
    picture(digits_bundle)
    (entry,) = (empty_cache / "onnxruntime").iterdir()
    proof = json.loads((entry / "entry.json").read_text())["proof"]
    assert set(proof) == {"forward", "inverse"} and all(0 <= distance <= 1e-4 for distance in proof.values())


@pytest.mark.parametrize(
    "proof",
    [{}, {"forward": 0.0}, {"forward": 0.0, "inverse": 0.1}, {"forward": 0.0, "inverse": float("nan")}, None],
)
def test_an_entry_without_its_proof_is_not_whole(
    digits_bundle: Path, empty_cache: Path, proof: dict[str, float] | None
):
    first = picture(digits_bundle)
    (entry,) = (empty_cache / "onnxruntime").iterdir()
    facts = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(
        json.dumps(facts["files"] if proof is None else {**facts, "proof": proof})
    )
    assert_images_agree(picture(digits_bundle), first)
    rebuilt = json.loads((entry / "entry.json").read_text())["proof"]
    assert set(rebuilt) == {"forward", "inverse"} and all(
        0 <= distance <= 1e-4 for distance in rebuilt.values()
    )


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]) -> list[Path]:
    """Change the weights of every optimised forward graph before it is opened; returns the graphs, one per entry that was made."""
    made: list[Path] = []
    open_optimised = optimised.open_optimised

    def open_changed(graph: Path) -> Any:
        if graph.parent.name == "forward":
            made.append(graph)
            weights = graph.with_name("optimised.bin")
            weights.write_bytes(change(weights.read_bytes()))
        return open_optimised(graph)

    monkeypatch.setattr(optimised, "open_optimised", open_changed)
    return made


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda weights: weights[4096:] + weights[:4096],
            "own optimised forward graph gives other images, relative L2 ",
        ),
        (lambda weights: weights[:-4096], "cannot play its own optimised forward graph"),
    ],
    ids=["other offsets", "too short"],
)
def test_graphs_that_fail_the_proof_are_not_played(
    digits_bundle: Path,
    empty_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[bytes], bytes],
    reason: str,
):
    made = spoil(monkeypatch, change)
    for _ in range(2):  # the second time the refusal is remembered
        with bcm_edge.load(digits_bundle, "onnxruntime", precision="fp32") as bcm:
            assert reason in bcm.backend.device and ", no cache (ONNX Runtime 1." in bcm.backend.device
            errors = compare(bcm.backend, load_recording(bcm.bundle), (2,), 1e-4)
            assert errors and all(error.ok for error in errors)
    assert len(made) == 1
    (refused,) = (empty_cache / "onnxruntime").iterdir()
    assert reason in refused.read_text()
    refused.unlink()
    monkeypatch.undo()
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(empty_cache))
    with bcm_edge.load(digits_bundle, "onnxruntime", precision="fp32") as bcm:
        assert "no cache" not in bcm.backend.device


def test_a_graph_that_gives_nan_has_no_entry(
    digits_bundle: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cached, "standard_normal", lambda *_: np.full((1, 1, 8, 8), np.nan, np.float32))
    with bcm_edge.load(digits_bundle, "onnxruntime") as bcm:
        assert (
            "forward.onnx gives NaN or infinity, so its optimised form cannot be proved" in bcm.backend.device
        )
        assert np.isfinite(bcm.generate(1, labels=3)).all()
    assert not list((empty_cache / "onnxruntime").iterdir())


def test_a_cache_that_cannot_be_made_costs_nothing_but_time(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
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
        with pytest.raises(BackendError, match="BCM_EDGE_THREADS must be a positive integer"):
            bcm_edge.load(digits_bundle, "onnxruntime")
