"""ONNX Runtime on an NVIDIA GPU, with its CUDA provider. It needs no engines, and starts in seconds."""

from __future__ import annotations

from ..gpu_sessions.session import Provider
from ..machine.gpu import Gpu
from ..machine.onnxruntime_gpu import CUDA, is_older
from ..machine.placement import ANYWHERE, Placement
from ..storage.bundle import Bundle
from .base import BackendInfo
from .onnxruntime_gpu import OnnxRuntimeGpuBackend, largest_batch, open_on_gpu, why_unavailable

# It declares no libraries, because machine/ checks them.
INFO = BackendInfo("onnxruntime-cuda", "NVIDIA GPU, CUDA", "play", "gpu", ("fp32", "fp16"))

# Before, a CUDA graph with a Concat of unequal inputs reads their addresses from memory of the host that runs
# at other batch sizes overwrite (microsoft/onnxruntime#32121). It would give wrong images without an error.
OLDEST_FOR_GRAPHS = (1, 30)


def cuda_provider(gpu: Gpu, stream: int) -> Provider:
    """Return the CUDA provider and its options. stream: the handle of the stream on which it works."""
    import onnxruntime

    has_graphs = not is_older(onnxruntime.__version__, OLDEST_FOR_GRAPHS)
    options = {
        "device_id": str(gpu.index),
        "user_compute_stream": str(stream),
        "use_tf32": "0",  # float32 means float32
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1" if has_graphs else "0",
    }
    return Provider(
        CUDA,
        "CUDA provider",
        options,
        graph_option="gpu_graph_id" if has_graphs else None,
        why_eager="" if has_graphs else "replays are wrong before ONNX Runtime 1.30",
    )


def unavailable(precision: str, bundle: Bundle | None = None, placement: Placement = ANYWHERE) -> str | None:
    """Return why ONNX Runtime cannot compute a precision on a GPU here, or None if it can."""
    return why_unavailable(INFO, CUDA, precision, placement)


def open(bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> OnnxRuntimeGpuBackend:
    """Open a bundle on the GPU of the placement. Raises BackendError."""
    return open_on_gpu(INFO.name, bundle, precision, cuda_provider, placement, largest_batch(placement))
