"""Engines: reading a plan, its information, and the weights of stripped ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gpu_record as record
import numpy as np
from cuda.core import refuse_while_recording

from .context import IExecutionContext
from .enums import DataType, ExecutionContextAllocationStrategy, LayerInformationFormat, TensorIOMode
from .interfaces import ILogger
from .network import ParserError


class Runtime:
    """Reads plans."""

    def __init__(self, logger: ILogger) -> None:
        self._logger, self.error_recorder = logger, None

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        try:
            return ICudaEngine(json.loads(bytes(serialized_engine)), self.error_recorder, self._logger)
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion magicTag failed")
            return None


class ICudaEngine:
    """An engine that computes with ONNX Runtime."""

    def __init__(self, plan: dict[str, Any], recorder: Any, logger: ILogger) -> None:
        self.recorder, self._logger = recorder, logger
        self.plan, self.refitted = plan, not plan["stripped"]
        self._names = [name for name, *_ in (*plan["inputs"], *plan["outputs"])]
        self._session: Any = None
        self._contexts = 0  # that were created

    num_io_tensors = property(lambda self: len(self._names))
    num_optimization_profiles = property(lambda self: len(self.plan["profiles"]))

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        _, _, largest = self.plan["profiles"][profile_index]["x"]
        return 256 * largest[0]

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
    ) -> IExecutionContext | None:
        refuse_while_recording()
        built, now = self.plan["tf32"], os.environ.get("NVIDIA_TF32_OVERRIDE", "-1")
        if built != now:
            text = "Inconsistent setting of NVIDIA_TF32_OVERRIDE env var"
            self._logger.log(ILogger.Severity.ERROR, f"{text} at build {built} and at execution {now}")
            return None
        record.calls.append(f"context {self.name}")
        self._contexts += 1
        # The first context of an engine begins with profile 0, the others without a profile.
        return IExecutionContext(self, 0 if self._contexts == 1 else None)

    @property
    def name(self) -> str:
        """The name of its graph, such as "forward"."""
        return Path(self.plan["graph"]).name.partition(".")[0]

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Compute all outputs."""
        assert self.refitted, "an engine without weights was run"
        if self._session is None:
            self._session = self._opened(Path(self.plan["graph"]))
        label = {"label": inputs["label"].astype(np.int64)} if "label" in inputs else {}
        return self._session.run(None, {**inputs, **label})

    def _opened(self, graph: Path) -> Any:
        """The session of a graph.

        ONNX Runtime has no bfloat16 convolutions on a CPU. In a graph with such types, each operator is
        computed in float32 and its result rounded.
        """
        import onnxruntime

        if "BFloat16" not in self.plan["types"].values():
            return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        import onnx

        from bcm_edge.runtime.backends.sessions import open_serialised
        from bcm_edge.runtime.backends.typed import spelled_out

        return open_serialised(
            spelled_out(onnx.load(graph, load_external_data=False)).SerializeToString(), graph.parent
        )


class EngineInspector:
    """Returns the information of an engine as JSON."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self.execution_context = engine, None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format == LayerInformationFormat.JSON and self.execution_context is not None
        types = self._engine.plan["types"]
        if not self._engine.plan["detailed"]:
            return json.dumps({"Layers": list(types)})
        layers = [
            {
                "Name": name,
                "Metadata": f"[ONNX Layer: {name}]",
                "Inputs": [{"Name": "x", "Format/Datatype": kind}],
            }
            for name, kind in types.items()
        ]
        return json.dumps({"Layers": layers})


class Refitter:
    """Gives a stripped engine its weights."""

    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        self.engine = engine

    def refit_cuda_engine(self) -> bool:
        return True

    def get_missing_weights(self) -> list[str]:
        return []


class OnnxParserRefitter:
    """Reads the weights of a stripped engine from its ONNX graph."""

    num_errors = 0

    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self._engine = refitter.engine

    def refit_from_file(self, model: str) -> bool:
        self._engine.refitted = Path(model).name == Path(self._engine.plan["graph"]).name
        return self._engine.refitted

    def get_error(self, index: int) -> ParserError: ...
