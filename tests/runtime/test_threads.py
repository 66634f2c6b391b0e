"""One model in many threads, on every CPU backend. tests/engines has the same tests for tensorrt."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shared_use import assert_closing_is_safe, assert_threads_agree

import bcm_edge
from bcm_edge.runtime.backends.base import Opened

BACKENDS = ["onnxruntime", "openvino", "null"]


def need(backend: str) -> None:
    """Skip the test if a library of the backend is not installed."""
    for module in {"openvino": ["openvino"], "typed": ["onnx"]}.get(backend, []):
        pytest.importorskip(module, reason=f"{module} is not installed")


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_agree_with_a_single_thread(digits_bundle: Path, backend: str):
    need(backend)
    assert_threads_agree(digits_bundle, backend, "fp32")


def test_threads_agree_with_a_single_thread_in_fp16(typed_bundle: Path):
    need("typed")
    assert_threads_agree(typed_bundle, "typed", "fp16")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_model_can_be_closed_while_other_threads_play(digits_bundle: Path, backend: str):
    need(backend)
    assert_closing_is_safe(digits_bundle, backend, "fp32")


def test_threads_that_load_one_bundle_share_its_cache_entry(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path))

    def device(_: int) -> str:
        with bcm_edge.load(digits_bundle, "onnxruntime", precision="fp32") as bcm:
            return bcm.backend.device

    with ThreadPoolExecutor(4) as pool:
        assert not [text for text in pool.map(device, range(4)) if "no cache" in text]
    assert len(list((tmp_path / "onnxruntime").iterdir())) == 1


def test_value_is_made_once_for_all_threads():
    keys: list[int] = []
    ready = threading.Barrier(8)

    def make(key: int) -> int:
        keys.append(key)
        return 10 * key

    opened = Opened(make)

    def ask(_: int) -> None:
        ready.wait(60)
        assert (opened.get(1), opened.get(2)) == (10, 20)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert sorted(keys) == [1, 2]
