"""The onnxruntime backend: threads, and the cache of optimized graphs with its check."""

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
    """A cache folder without entries."""
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def reconstructed(bundle: Path) -> np.ndarray:
    """Images that used both graphs."""
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


def test_both_graphs_map_the_same_weights_file(digits_bundle: Path, empty_cache: Path):
    with bcm_edge.load(digits_bundle) as bcm:
        bcm.reconstruct(bcm.generate(1, labels=3), labels=3)
        (entry,) = (empty_cache / "onnxruntime").iterdir()
        files = [entry / direction / "optimised.bin" for direction in ("forward", "inverse")]
        assert files[0].stat().st_ino == files[1].stat().st_ino
        assert files[0].stat().st_size > 1_000_000
        if Path("/proc/self/maps").exists():  # mapped, not copied into memory
            assert str(files[0]) in Path("/proc/self/maps").read_text()


def test_entry_is_used_by_the_next_start(digits_bundle: Path, empty_cache: Path):
    first = reconstructed(digits_bundle)
    (entry,) = (empty_cache / "onnxruntime").iterdir()
    modified = (entry / "forward" / "model.onnx").stat().st_mtime_ns
    assert_images_agree(reconstructed(digits_bundle), first)
    assert (entry / "forward" / "model.onnx").stat().st_mtime_ns == modified


@pytest.mark.parametrize("name", ["forward/optimised.bin", "inverse/model.onnx", "entry.json"])
def test_damaged_entry_is_rebuilt(digits_bundle: Path, empty_cache: Path, name: str):
    first = reconstructed(digits_bundle)
    (entry,) = (empty_cache / "onnxruntime").iterdir()
    content = bytearray((entry / name).read_bytes())
    content[len(content) // 2] ^= 0x55
    (entry / name).write_bytes(content)
    assert_images_agree(reconstructed(digits_bundle), first)
    assert (entry / name).read_bytes() != bytes(content)


def test_entry_records_the_error_of_both_graphs(digits_bundle: Path, empty_cache: Path):
    reconstructed(digits_bundle)
    (entry,) = (empty_cache / "onnxruntime").iterdir()
    proof = json.loads((entry / "entry.json").read_text())["proof"]
    assert set(proof) == {"forward", "inverse"} and all(0 <= distance <= 1e-4 for distance in proof.values())


@pytest.mark.parametrize(
    "proof",
    [{}, {"forward": 0.0}, {"forward": 0.0, "inverse": 0.1}, {"forward": 0.0, "inverse": float("nan")}, None],
)
def test_entry_without_a_valid_proof_is_rebuilt(
    digits_bundle: Path, empty_cache: Path, proof: dict[str, float] | None
):
    first = reconstructed(digits_bundle)
    (entry,) = (empty_cache / "onnxruntime").iterdir()
    facts = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(
        json.dumps(facts["files"] if proof is None else {**facts, "proof": proof})
    )
    assert_images_agree(reconstructed(digits_bundle), first)
    rebuilt = json.loads((entry / "entry.json").read_text())["proof"]
    assert set(rebuilt) == {"forward", "inverse"} and all(
        0 <= distance <= 1e-4 for distance in rebuilt.values()
    )


def damage_weights(monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]) -> list[Path]:
    """Change the weights of every optimized forward graph before it is opened; returns these graphs."""
    graphs: list[Path] = []
    open_optimised = optimised.open_optimised

    def open_changed(graph: Path, *options: Any) -> Any:
        if graph.parent.name == "forward":
            graphs.append(graph)
            weights = graph.with_name("optimised.bin")
            weights.write_bytes(change(weights.read_bytes()))
        return open_optimised(graph, *options)

    monkeypatch.setattr(optimised, "open_optimised", open_changed)
    return graphs


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
def test_graphs_that_fail_the_check_are_not_used(
    digits_bundle: Path,
    empty_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[bytes], bytes],
    reason: str,
):
    graphs = damage_weights(monkeypatch, change)
    for _ in range(2):  # the second time uses the stored refusal
        with bcm_edge.load(digits_bundle, "onnxruntime", precision="fp32") as bcm:
            assert reason in bcm.backend.device and ", no cache (ONNX Runtime 1." in bcm.backend.device
            errors = compare(bcm.backend, load_recording(bcm.bundle), (2,), 1e-4)
            assert errors and all(error.ok for error in errors)
    assert len(graphs) == 1
    (refused,) = (empty_cache / "onnxruntime").iterdir()
    assert reason in refused.read_text()
    refused.unlink()
    monkeypatch.undo()
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(empty_cache))
    with bcm_edge.load(digits_bundle, "onnxruntime", precision="fp32") as bcm:
        assert "no cache" not in bcm.backend.device


def test_graph_that_returns_nan_has_no_entry(
    digits_bundle: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cached, "standard_normal", lambda *_: np.full((1, 1, 8, 8), np.nan, np.float32))
    with bcm_edge.load(digits_bundle, "onnxruntime") as bcm:
        reason = "forward.onnx gives NaN or infinity, so its optimised form cannot be verified"
        assert reason in bcm.backend.device
        assert np.isfinite(bcm.generate(1, labels=3)).all()
    assert not list((empty_cache / "onnxruntime").iterdir())


def test_unusable_cache_does_not_change_the_images(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = reconstructed(digits_bundle)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert_images_agree(reconstructed(digits_bundle), expected)


def test_number_of_threads_can_be_set(digits_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BCM_EDGE_THREADS", "3")
    with bcm_edge.load(digits_bundle, "onnxruntime") as bcm:
        assert bcm.backend.device.startswith("CPU, 3 threads")
        assert np.isfinite(bcm.generate(1, labels=3)).all()
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv("BCM_EDGE_THREADS", wrong)
        with pytest.raises(BackendError, match="BCM_EDGE_THREADS must be a positive integer"):
            bcm_edge.load(digits_bundle, "onnxruntime")
