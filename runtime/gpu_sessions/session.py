"""Open a session of ONNX Runtime on a GPU, and make sure that it computes there.

ONNX Runtime computes on the CPU what its provider cannot compute, and everything if a library of CUDA is
missing. It reports this only in its log. Here both are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BackendError
from ..log import log, timed
from ..wording import counted, first_line, listed

if TYPE_CHECKING:
    import onnxruntime

# Configuration entries of a session.
NO_CPU = "session.disable_cpu_ep_fallback"
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime, and how a session uses it."""

    name: str  # as ONNX Runtime writes it
    title: str  # as reports write it
    options: Mapping[str, str]
    # The run option whose value is the number of a CUDA graph. None: it keeps no CUDA graphs by number.
    graph_option: str | None
    # Adds a provider that is a plugin to the options of a session. None: the provider is built in.
    add_plugin: Callable[[onnxruntime.SessionOptions, dict[str, str]], None] | None = None
    why_eager: str = ""  # why it keeps no CUDA graphs, if another version does
    compiles_anew: bool = False  # whether it compiles at each start, because there is no cache


def open_gpu_session(graph: Path, provider: Provider) -> onnxruntime.InferenceSession:
    """Open a graph on a GPU. Call `missing_onnxruntime_gpu` before, which loads the libraries of CUDA.

    Raises BackendError if ONNX Runtime cannot open it, or would compute any node of it elsewhere.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only: every error is also raised
    options.add_session_config_entry(NO_CPU, "1")
    options.add_session_config_entry(RECORD_PLACEMENT, "1")  # versions without it ignore it
    where = f"ONNX Runtime {onnxruntime.__version__} with {provider.title} cannot open {graph}"
    try:
        with timed(f"opening {graph} with {provider.name}"):
            if provider.add_plugin is None:
                providers = [(provider.name, dict(provider.options))]
                # With fallback, it would print the error and try other providers.
                session = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
            else:
                provider.add_plugin(options, dict(provider.options))
                session = onnxruntime.InferenceSession(graph, options)
    except Exception as error:  # its exceptions have no common base class
        raise BackendError(f"{where}: {first_line(error)}") from error
    session.disable_fallback()  # otherwise a run that fails opens the session again, on the CPU
    used = session.get_providers()
    if not used or used[0] != provider.name:
        raise BackendError(f"{where}: it opened the graph with {listed(used)} instead of {provider.name}")
    if elsewhere := _nodes_elsewhere(session, provider.name):
        raise BackendError(
            f"{where}: {counted(len(elsewhere), 'node')} would be computed elsewhere: {listed(elsewhere)}"
        )
    return session


def _nodes_elsewhere(session: onnxruntime.InferenceSession, provider: str) -> list[str]:
    """Return the nodes that another provider computes. Empty if this version cannot tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        log.info("onnxruntime: this version does not report which provider computes which node")
        return []
    return [
        f"{node.name or node.op_type} ({part.ep_name})"
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != provider
        for node in part.get_nodes()
    ]
