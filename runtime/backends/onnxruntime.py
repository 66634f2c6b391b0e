"""ONNX Runtime on the CPU: the default everywhere.

A session is not opened on the bundle's graphs but on what ONNX Runtime's optimiser makes of them for this processor, kept in
the cache: convolution weights already in blocked order, in a file that is memory-mapped and never copied. That takes loading
the ImageNet-64 network to 0.2 processor seconds and 0.1 GB of its own memory a direction; both map one file.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import importlib.util
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BackendError, OutputError
from ..bundle import DIRECTIONS, Bundle
from ..cache import cache_directory, sha256
from ..files import replacing
from ..resources import processors
from ..schedule import Move
from .base import first_line, graph_inputs

if TYPE_CHECKING:
    import onnxruntime

ENTRY = "entry.json"  # in a cache entry: the sha256 of every other file there
LAYOUT = 1  # of a cache entry; raised when what is written there changes


class OnnxRuntimeBackend:
    """Sessions of both directions, each opened at its first move."""

    name = "onnxruntime"

    def __init__(
        self, graphs: dict[str, Path], optimised: bool, sample_shape: tuple[int, int, int], num_classes: int | None, precision: str = "fp32"
    ) -> None:
        self.precision = precision
        self.sample_shape = sample_shape
        self.num_classes = num_classes
        self.device = f"CPU, {threads()} threads" + ("" if optimised else ", no cache")
        if precision == "fp16":
            self.device += ", computed in float32"
        self._graphs = graphs
        self._optimised = optimised
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def play_move(self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None) -> np.ndarray:
        session = self._session(move.graph)
        try:
            return np.asarray(session.run(None, graph_inputs(x, noise, move, labels))[0])
        except Exception as error:  # inputs that a bundle's graphs do not take, or no memory for a batch
            raise BackendError(f"ONNX Runtime cannot play {move} at batch {len(x)}: {first_line(error)}") from error

    def close(self) -> None:
        self._sessions.clear()

    def _session(self, direction: str) -> onnxruntime.InferenceSession:
        if direction not in self._sessions:
            self._sessions[direction] = self._open(self._graphs[direction])
        return self._sessions[direction]

    def _open(self, graph: Path) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = _options()
        if self._optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return _open_session(graph, options)


def unavailable(precision: str, bundle: Bundle | None = None) -> str | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed; pip install 'bcm-edge[run]'"
    if precision == "bf16":
        return "ONNX Runtime has no bfloat16 convolutions on a CPU; take --backend openvino"
    return None


def open(bundle: Bundle, precision: str) -> OnnxRuntimeBackend:
    """Open a bundle's graphs, from the cache where it can be written, as they are where it cannot."""
    graphs, model = bundle.graphs(precision), bundle.manifest.model
    try:
        entry = _optimised_entry(bundle, precision)
        optimised = {d: entry / d / "model.onnx" for d in DIRECTIONS}
        return OnnxRuntimeBackend(optimised, True, model.sample_shape, model.num_classes, precision)
    except (OutputError, BackendError):  # a cache that is read-only or full; a graph that cannot be opened says so at its first move
        return OnnxRuntimeBackend(graphs, False, model.sample_shape, model.num_classes, precision)


def threads() -> int:
    """$BCM_EDGE_THREADS, else the processors this process may use. More threads than that halve the speed. Raises BackendError."""
    if given := os.environ.get("BCM_EDGE_THREADS"):
        if not given.isdecimal() or not int(given):
            raise BackendError(f"BCM_EDGE_THREADS is {given!r}; it is a number of threads from 1")
        return int(given)
    return processors()


def _options() -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3  # errors; it warns that an optimised file fits this processor only, which the cache key sees to
    return options


def open_serialised(model: bytes, folder: Path) -> onnxruntime.InferenceSession:
    """A session on a model in memory whose weights lie in files of a folder. Raises what ONNX Runtime raises."""
    import onnxruntime

    options = _options()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _open_session(graph: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class of their own
        raise BackendError(f"ONNX Runtime {onnxruntime.__version__} cannot open {graph}: {first_line(error)}") from error


def _optimised_entry(bundle: Bundle, precision: str) -> Path:
    """The cache entry of a bundle's graphs, made if it is not there or damaged. Raises OutputError where the cache cannot be written."""
    import onnxruntime

    facts = [LAYOUT, bundle.hashes(precision), onnxruntime.__version__, _processor()]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    entry = cache_directory() / "onnxruntime" / key
    if _is_whole(entry):
        return entry
    with replacing(entry, force=True, marker="forward") as folder:  # over a damaged one, or one that another process just made
        _optimise(bundle.graphs(precision), folder)
    return entry


def _optimise(graphs: dict[str, Path], folder: Path) -> None:
    """Write DIRECTION/model.onnx and DIRECTION/weights.bin, the weights once where they are equal."""
    import onnxruntime

    for direction, graph in graphs.items():
        (folder / direction).mkdir(parents=True)
        options = _options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(folder / direction / "model.onnx")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        _open_session(graph, options)
    first, second = (folder / direction / "weights.bin" for direction in graphs)
    files = {"forward/weights.bin": sha256(first)}
    if filecmp.cmp(first, second, shallow=False):
        files["inverse/weights.bin"] = files["forward/weights.bin"]
        linked = folder / "linked"
        with contextlib.suppress(OSError):  # no hard links here: the second copy stays
            os.link(first, linked)
            linked.replace(second)
    else:
        files["inverse/weights.bin"] = sha256(second)
    files |= {f"{direction}/model.onnx": sha256(folder / direction / "model.onnx") for direction in graphs}
    (folder / ENTRY).write_text(json.dumps(files))


def _is_whole(entry: Path) -> bool:
    try:
        files = json.loads((entry / ENTRY).read_text())
        names = {f"{direction}/{name}" for direction in DIRECTIONS for name in ("model.onnx", "weights.bin")}
        return set(files) == names and all(sha256(entry / name) == digest for name, digest in files.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _processor() -> str:
    """What decides the layout of optimised weights: the architecture and the processor's instruction sets."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line.split(":", 1)[1].strip() for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {flags or platform.processor()}"
