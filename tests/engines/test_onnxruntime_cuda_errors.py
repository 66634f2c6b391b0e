"""Errors of the onnxruntime-cuda backend on a simulated GPU: it never computes on the CPU silently."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from agreement import assert_images_agree
from device_schedules import MIXTURE

import bcm_edge
from bcm_edge.errors import BackendError, NonFiniteError
from bcm_edge.runtime.batches import Batch
from bcm_edge.runtime.chain import play, play_to_pixels
from bcm_edge.runtime.machine.gpu import is_out_of_memory

NAME = "onnxruntime-cuda"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("empty", r"they gave other images than the session \(relative L2 nan\)"),
        ("stale", r"they gave other images than the session \(relative L2 \d\.\de[+-]\d\d\)"),
        ("wrong", r"they gave other images than the session \(relative L2 \d\.\de-\d\d\)"),
        ("refused", r"recording failed: CUDA failure 901: operation failed due to a previous error"),
    ],
)
def test_graph_that_is_wrong_is_not_used(
    typed_bundle: Path,
    onnxruntime_gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    reason: str,
):
    monkeypatch.setenv("FAKE_ORT_GRAPH", fault)
    with (
        bcm_edge.load(typed_bundle, NAME, precision="fp32") as gpu,
        bcm_edge.load(typed_bundle, "onnxruntime", precision="fp32") as cpu,
    ):
        for labels in (3, 4):
            actual, expected = (
                each.generate(2, schedule=MIXTURE, seed=1, labels=labels) for each in (gpu, cpu)
            )
            assert_images_agree(actual, expected)
        assert re.search(f", CUDA provider, without CUDA graphs: {reason}", gpu.backend.device)
        onnxruntime_gpu.calls.clear()
        gpu.generate(2, schedule=MIXTURE, labels=3)
        assert {call for call in onnxruntime_gpu.calls if "run" in call or "replay" in call} == {"run eager"}


def test_nan_is_reported_with_the_move_and_the_sample(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    with bcm_edge.load(typed_bundle, NAME, precision="fp32") as bcm:
        x = np.full((2, 1, 8, 8), 1e38, np.float32)
        x[0] = 40
        message = r"move 1 of 2 \(80>2.4\) on backend onnxruntime-cuda gave NaN .* \(first in sample 1\)"
        for play_chain in (play, play_to_pixels):
            with pytest.raises(NonFiniteError, match=message):
                play_chain(bcm.schedule("80>2.4>0.002"), bcm.backend, Batch([0, 1], np.array([3, 3])), x)
        assert bcm.backend.device.endswith("one CUDA graph per move")  # NaN cannot be compared


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FAKE_CUDA_PROVIDER", "absent", "explicitly disabled"),
        ("FAKE_NODE_ON_CPU", "1", "explicitly disabled"),
        ("FAKE_NODE_ON_CPU", "reported", r"would be computed elsewhere: .*\(CPUExecutionProvider\)"),
    ],
)
def test_session_that_would_compute_on_the_cpu_is_refused(
    typed_bundle: Path,
    onnxruntime_gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    message: str,
):
    monkeypatch.setenv(variable, value)
    where = "with CUDA provider cannot open .*inverse.*onnx: "
    with pytest.raises(BackendError, match=where + ".*" + message):
        bcm_edge.load(typed_bundle, NAME, precision="fp32")


def test_session_that_is_silently_on_the_cpu_is_refused(
    typed_bundle: Path, onnxruntime_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """As a version of ONNX Runtime would be that ignores the entry against it."""
    import onnxruntime

    monkeypatch.setenv("FAKE_CUDA_PROVIDER", "absent")
    monkeypatch.setattr(onnxruntime.SessionOptions, "add_session_config_entry", lambda *_: None)
    message = "it opened the graph with CPUExecutionProvider instead of CUDAExecutionProvider"
    with pytest.raises(BackendError, match=message):
        bcm_edge.load(typed_bundle, NAME, precision="fp32")


def test_version_that_does_not_report_the_placement_says_so(
    typed_bundle: Path,
    onnxruntime_gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    import onnxruntime

    name = "get_provider_graph_assignment_info"
    for owner in onnxruntime.InferenceSession.__mro__:
        if name in vars(owner):
            monkeypatch.delattr(owner, name)
    caplog.set_level("INFO", "bcm_edge")
    bcm_edge.load(typed_bundle, NAME, precision="fp32").close()
    assert "this version does not report which provider computes which node" in caplog.text


def test_precisions_that_are_not_played_are_refused(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    for precision in ("bf16", "int8"):
        message = (
            f"{NAME}: {precision} is not played with this provider of ONNX Runtime; choose fp32 or fp16$"
        )
        with pytest.raises(BackendError, match=message):
            bcm_edge.load(typed_bundle, NAME, precision=precision)
    assert not onnxruntime_gpu.sessions


def test_machine_without_a_gpu(typed_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    from bcm_edge.runtime.machine import gpu

    def no_driver() -> Callable[..., int]:
        raise BackendError("no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded)")

    monkeypatch.setattr(gpu, "_driver", no_driver)
    with pytest.raises(BackendError, match=f"{NAME}: no NVIDIA driver .*; on a machine without a GPU, use"):
        bcm_edge.load(typed_bundle, NAME)
    message = "no backend can run on the device gpu here; tensorrt, onnxruntime-cuda: no NVIDIA driver"
    with pytest.raises(BackendError, match=message):
        bcm_edge.load(typed_bundle, device="gpu")


def test_memory_that_is_too_small_is_reported(
    typed_bundle: Path, onnxruntime_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    with bcm_edge.load(typed_bundle, NAME, batch=64, precision="fp32") as bcm:
        bcm.generate(1, labels=3)
        onnxruntime_gpu.faults.memory = onnxruntime_gpu.allocated + 5000
        message = (
            r"playing 1 move at batch 64 on Fake Orin: out of GPU memory \(.* GB free of .*\); "
            "play fewer images at once, for example --batch 16, or choose fp16"
        )
        with pytest.raises(BackendError, match=message):
            bcm.generate(64, labels=3)
        onnxruntime_gpu.faults.memory = 1 << 34
        assert np.isfinite(bcm.generate(64, labels=3)).all()


@pytest.mark.parametrize(
    "message",
    [
        "bfc_arena.cc:359 Failed to allocate memory for requested buffer of size 1073741824",
        "CUDA failure 2: out of memory ; GPU=0",
        "CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    ],
)
def test_messages_of_onnxruntime_for_too_little_memory(message: str):
    assert is_out_of_memory(message)
