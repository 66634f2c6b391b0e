"""ONNX Runtime on an NVIDIA GPU, with its TensorRT provider.

The provider compiles an engine for one range of batch sizes at the first start, which takes minutes, and
keeps it in the cache folder. The types are those of the graph: ONNX Runtime creates a strongly typed network
unless an option for another precision is set, such as trt_fp16_enable.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from ...errors import BackendError
from ..gpu_sessions.compiled import compiled_key, private_cache, profile_options
from ..gpu_sessions.session import Provider
from ..log import log
from ..machine.gpu import Gpu, probe
from ..machine.onnxruntime_gpu import TENSORRT, tensorrt_library
from ..machine.placement import ANYWHERE, Placement
from ..storage.bundle import Bundle
from .base import BackendInfo
from .onnxruntime_gpu import OnnxRuntimeGpuBackend, largest_batch, open_on_gpu, why_unavailable

# It declares no libraries, because machine/ checks them.
INFO = BackendInfo(
    "onnxruntime-tensorrt",
    "NVIDIA GPU, TensorRT through ONNX Runtime",
    "play",
    "gpu",
    ("fp32", "fp16", "bf16"),
    automatic=False,
)
FOLDER = "onnxruntime-tensorrt"  # in the cache folder
DAMAGED = "could not deserialize engine from cache"  # in the message of the provider


def build_options(bundle: Bundle, batch: int) -> dict[str, str]:
    """Return the options of the provider that determine the engine. batch: the largest batch."""
    return {**profile_options(bundle, batch, "trt"), "trt_builder_optimization_level": "3"}


def engine_folder(bundle: Bundle, precision: str, batch: int, gpu: Gpu) -> Path | None:
    """Return the folder in the cache for the engine, or None if there is no cache."""
    options = build_options(bundle, batch)
    return private_cache(FOLDER, compiled_key(bundle, precision, gpu, _version(), options))


def tensorrt_provider(bundle: Bundle, precision: str, batch: int, gpu: Gpu, stream: int) -> Provider:
    """Return the TensorRT provider and its options. stream: the handle of the stream on which it works.

    The provider keeps one CUDA graph per session, whatever the batch size and the addresses are. So it runs
    without CUDA graphs here.
    """
    options = build_options(bundle, batch)
    engines = engine_folder(bundle, precision, batch, gpu)
    timings = private_cache(FOLDER, f"timings-sm{gpu.capability.replace('.', '')}-{_version()}")
    if engines is not None:
        options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(engines)}
    if timings is not None:
        options |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": str(timings)}
    own = {"device_id": str(gpu.index), "user_compute_stream": str(stream), "trt_cuda_graph_enable": "False"}
    return Provider(
        TENSORRT,
        "TensorRT provider",
        {**options, **own},
        graph_option=None,
        compiles_anew=engines is None,
    )


def unavailable(precision: str, bundle: Bundle | None = None, placement: Placement = ANYWHERE) -> str | None:
    """Return why ONNX Runtime cannot compute a precision with TensorRT here, or None if it can."""
    return why_unavailable(INFO, TENSORRT, precision, placement)


def open(bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> OnnxRuntimeGpuBackend:
    """Open a bundle on the GPU of the placement. Its engine is compiled if the cache does not contain it.

    An engine in the cache that cannot be opened is compiled again. Raises BackendError.
    """
    batch = largest_batch(placement)
    provider = partial(tensorrt_provider, bundle, precision, batch)
    try:
        return open_on_gpu(INFO.name, bundle, precision, provider, placement, batch)
    except BackendError as error:
        if DAMAGED not in str(error):
            raise
        engines = engine_folder(bundle, precision, batch, probe(placement.gpu))
        if engines is None:
            raise
        log.warning("%s: the engine in the cache cannot be used and is compiled again: %s", INFO.name, error)
        shutil.rmtree(engines)
    return open_on_gpu(INFO.name, bundle, precision, provider, placement, batch)


def _version() -> str:
    """Return the library that compiles, and its version, as a part of a file name."""
    return f"trt{tensorrt_library()}"
