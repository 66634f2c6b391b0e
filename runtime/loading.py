"""Open a bundle and a backend: `bcm = bcm_edge.load("digits")`."""

from pathlib import Path

from ..errors import InputError
from .arguments import check_integer
from .backends import open_backend
from .machine.placement import Placement
from .pipeline import BCM
from .pixels import ValueRange
from .storage.bundle import open_bundle
from .storage.user_paths import path_text


def load(
    path: str | Path,
    backend: str = "auto",
    batch: int | None = None,
    precision: str | None = None,
    value_range: ValueRange = None,
    *,
    threads: int | None = None,
    device: str | None = None,
) -> BCM:
    """Open a bundle and a backend for it.

    Args:
        path: The folder of the bundle, a packed bundle (*.bcm), or the name of a model in the package:
            "emoji", "digits" or "mnist". A file or folder of that name in the current folder comes first.
        backend: "auto", "tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-rtx",
            "onnxruntime", "openvino", "typed" or "null".
        batch: The largest number of images of one network call. Larger requests are split, with the same
            result. By default 16, or the largest batch of an engine. At most 256 on onnxruntime-cuda.
        precision: "fp32", "fp16", "bf16" or "int8", and on a GPU also "int8-fp16" or "fp8". By default that
            of an engine built for this GPU, else the first of these that the bundle has.
        value_range: The range of the float images that the methods are called with: (-1, 1), or (0, 1), which
            is converted. None expects [-1, 1] and refuses arrays without a value below 0, which most likely
            lie in [0, 1].
        threads: The number of CPU threads, from 1 to 1024. By default $BCM_EDGE_THREADS, or else the
            processors that this process may use. A GPU backend does not use it.
        device: "cpu", "gpu" (the first NVIDIA GPU) or "cuda:N" (the GPU with this number). By default the
            device of the backend; "auto" then uses a GPU if an engine for it was built on this machine or if
            ONNX Runtime can use it, or else the CPU. A device that is given is never replaced by another.

    Raises:
        BundleError: The bundle is damaged, or does not contain the precision.
        BackendError: The backend or the device cannot be used here.
        InputError: An argument has another type, or a value that is not allowed.

    Threads may share the model. Every method may be called from several threads at the same time, on every
    backend, and returns what it returns to one thread alone. On a GPU, threads take turns. After `close`,
    calls raise BackendError; calls that are running then end normally or raise BackendError.
    """
    if batch is not None:
        batch = check_integer(batch, "batch")
        if batch < 1:
            raise InputError(f"batch must be at least 1, not {batch}")
    if threads is not None:
        threads = check_integer(threads, "threads")
    for name, text in (("backend", backend), ("precision", precision), ("device", device)):
        if text is not None and not isinstance(text, str):
            raise InputError(f"{name} must be a text, not {type(text).__name__}")
    placement = Placement(threads, device, batch)
    bundle = open_bundle(path_text(path, "path"))
    return BCM(bundle, open_backend(backend, bundle, precision, placement), batch, value_range)
