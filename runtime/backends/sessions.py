"""Sessions of ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BackendError
from ..machine.placement import ANYWHERE, Placement
from ..wording import first_line

if TYPE_CHECKING:
    import onnxruntime


def session_options(placement: Placement = ANYWHERE) -> onnxruntime.SessionOptions:
    """Return the options of all sessions."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = placement.cpu_threads
    # Fatal errors only: every error is also raised, and there is a warning for each optimised graph, which
    # reports that it is for this processor only.
    options.log_severity_level = 4
    return options


def open_serialised(
    model: bytes, folder: Path, placement: Placement = ANYWHERE
) -> onnxruntime.InferenceSession:
    """Open a model in memory whose weights are files of a folder. Raises the exceptions of ONNX Runtime."""
    import onnxruntime

    options = session_options(placement)
    key = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(key, str(folder.resolve()))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_session(graph: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Open a graph. Raises BackendError if ONNX Runtime cannot open it."""
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base class
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} cannot open {graph}: {first_line(error)}"
        ) from error


def open_optimised(graph: Path, placement: Placement = ANYWHERE) -> onnxruntime.InferenceSession:
    """Open a graph that ONNX Runtime has optimised before. Raises BackendError if this fails."""
    import onnxruntime

    options = session_options(placement)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return open_session(graph, options)
