"""The openvino backend: it agrees with torch and refuses precisions that it does not compute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree

import bcm_edge
from bcm_edge.errors import BackendError
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.checks.parity import compare
from bcm_edge.runtime.checks.recording import load_recording
from bcm_edge.runtime.storage.bundle import open_bundle

pytest.importorskip("openvino", reason="openvino is not installed; pip install '.[openvino]'")
pytestmark = pytest.mark.numerical


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("bf16", 2e-2), ("int8", 6e-2)])
def test_schedules_agree_with_torch_at_every_batch_size(typed_bundle: Path, precision: str, bound: float):
    bundle = open_bundle(typed_bundle)
    errors = compare(open_backend("openvino", bundle, precision), load_recording(bundle), (1, 2, 5), bound)
    assert len(errors) == 48 and all(e.ok for e in errors), max(errors, key=lambda e: e.relative_l2)
    if precision != "fp32":
        assert max(e.relative_l2 for e in errors) > 1e-3  # it computed in fewer bits


@pytest.mark.parametrize(
    ("flags", "int8"),
    [(["avx2", "avx512_vnni"], "onnxruntime"), (["avx2", "amx_bf16", "amx_int8"], "openvino")],
)
def test_auto_selects_the_faster_backend_for_the_processor(
    typed_bundle: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], int8: str
):
    monkeypatch.setattr("bcm_edge.runtime.machine.processor.cpu_flags", lambda: flags)
    bundle = open_bundle(typed_bundle)
    assert open_backend("auto", bundle, "fp32").name == "onnxruntime"
    assert open_backend("auto", bundle, "bf16").name == "openvino"
    assert open_backend("auto", bundle, "int8").name == int8


def test_float16_is_refused(typed_bundle: Path):
    with pytest.raises(BackendError, match="computes float16 graphs in float32"):
        open_backend("openvino", open_bundle(typed_bundle), "fp16")


def test_image_does_not_depend_on_its_batch(typed_bundle: Path):
    with bcm_edge.load(typed_bundle, "openvino") as bcm:
        together = bcm.generate(5, labels=[0, 1, 2, 3, 4], schedule="mixture-4")
        alone = np.concatenate([bcm.generate(1, labels=n, seed=n, schedule="mixture-4") for n in range(5)])
    assert_images_agree(together, alone)


def test_compiled_networks_are_cached_and_damaged_ones_replaced(
    typed_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without the SHA-256, a flipped bit in the weights would change images without an error."""
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path))
    first = bcm_edge.load(typed_bundle, "openvino").generate(1, labels=3)
    [blob] = (tmp_path / "openvino").glob("*/network.blob")
    whole, modified = blob.read_bytes(), blob.stat().st_mtime_ns
    assert_images_agree(bcm_edge.load(typed_bundle, "openvino").generate(1, labels=3), first)
    assert blob.stat().st_mtime_ns == modified
    flipped = bytearray(whole)
    flipped[len(whole) // 4 : len(whole) // 2] = bytes(
        value ^ 0x40 for value in flipped[len(whole) // 4 : len(whole) // 2]
    )
    for damaged in (whole[:1000], bytes(flipped), b""):
        blob.write_bytes(damaged)
        assert_images_agree(bcm_edge.load(typed_bundle, "openvino").generate(1, labels=3), first)
        assert blob.read_bytes() != damaged


def test_network_without_a_valid_proof_is_compiled_again(
    typed_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path))
    bcm_edge.load(typed_bundle, "openvino").generate(1, labels=3)
    [entry] = (tmp_path / "openvino").glob("*/entry.json")
    facts = json.loads(entry.read_text())
    assert 0 <= facts["proof"] <= 1e-4
    entry.write_text(json.dumps({**facts, "proof": 0.5}))
    bcm_edge.load(typed_bundle, "openvino").generate(1, labels=3)
    assert json.loads(entry.read_text())["proof"] <= 1e-4


def test_unusable_cache_does_not_stop_the_backend(
    typed_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "file"))
    assert bcm_edge.load(typed_bundle, "openvino").generate(1, labels=3).shape == (1, 1, 8, 8)
