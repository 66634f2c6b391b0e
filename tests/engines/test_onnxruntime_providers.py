"""The backends onnxruntime-tensorrt and onnxruntime-rtx on a simulated GPU: options, caches and refusals."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from agreement import assert_images_agree

import bcm_edge
from bcm_edge.errors import BackendError
from bcm_edge.runtime.backends import choose
from bcm_edge.runtime.backends.base import on_device
from bcm_edge.runtime.gpu_sessions.compiled import compiled_key, private_cache, profile_shapes
from bcm_edge.runtime.machine.gpu import probe
from bcm_edge.runtime.machine.placement import Placement
from bcm_edge.runtime.storage.bundle import open_bundle

TENSORRT, RTX = "onnxruntime-tensorrt", "onnxruntime-rtx"
# The inputs of the digits model at batch 1, 8 and 16.
SHAPES = {n: f"x:{n}x1x8x8,noise:{n}x1x8x8,t:{n},u:{n},label:{n}" for n in (1, 8, 16)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def rtx_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that TensorRT-RTX accepts."""
    monkeypatch.setenv("FAKE_CAPABILITY", "89")


def compilations(record: ModuleType) -> int:
    """How often a provider has compiled a graph."""
    return sum(call.startswith("compile") for call in record.calls)


@pytest.mark.parametrize("name", [TENSORRT, RTX])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_images_agree_with_the_cpu(
    typed_bundle: Path,
    onnxruntime_gpu: ModuleType,
    cache: Path,
    rtx_gpu: None,
    name: str,
    precision: str,
):
    with (
        bcm_edge.load(typed_bundle, name, precision=precision, batch=8) as gpu,
        bcm_edge.load(typed_bundle, "onnxruntime", precision=precision) as cpu,
    ):
        for n in (1, 5, 20):
            labels = np.arange(n) % 10
            actual, expected = (each.generate(n, schedule="mixture-4", labels=labels) for each in (gpu, cpu))
            assert_images_agree(actual, expected, precision)


def test_options_of_tensorrt(typed_bundle: Path, onnxruntime_gpu: ModuleType, cache: Path):
    with bcm_edge.load(typed_bundle, TENSORRT, precision="fp16", batch=7) as bcm:
        assert bcm.backend.device.endswith(", TensorRT provider, without CUDA graphs")
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    ((provider, options, entries),) = onnxruntime_gpu.sessions
    assert provider == "TensorrtExecutionProvider"
    assert int(options.pop("user_compute_stream")) > 0
    engines, timings = (Path(options.pop(f"trt_{kind}_cache_path")) for kind in ("engine", "timing"))
    assert options == {
        "device_id": "0",
        "trt_profile_min_shapes": SHAPES[1],
        "trt_profile_opt_shapes": SHAPES[8],  # 7 images are filled up to 8
        "trt_profile_max_shapes": SHAPES[8],
        "trt_builder_optimization_level": "3",
        "trt_engine_cache_enable": "True",
        "trt_timing_cache_enable": "True",
        "trt_cuda_graph_enable": "False",
    }
    assert entries["session.disable_cpu_ep_fallback"] == "1"
    assert engines.parent == timings.parent == cache / "onnxruntime-tensorrt"
    assert engines.name.startswith("fp16-sm87-trt-") and timings.name == "timings-sm87-trt"
    assert [folder.stat().st_mode & 0o777 for folder in (engines, timings)] == [0o700, 0o700]


def test_options_of_rtx(typed_bundle: Path, onnxruntime_gpu: ModuleType, cache: Path, rtx_gpu: None):
    with bcm_edge.load(typed_bundle, RTX, precision="fp16") as bcm:
        assert bcm.backend.device.endswith(", TensorRT-RTX, one CUDA graph per move")
        assert bcm.batch == 16
    ((provider, options, entries),) = onnxruntime_gpu.sessions
    assert provider == "NvTensorRTRTXExecutionProvider"
    assert int(options.pop("user_compute_stream")) > 0
    kernels = Path(options.pop("nv_runtime_cache_path"))
    assert options == {
        "has_user_compute_stream": "1",
        "nv_profile_min_shapes": SHAPES[1],
        "nv_profile_opt_shapes": SHAPES[16],
        "nv_profile_max_shapes": SHAPES[16],
        "enable_cuda_graph": "1",
    }
    assert entries["session.disable_cpu_ep_fallback"] == "1"
    assert kernels.parent == cache / "onnxruntime-rtx" and kernels.name.startswith("fp16-sm89-rtx-")
    assert kernels.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", [TENSORRT, RTX])
def test_graph_is_compiled_once(
    typed_bundle: Path, onnxruntime_gpu: ModuleType, cache: Path, rtx_gpu: None, name: str
):
    for batch, count in ((8, 1), (8, 1), (16, 2)):
        bcm_edge.load(typed_bundle, name, precision="fp16", batch=batch).close()
        assert compilations(onnxruntime_gpu) == count


def test_engine_that_cannot_be_opened_is_compiled_again(
    typed_bundle: Path, onnxruntime_gpu: ModuleType, cache: Path
):
    """The provider refuses a damaged engine at every start."""
    bcm_edge.load(typed_bundle, TENSORRT, precision="fp16").close()
    (engine,) = cache.glob("onnxruntime-tensorrt/fp16-*/*")
    engine.write_bytes(b"damaged")
    bcm_edge.load(typed_bundle, TENSORRT, precision="fp16").close()
    assert engine.read_bytes() == b"compiled"
    assert compilations(onnxruntime_gpu) == 2


def test_cache_that_cannot_be_written_is_not_used(
    typed_bundle: Path, onnxruntime_gpu: ModuleType, cache: Path
):
    cache.write_text("a file")
    with bcm_edge.load(typed_bundle, TENSORRT, precision="fp16") as bcm:
        assert "compiled at each start because the cache folder cannot be used" in bcm.backend.device
    ((_, options, _),) = onnxruntime_gpu.sessions
    assert not [name for name in options if "cache" in name]


def test_key_depends_on_everything_that_determines_an_engine(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    bundle, gpu = open_bundle(typed_bundle), probe()
    options = {"trt_profile_max_shapes": SHAPES[8]}
    keys = [
        compiled_key(bundle, "fp16", gpu, "trt10.13.3", options),
        compiled_key(bundle, "fp32", gpu, "trt10.13.3", options),
        compiled_key(bundle, "fp16", replace(gpu, name="Other"), "trt10.13.3", options),
        compiled_key(bundle, "fp16", replace(gpu, capability="9.0"), "trt10.13.3", options),
        compiled_key(bundle, "fp16", replace(gpu, multiprocessors=8), "trt10.13.3", options),
        compiled_key(bundle, "fp16", gpu, "trt10.16.1", options),
        compiled_key(bundle, "fp16", gpu, "trt10.13.3", {"trt_profile_max_shapes": SHAPES[16]}),
    ]
    assert len({key.rpartition("-")[2] for key in keys}) == len(keys)
    assert keys[0].startswith("fp16-sm87-trt10.13.3-")
    assert compiled_key(bundle, "fp16", replace(gpu, index=1), "trt10.13.3", options) == keys[0]


def test_shapes_of_a_model_without_classes(typed_bundle: Path):
    bundle = open_bundle(typed_bundle)
    assert profile_shapes(bundle, 8) == SHAPES[8]
    model = replace(bundle.manifest.model, num_classes=None)
    unlabelled = replace(bundle, manifest=replace(bundle.manifest, model=model))
    assert profile_shapes(unlabelled, 2) == "x:2x1x8x8,noise:2x1x8x8,t:2,u:2"


def test_folder_of_others_is_not_trusted(cache: Path, monkeypatch: pytest.MonkeyPatch):
    folder = private_cache("engines", "key")
    assert folder is not None and folder == cache / "engines" / "key"
    folder.chmod(0o755)
    assert private_cache("engines", "key") == folder and folder.stat().st_mode & 0o777 == 0o700
    elsewhere = cache / "elsewhere"
    elsewhere.mkdir()
    folder.rmdir()
    folder.symlink_to(elsewhere)
    assert private_cache("engines", "key") is None
    folder.unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert private_cache("engines", "key") is None


def test_auto_does_not_select_them(typed_bundle: Path, onnxruntime_gpu: ModuleType, rtx_gpu: None):
    bundle = open_bundle(typed_bundle)
    assert choose(bundle, "fp16")[0] == "onnxruntime-cuda"
    with pytest.raises(BackendError, match="onnxruntime-cuda: bf16"):
        choose(bundle, "bf16", Placement(device="gpu"))


def test_batch_beyond_the_engine_is_refused(typed_bundle: Path, onnxruntime_gpu: ModuleType, cache: Path):
    with bcm_edge.load(typed_bundle, TENSORRT, precision="fp16", batch=4) as bcm:
        x, labels = np.zeros((5, 1, 8, 8), np.float32), np.zeros(5, np.int64)
        moves = bcm.schedule("80>0.002").moves
        with pytest.raises(BackendError, match="a batch of 5 is too large; play at most 4 images at once"):
            assert on_device(bcm.backend)
            bcm.backend.play_moves(x, moves, [None], labels, every=False)


def test_rtx_refuses_other_gpus_before_the_plugin_is_registered(
    typed_bundle: Path, onnxruntime_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_RTX_PLUGIN", "broken")
    with pytest.raises(BackendError) as caught:
        bcm_edge.load(typed_bundle, RTX, precision="fp16")
    assert str(caught.value).startswith(
        "onnxruntime-rtx: TensorRT-RTX is for GPUs of compute capability 8.6, 8.9, and 12.0 or newer; "
        "Fake Orin has 8.7; use backend='onnxruntime-cuda'"
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("broken", "onnxruntime_ep_nv_tensorrt_rtx cannot be registered: Failed to load "),
        ("no-device", "TensorRT-RTX does not support GPU cuda:0 (Fake Orin); its plugin offers no device"),
    ],
)
def test_plugin_that_cannot_be_used(
    typed_bundle: Path,
    onnxruntime_gpu: ModuleType,
    cache: Path,
    rtx_gpu: None,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    reason: str,
):
    monkeypatch.setenv("FAKE_RTX_PLUGIN", fault)
    with pytest.raises(BackendError) as caught:
        bcm_edge.load(typed_bundle, RTX, precision="fp16")
    assert reason in str(caught.value)


def test_memory_of_a_gpu_is_bound_with_its_vendor():
    """A plugin compares the numbers of the vendors of two devices."""
    onnxruntime = pytest.importorskip("onnxruntime", "1.25")
    device = onnxruntime.OrtDevice.make("cuda", 0)
    assert device._get_c_device().vendor_id() == 0x10DE  # NVIDIA
