"""ONNX Runtime on an NVIDIA RTX GPU, with NVIDIA's plugin for TensorRT-RTX.

The plugin is a package of its own. It compiles kernels for the GPU when a session is opened and at the first
runs, and keeps them in the cache folder.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BackendError
from ..gpu_sessions.compiled import compiled_key, private_cache, profile_options
from ..gpu_sessions.session import Provider
from ..machine.gpu import Gpu
from ..machine.onnxruntime_gpu import PLUGIN, RTX
from ..machine.placement import ANYWHERE, Placement
from ..storage.bundle import Bundle
from ..wording import counted, first_line
from .base import BackendInfo
from .onnxruntime_gpu import OnnxRuntimeGpuBackend, largest_batch, open_on_gpu, why_unavailable

if TYPE_CHECKING:
    import onnxruntime

# It declares no libraries, because machine/ checks them.
INFO = BackendInfo(
    "onnxruntime-rtx",
    "NVIDIA RTX GPU, TensorRT-RTX through ONNX Runtime",
    "play",
    "gpu",
    ("fp32", "fp16", "bf16"),
    automatic=False,
)
FOLDER = "onnxruntime-rtx"  # in the cache folder

_registering = threading.Lock()


def register_plugin() -> None:
    """Register the plugin with ONNX Runtime, once per process. Raises BackendError.

    Its package must be installed. The package contains a copy of CUDA's runtime, but does not load it.
    """
    import onnxruntime

    with _registering:
        try:
            plugin = importlib.import_module(PLUGIN)
            library = plugin.get_library_path()
            for runtime in Path(library).parent.glob("libcudart.so.*"):
                with suppress(OSError):
                    ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
            onnxruntime.register_execution_provider_library(plugin.get_ep_name(), library)
        except Exception as error:  # the exceptions of ONNX Runtime have no common base class
            if "already registered" not in str(error):
                raise BackendError(f"{PLUGIN} cannot be registered: {first_line(error)}") from error


def device_for(gpu: Gpu) -> onnxruntime.OrtEpDevice:
    """Return the device of a GPU in the plugin. Raises BackendError if the plugin does not offer it."""
    import onnxruntime

    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == RTX]
    for device in devices:
        if device.ep_options.get("device_id") == str(gpu.index):
            return device
    if gpu.index < len(devices) and not any("device_id" in device.ep_options for device in devices):
        return devices[gpu.index]
    raise BackendError(
        f"TensorRT-RTX does not support GPU cuda:{gpu.index} ({gpu.name}); its plugin offers "
        f"{counted(len(devices), 'device') if devices else 'no device'} on this machine"
    )


def rtx_provider(bundle: Bundle, precision: str, batch: int, gpu: Gpu, stream: int) -> Provider:
    """Register the plugin, and return the provider and its options.

    batch: the largest batch. stream: the handle of the stream on which the provider works. Raises
    BackendError.
    """
    register_plugin()
    device = device_for(gpu)
    options = profile_options(bundle, batch, "nv")
    version = f"rtx{getattr(importlib.import_module(PLUGIN), '__version__', '')}"
    kernels = private_cache(FOLDER, compiled_key(bundle, precision, gpu, version, options))
    if kernels is not None:
        options["nv_runtime_cache_path"] = str(kernels)
    own = {"has_user_compute_stream": "1", "user_compute_stream": str(stream), "enable_cuda_graph": "1"}

    def add_plugin(session: onnxruntime.SessionOptions, options: dict[str, str]) -> None:
        session.add_provider_for_devices([device], options)

    return Provider(
        RTX,
        "TensorRT-RTX",
        {**options, **own},
        "cuda_graph_annotation_id",
        add_plugin,
        compiles_anew=kernels is None,
    )


def unavailable(precision: str, bundle: Bundle | None = None, placement: Placement = ANYWHERE) -> str | None:
    """Return why ONNX Runtime cannot compute a precision with TensorRT-RTX here, or None if it can."""
    return why_unavailable(INFO, RTX, precision, placement)


def open(bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> OnnxRuntimeGpuBackend:
    """Open a bundle on the GPU of the placement. Kernels that the cache does not contain are compiled.

    Raises BackendError.
    """
    batch = largest_batch(placement)
    provider = partial(rtx_provider, bundle, precision, batch)
    return open_on_gpu(INFO.name, bundle, precision, provider, placement, batch)
