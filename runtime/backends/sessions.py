"""Sessions of ONNX Runtime on the CPU, with the threads that this process may use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BackendError
from ..machine.resources import threads
from ..wording import first_line

if TYPE_CHECKING:
    import onnxruntime


def session_options() -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 4  # fatal: every error is raised as well, and warnings say that an optimised file fits this processor only
    return options


def open_serialised(model: bytes, folder: Path) -> onnxruntime.InferenceSession:
    """A session on a model in memory whose weights lie in files of a folder. Raises what ONNX Runtime raises."""
    import onnxruntime

    options = session_options()
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder.resolve())
    )
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_session(graph: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session on a graph. Raises BackendError."""
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class of their own
        raise BackendError(
            f"ONNX Runtime {onnxruntime.__version__} cannot open {graph}: {first_line(error)}"
        ) from error


def open_optimised(graph: Path) -> onnxruntime.InferenceSession:
    """A session on a graph that was optimised before. Raises BackendError."""
    import onnxruntime

    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return open_session(graph, options)
