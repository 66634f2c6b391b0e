"""A stand-in for the names of TensorRT that this project uses, with 10.3's set of them. Its engines compute with ONNX Runtime.

A plan is JSON that names the ONNX graph it was made of. Signatures are held against the real bindings in tests/tensorrt/test_contract.py.
FAKE_TENSORRT is the version it says it has; FAKE_LABELS=int32 has it take labels as 8.6 does; FAKE_BUILD breaks the builder: "memory",
"killed", "refused", "wider" (computes in float32), "one wider" (one convolution does).
"""

from __future__ import annotations

import enum
import json
import os
import signal
from pathlib import Path
from typing import Any

import gpu_record as record
import numpy as np
from cuda.core import refuse_while_recording, stream_of

__version__ = record.environment("TENSORRT", "10.3.0")

NetworkDefinitionCreationFlag = enum.IntEnum(
    "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
)
BuilderFlag = enum.IntEnum(
    "BuilderFlag", "TF32 GPU_FALLBACK FP16 INT8 OBEY_PRECISION_CONSTRAINTS STRIP_PLAN REFIT_IDENTICAL"
)
MemoryPoolType = enum.IntEnum("MemoryPoolType", ["WORKSPACE"])
ProfilingVerbosity = enum.IntEnum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
LayerInformationFormat = enum.IntEnum("LayerInformationFormat", ["ONELINE", "JSON"])
LayerType = enum.IntEnum("LayerType", ["CONVOLUTION", "DEQUANTIZE", "OTHER"])
TensorIOMode = enum.IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
DeviceType = enum.IntEnum("DeviceType", ["GPU", "DLA"])
OnnxParserFlag = enum.IntEnum("OnnxParserFlag", ["NATIVE_INSTANCENORM"])
ExecutionContextAllocationStrategy = enum.IntEnum(
    "ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"]
)
DataType = enum.IntEnum("DataType", ["FLOAT", "HALF", "BF16", "INT8", "INT64", "INT32", "UINT8"])
ErrorCodeTRT = enum.IntEnum("ErrorCodeTRT", ["SUCCESS", "INTERNAL_ERROR"])
float32, float16, bfloat16, int32 = DataType.FLOAT, DataType.HALF, DataType.BF16, DataType.INT32

_KINDS = {
    1: DataType.FLOAT,
    10: DataType.HALF,
    16: DataType.BF16,
    3: DataType.INT8,
    7: DataType.INT64,
    2: DataType.UINT8,
}  # of ONNX
_ARRAYS = {
    DataType.FLOAT: np.float32,
    DataType.INT64: np.int64,
    DataType.INT32: np.int32,
    DataType.UINT8: np.uint8,
}
_WORDS = {DataType.FLOAT: "Float", DataType.HALF: "Half", DataType.BF16: "BFloat16", DataType.INT8: "Int8"}


class ILogger:
    Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    def log(self, severity: Any, msg: str) -> None: ...


class IErrorRecorder: ...


class IProgressMonitor: ...


class Tensor:
    def __init__(self, name: str, shape: tuple[int, ...], dtype: DataType) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype


class Layer:
    def __init__(self, name: str, type: LayerType, source: Tensor, output: Tensor) -> None:
        self.name, self.type, self._source, self._output = name, type, source, output

    def get_input(self, index: int) -> Tensor:
        return self._source

    def get_output(self, index: int) -> Tensor:
        return self._output


class INetworkDefinition:
    def __init__(self) -> None:
        self.graph: Path | None = None
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.layers: list[Layer] = []

    num_layers = property(lambda self: len(self.layers))
    num_inputs = property(lambda self: len(self.inputs))

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return "some.node"

    def node_operator(self) -> str:
        return "Conv"


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, []

    num_errors = property(lambda self: len(self._errors))

    def set_flag(self, flag: OnnxParserFlag) -> None:
        assert flag == OnnxParserFlag.NATIVE_INSTANCENORM

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        import onnx

        try:
            graph = onnx.shape_inference.infer_shapes(onnx.load(model, load_external_data=False)).graph
        except Exception as error:
            self._errors.append(ParserError(str(error)))
            return False
        types = {tensor.name: _KINDS.get(tensor.data_type, DataType.FLOAT) for tensor in graph.initializer}
        for value in (*graph.value_info, *graph.input, *graph.output):
            types[value.name] = _KINDS.get(value.type.tensor_type.elem_type, DataType.FLOAT)
        kinds = {"Conv": LayerType.CONVOLUTION, "DequantizeLinear": LayerType.DEQUANTIZE}
        for node in graph.node:
            ends = (
                Tensor(name, (), types.get(name, DataType.FLOAT)) for name in (node.input[0], node.output[0])
            )
            self._network.layers.append(Layer(node.name, kinds.get(node.op_type, LayerType.OTHER), *ends))
        self._network.graph = Path(model)
        self._network.inputs, self._network.outputs = (
            [_tensor(value) for value in values] for values in (graph.input, graph.output)
        )
        return True


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    narrow = kind.elem_type == 7 and record.environment("LABELS", "int64") == "int32"
    return Tensor(value.name, shape, DataType.INT32 if narrow else _KINDS[kind.elem_type])


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self.shapes[input] = [min, opt, max]


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"timed;"


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.limits: dict[MemoryPoolType, int] = {}
        self.profile: IOptimizationProfile | None = None
        self.progress_monitor: Any = None
        self.builder_optimization_level, self.profiling_verbosity = 3, ProfilingVerbosity.LAYER_NAMES_ONLY
        self.default_device_type = DeviceType.GPU
        self._timing_cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.limits[pool] = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.content and not cache.content.startswith(b"timed;"):
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing_cache

    def can_run_on_DLA(self, layer: Layer) -> bool:
        assert self.default_device_type == DeviceType.DLA and BuilderFlag.GPU_FALLBACK in self.flags
        return layer.type == LayerType.CONVOLUTION


class Builder:
    num_DLA_cores = int(record.environment("DLA_CORES", "2"))

    def __init__(self, logger: ILogger) -> None:
        if record.environment("BUILD", "") == "driver":
            logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        fault = record.environment("BUILD", "")
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault in ("memory", "refused"):
            said = {
                "memory": "Could not find any implementation for node {ForeignNode}",
                "refused": "Internal Error: no such kernel",
            }
            self._logger.log(ILogger.Severity.ERROR, said[fault])
            return None
        assert (config.profile and BuilderFlag.TF32 not in config.flags) or network.graph.stem in (
            "add_noise",
            "to_uint8",
        )
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 2)
        monitor.phase_start("Timing", "Building", 1)
        monitor.phase_finish("Timing")
        assert monitor.step_complete("Building", 0) and monitor.step_complete("Building", 1)
        monitor.phase_finish("Building")
        convolutions = {
            layer.name: layer.get_input(0) for layer in network.layers if layer.type == LayerType.CONVOLUTION
        }
        dequantised = {
            layer.get_output(0).name for layer in network.layers if layer.type == LayerType.DEQUANTIZE
        }
        types = {
            name: _WORDS[DataType.INT8 if source.name in dequantised else source.dtype]
            for name, source in convolutions.items()
        }
        narrow = [name for name, kind in types.items() if kind != "Float"]
        plan = {
            "tensorrt": __version__,
            "graph": str(network.graph.resolve()),
            "inputs": [(tensor.name, tensor.shape, int(tensor.dtype)) for tensor in network.inputs],
            "outputs": [(tensor.name, tensor.shape, int(tensor.dtype)) for tensor in network.outputs],
            "shapes": config.profile.shapes,
            "limits": {pool.name: limit for pool, limit in config.limits.items()},
            "types": types | dict.fromkeys(narrow[: {"wider": None, "one wider": 1}.get(fault, 0)], "Float"),
            "detailed": config.profiling_verbosity == ProfilingVerbosity.DETAILED,
            "stripped": BuilderFlag.STRIP_PLAN in config.flags,
            "weights": "" if BuilderFlag.STRIP_PLAN in config.flags else "0" * 4096,
        }
        return json.dumps(plan).encode()


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger, self.error_recorder = logger, None

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        try:
            return ICudaEngine(json.loads(bytes(serialized_engine)), self.error_recorder)
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion magicTag failed")
            return None


class ICudaEngine:
    device_memory_size_v2 = 4096

    def __init__(self, plan: dict[str, Any], recorder: Any) -> None:
        self.recorder = recorder
        self.plan, self.refitted = plan, not plan["stripped"]
        self._names = [name for name, *_ in (*plan["inputs"], *plan["outputs"])]
        self._session: Any = None

    num_io_tensors = property(lambda self: len(self._names))

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return (
            TensorIOMode.INPUT
            if name in {tensor for tensor, *_ in self.plan["inputs"]}
            else TensorIOMode.OUTPUT
        )

    def get_tensor_dtype(self, name: str) -> DataType:
        return next(
            DataType(kind)
            for tensor, _, kind in (*self.plan["inputs"], *self.plan["outputs"])
            if tensor == name
        )

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return next(
            tuple(shape)
            for tensor, shape, _ in (*self.plan["inputs"], *self.plan["outputs"])
            if tensor == name
        )

    def create_execution_context(
        self, strategy: Any = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext:
        refuse_while_recording()
        record.calls.append(f"context {self.name}")
        return IExecutionContext(self)

    @property
    def name(self) -> str:
        return Path(self.plan["graph"]).name.partition(".")[0]

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert self.refitted, "an engine without weights was run"
        if self._session is None:
            self._session = self._opened(Path(self.plan["graph"]))
        return self._session.run(
            None, {**inputs, **({"label": inputs["label"].astype(np.int64)} if "label" in inputs else {})}
        )

    def _opened(self, graph: Path) -> Any:
        import onnxruntime

        if "BFloat16" not in self.plan["types"].values():
            return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        import onnx  # ONNX Runtime has no bfloat16 convolutions on a CPU: each operator is computed in float32 and rounded

        from bcm_edge.runtime.backends.sessions import open_serialised
        from bcm_edge.runtime.backends.typed import spelled_out

        return open_serialised(
            spelled_out(onnx.load(graph, load_external_data=False)).SerializeToString(), graph.parent
        )


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self.execution_context = engine, None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format == LayerInformationFormat.JSON and self.execution_context is not None
        types = self._engine.plan["types"]
        if not self._engine.plan["detailed"]:
            return json.dumps({"Layers": list(types)})
        metadata = "[ONNX Layer: {}]"
        layers = [
            {"Name": n, "Metadata": metadata.format(n), "Inputs": [{"Name": "x", "Format/Datatype": t}]}
            for n, t in types.items()
        ]
        return json.dumps({"Layers": layers})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._scratch = 0
        self._is_new = True
        self._recording: object = None  # the capture that it took part in

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2 and memory % 256 == 0
        self._scratch = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self._engine.plan["shapes"][name]
        self._shapes[name] = tuple(shape)
        return all(low <= n <= high for low, n, high in zip(smallest, shape, largest, strict=True))

    def infer_shapes(self) -> list[str]:
        return [name for name, *_ in self._engine.plan["inputs"] if name not in self._shapes]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory % 256 == 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        name = self._engine.name
        batch = next(iter(self._shapes.values()))[0]
        record.calls.append(f"execute {name} {batch}")
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        image = next(shape for shape in shapes.values() if len(shape) == 4)

        def work() -> None:
            record.array(self._scratch, (self._engine.device_memory_size_v2,), np.uint8)[:] = (
                0xFF  # its own to write to
            )
            inputs = {
                tensor: record.array(addresses[tensor], shapes[tensor], _ARRAYS[DataType(kind)]).copy()
                for tensor, _, kind in self._engine.plan["inputs"]
            }
            for (tensor, shape, kind), value in zip(
                self._engine.plan["outputs"], self._engine.run(inputs), strict=True
            ):
                place = image if len(shape) == 4 else (batch,)
                record.array(addresses[tensor], place, _ARRAYS[DataType(kind)])[:] = value
                record.written = addresses[tensor]

        stream = stream_of(stream_handle)
        if stream.recording is not None:
            assert not self._is_new, "a context's first run is recorded"
            assert self._recording in (None, stream.recording), "a context is recorded in two CUDA graphs"
            self._recording = stream.recording
        self._is_new = False
        stream.invalidated = stream.recording is not None and record.faults.capture == "invalidated"
        if name in record.faults.execute or stream.invalidated:
            return False
        stream.put(work)
        if record.faults.recorded:
            self._engine.recorder.report_error(ErrorCodeTRT.INTERNAL_ERROR, record.faults.recorded)
        return True


class Refitter:
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        self.engine = engine

    def refit_cuda_engine(self) -> bool:
        return True

    def get_missing_weights(self) -> list[str]:
        return []


class OnnxParserRefitter:
    num_errors = 0

    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self._engine = refitter.engine

    def refit_from_file(self, model: str) -> bool:
        self._engine.refitted = Path(model).name == Path(self._engine.plan["graph"]).name
        return self._engine.refitted

    def get_error(self, index: int) -> ParserError: ...
