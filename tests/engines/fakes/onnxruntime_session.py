"""A fake of sessions of onnxruntime on a GPU. They compute with the real onnxruntime on the CPU.

CUDA graphs are those of the real providers: the first run with a new id runs, records and replays. Later
runs with this id replay: they read and write the memory that was bound when the graph was recorded, and
ignore what is bound now. Graphs of the CUDA provider belong to the thread that recorded them.

With the option user_compute_stream, work is put on that stream of the fake cuda-core. A run waits for the
stream, unless the entry disable_synchronize_execution_providers of RunOptions is "1".
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_record as record
import numpy as np
from cuda.core import refuse_while_recording, stream_of
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from onnxruntime_binding import Place, new_place
from onnxruntime_options import CPU, CUDA, KINDS, RTX, TENSORRT, TRUE, profiles
from onnxruntime_values import Memory, dtype_of

FALLBACK_DISABLED = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU "
    "EP, but fallback to CPU EP has been explicitly disabled by the user."
)
GRAPHS_REFUSED = (
    "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature as requested by the "
    "user as all compute graph nodes have not been partitioned to the "
)
EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"
WORKSPACE = 4096  # bytes of device memory that a run needs for each image, besides inputs and outputs
Work = Callable[[], None]


class OnGpu:
    """What a session on a GPU has besides the real session."""

    def __init__(self, provider: str, options: dict[str, str], entries: dict[str, str], model: Any) -> None:
        kind = KINDS[provider]
        for name in options:
            if name not in kind.options:
                raise RuntimeError(f'Unknown provider option: "{name}".')
        self.provider, self.options, self.kind = provider, options, kind
        self.graphs_enabled = options.get(*kind.graphs) in TRUE
        self.profiles = profiles(options, kind) if kind.profile else []
        self.records_assignment = entries.get("session.record_ep_graph_assignment_info") == "1"
        if record.environment("NODE_ON_CPU", "") == "1":
            if entries.get("session.disable_cpu_ep_fallback") == "1":
                raise Fail(FALLBACK_DISABLED)
            if self.graphs_enabled:
                raise Fail(GRAPHS_REFUSED + provider)
        self.running = threading.Lock()
        self.graphs: dict[tuple[int, int], tuple[Work, Any]] = {}
        self.weights = Memory(Path(model).stat().st_size if isinstance(model, str | Path) else len(model))
        self.workspaces: dict[int, Memory] = {}
        self.staged: tuple[int, ...] = ()  # the shape of which memory of the host has the addresses
        self._compile()

    def run(self, session: Any, binding: Any, run_options: Any) -> None:
        """Run the session on what is bound, or replay a graph."""
        if not self.running.acquire(blocking=False):
            raise RuntimeError("CUDA failure 700: this session is already running in another thread")
        try:
            self._run(session, binding, run_options)
        finally:
            self.running.release()

    def run_on_host(self, run: Work) -> None:
        """Run the session on arrays of the host."""
        if self.graphs_enabled:
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")
        record.calls.append("run on the host")
        run()

    def _run(self, session: Any, binding: Any, run_options: Any) -> None:
        key = self._graph_key(run_options)
        if key in self.graphs:
            record.calls.append(f"replay {key[1]}")
            self._submit(self.graphs[key][0], run_options)
            return
        inputs, outputs = self._checked(session, binding)
        record.calls.append(f"run {key[1] if key else 'eager'}")
        self._submit(lambda: compute(session, inputs, outputs), run_options)
        self.staged = next(iter(inputs.values())).shape
        binding._values = [session._value_at(place, where) for place, where in outputs.values()]
        if key is None:
            return
        if any(where == "cpu" for _, where in outputs.values()):
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")
        if record.environment("ORT_GRAPH", "") == "refused":
            raise RuntimeError("CUDA failure 901: operation failed due to a previous error during capture")
        record.calls.append(f"capture {key[1]}")
        work = self._with_staging(_recorded(session, inputs, outputs), outputs)
        self.graphs[key] = work, (inputs, outputs)
        self._submit(work, run_options)

    def _with_staging(self, replay: Work, outputs: dict[str, tuple[Place, str]]) -> Work:
        """A replay that is wrong after a run with other shapes, which older versions do not keep apart."""
        import onnxruntime

        recorded = self.staged

        def work() -> None:
            replay()
            if self.staged != recorded:
                for place, _ in outputs.values():
                    place.array[...] += np.asarray(1, place.dtype)

        version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
        return work if self.provider == CUDA and version < (1, 30) else replay

    def _graph_key(self, run_options: Any) -> tuple[int, int] | None:
        """The thread and the id of a graph, or None for a run without a graph."""
        if not self.graphs_enabled:
            return None
        if self.kind.graph_id is None:
            return 0, 0
        graph = int(entry(run_options, self.kind.graph_id, "0"))
        return None if graph == -1 else (threading.get_ident(), graph)

    def _submit(self, work: Work, run_options: Any) -> None:
        handle = int(self.options.get("user_compute_stream", "0"))
        if not handle:
            work()
            return
        stream = stream_of(handle)
        stream.put(work)
        if entry(run_options, "disable_synchronize_execution_providers", "0") != "1":
            stream.sync()

    def _checked(self, session: Any, binding: Any) -> tuple[dict[str, Place], dict[str, tuple[Place, str]]]:
        """The inputs and outputs of a run. Raises RuntimeError for those that the session does not accept."""
        for tensor in session.get_inputs():
            if tensor.name not in binding._places:
                raise RuntimeError(f"Error in execution: Missing Input: {tensor.name}")
            place = binding._places[tensor.name]
            if dtype_of(tensor.type) != place.dtype:
                raise RuntimeError(
                    f"Error in execution: Unexpected input data type. Actual: ({place.dtype.__name__}) , "
                    f"expected: ({tensor.type})"
                )
            if not _fits(tensor.shape, place.shape):
                raise RuntimeError(f"Error in execution: Got invalid dimensions for input: {tensor.name}")
            self._check_profiles(tensor.name, place.shape)
            _ = place.array  # its memory is on the device
        inputs = dict(binding._places)
        batch = max(place.shape[0] for place in inputs.values())
        if batch not in self.workspaces:
            refuse_while_recording()
            self.workspaces[batch] = Memory(batch * WORKSPACE)
        return inputs, self._outputs(session, binding, batch)

    def _outputs(self, session: Any, binding: Any, batch: int) -> dict[str, tuple[Place, str]]:
        outputs = {}
        tensors = {tensor.name: tensor for tensor in session.get_outputs()}
        for name, place in binding._results.items():
            if name not in tensors:
                raise RuntimeError(f"Error in execution: Invalid output name: {name}")
            shape = (batch, *tensors[name].shape[1:])
            if isinstance(place, str):
                where, place = place, new_place(dtype_of(tensors[name].type), shape)
            else:
                where = "given"
                if place.shape != shape or place.dtype != dtype_of(tensors[name].type):
                    raise RuntimeError(
                        f"Error in execution: the output OrtValue provided for output '{name}' has shape "
                        f"{place.shape} but the computed output shape for this run is {shape}"
                    )
                _ = place.array
            outputs[name] = place, where
        return outputs

    def _check_profiles(self, name: str, shape: tuple[int, ...]) -> None:
        ranges = [profile[name] for profile in self.profiles if name in profile]
        inside = [all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)) for low, high in ranges]
        if ranges and not any(inside):
            raise RuntimeError(
                f"{self.provider} failed to call IExecutionContext::setInputShape() for {name}"
            )

    def _compile(self) -> None:
        """Write the caches that the options name. The calls have "compile" if there was none."""
        folder = {
            TENSORRT: self.options.get("trt_engine_cache_path"),
            RTX: self.options.get("nv_runtime_cache_path"),
        }.get(self.provider)
        if self.provider == TENSORRT and self.options.get("trt_engine_cache_enable") not in TRUE:
            folder = None
        if folder is not None:
            file = Path(folder) / f"{self.options.get('trt_engine_cache_prefix', self.provider)}_sm87.engine"
            if file.exists():
                if file.read_bytes() != b"compiled":
                    raise Fail(f"TensorRT EP could not deserialize engine from cache: {file}")
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"compiled")
        if self.provider in (TENSORRT, RTX):
            record.calls.append(f"compile {self.provider}")


def entry(run_options: Any, name: str, default: str) -> str:
    """An entry of RunOptions."""
    try:
        return run_options.get_run_config_entry(name) or default
    except (AttributeError, RuntimeError):
        return default


def compute(session: Any, inputs: dict[str, Place], outputs: dict[str, tuple[Place, str]]) -> None:
    """Compute on the CPU, from and to memory of the device."""
    feeds = {name: place.array.copy() for name, place in inputs.items()}
    results = session._compute(list(outputs), feeds)
    for (place, _), result in zip(outputs.values(), results, strict=True):
        place.array[...] = result
        record.written = place.address


def _recorded(session: Any, inputs: dict[str, Place], outputs: dict[str, tuple[Place, str]]) -> Work:
    """What a graph computes at each replay. FAKE_ORT_GRAPH makes it wrong.

    empty: it computes nothing. stale: it has the levels t and u of the recording. wrong: the results are
    larger by 0.1.
    """
    fault = record.environment("ORT_GRAPH", "")
    if fault == "empty":
        return lambda: None
    levels: dict[str, Place] = {}  # those of the first replay, which the provider makes when it has recorded

    def replay() -> None:
        if fault == "stale" and not levels:
            levels.update({name: _copy(inputs[name]) for name in ("t", "u")})
        compute(session, {**inputs, **levels}, outputs)
        if fault == "wrong":
            for place, _ in outputs.values():
                place.array[...] += np.asarray(0.1, place.dtype)

    return replay


def computable(model: Any, options: Any) -> Any:
    """The model in a form that ONNX Runtime can compute on a CPU.

    It has no bfloat16 convolutions there. In a graph with such types, each operator is computed in float32
    and its result rounded.
    """
    import onnx

    if not isinstance(model, str | Path):
        return model
    graph = onnx.load(model, load_external_data=False)
    if all(weight.data_type != onnx.TensorProto.BFLOAT16 for weight in graph.graph.initializer):
        return model
    from bcm_edge.runtime.backends.typed import spelled_out

    options.add_session_config_entry(EXTERNAL_DATA, str(Path(model).parent))
    return spelled_out(graph).SerializeToString()


def _copy(place: Place) -> Place:
    copy = new_place(place.dtype, place.shape)
    copy.array[...] = place.array
    return copy


def _fits(declared: Any, shape: tuple[int, ...]) -> bool:
    """Whether a shape is one that a model declares. Names are sizes that may vary."""
    return len(declared) == len(shape) and all(
        not isinstance(size, int) or size == actual for size, actual in zip(declared, shape, strict=True)
    )


def assigned(provider: str, real: Any) -> list[Any]:
    """The assignment of nodes that the real session reports, with the provider in place of the CPU."""
    groups = [_Subgraph(provider, group.get_nodes()) for group in real]
    if record.environment("NODE_ON_CPU", ""):
        groups[0] = _Subgraph(CPU, groups[0].get_nodes())
    return groups


class _Subgraph:
    def __init__(self, ep_name: str, nodes: Any) -> None:
        self.ep_name, self._nodes = ep_name, nodes

    def get_nodes(self) -> Any:
        return self._nodes
