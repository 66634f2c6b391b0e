"""What differs between TensorRT 8.6, 10.3 to 10.16 and 11, by feature: nothing here or elsewhere asks for a version number or an enum's.

From 10 on a network can be strongly typed, and from 11 on it always is: the types of the graph are the types of the engine. 8.6 (JetPack
6.0) chooses types by itself within what flags allow, so there a 16-bit or 8-bit engine is a best effort, and what came out is read back.

Tests hold every name used in this project against the real bindings of each version, and list those that only some have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import tensorrt as trt

from ...errors import BackendError

Made = TypeVar("Made")
Progress = Callable[
    [str, "str | None", int, int], None
]  # (phase, the phase it is part of, steps done, steps in all)


class Messages:
    """What TensorRT says. `logger` is for its constructors, `recorder` for their error_recorder; both outlive what they are given to."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self.logger = _Logger(self._errors)
        self.recorder = _Recorder(self._errors)

    def check_recorder(self, what: str) -> None:
        """Raise BackendError if an error was recorded, though every call succeeded."""
        if self.recorder.num_errors():
            self.recorder.clear()
            raise BackendError(f"{what}: {self.explain()}")

    def explain(self) -> str:
        """The errors since the last call in a line, the first one first."""
        return _line(self.take())

    def take(self) -> list[str]:
        """The errors since the last call, each once."""
        errors = list(dict.fromkeys(self._errors))
        self._errors.clear()
        self.recorder.clear()
        return errors


def _line(errors: Sequence[str]) -> str:
    return "; ".join(" ".join(error.splitlines()) for error in errors) or "TensorRT gives no reason"


class _Logger(trt.ILogger):
    def __init__(self, errors: list[str]) -> None:
        trt.ILogger.__init__(self)
        self._errors = errors

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
            self._errors.append(msg)


class _Recorder(trt.IErrorRecorder):
    """Keeps every error; TensorRT asks for codes and descriptions by index."""

    def __init__(self, errors: list[str]) -> None:
        trt.IErrorRecorder.__init__(self)
        self._errors = errors
        self._recorded: list[tuple[trt.ErrorCodeTRT, str]] = []

    def num_errors(self) -> int:
        return len(self._recorded)

    def get_num_errors(self) -> int:  # what TensorRT itself calls num_errors
        return self.num_errors()

    def get_error_code(self, arg0: int) -> trt.ErrorCodeTRT:
        return self._recorded[arg0][0]

    def get_error_desc(self, arg0: int) -> str:
        return self._recorded[arg0][1]

    def has_overflowed(self) -> bool:
        return False

    def clear(self) -> None:
        self._recorded.clear()

    def report_error(self, arg0: trt.ErrorCodeTRT, arg1: str) -> bool:
        self._recorded.append((arg0, arg1))
        self._errors.append(arg1)
        return False


def create(kind: Callable[[trt.ILogger], Made], messages: Messages) -> Made:
    """A Builder or a Runtime. Raises BackendError where the driver does not suffice, which the bindings tell as a null pointer."""
    try:
        return kind(messages.logger)
    except TypeError as error:
        raise BackendError(
            f"TensorRT {trt.__version__} cannot start on this GPU and driver: {messages.explain()}"
        ) from error


def is_strongly_typed() -> bool:
    """Whether a network's types are those of its graph, asked for or always."""
    members = trt.NetworkDefinitionCreationFlag.__members__
    return "STRONGLY_TYPED" in members or "EXPLICIT_BATCH" not in members


def network_flags() -> int:
    """For Builder.create_network: strong typing where it has to be asked for, else the explicit batch that 8.6 has to be asked for."""
    members = trt.NetworkDefinitionCreationFlag.__members__
    if "EXPLICIT_BATCH" not in members:  # 11: both are how things are
        return 0
    return 1 << int(members["STRONGLY_TYPED" if "STRONGLY_TYPED" in members else "EXPLICIT_BATCH"])


def set_precision(config: trt.IBuilderConfig, precision: str) -> None:
    """Let the engine compute as the graph says, and float32 as float32: by default Ampere and newer take 10-bit TF32 for it.

    Raises BackendError for a precision that this TensorRT does not have.
    """
    config.clear_flag(trt.BuilderFlag.TF32)
    if is_strongly_typed() or precision == "fp32":
        return
    if precision == "bf16":
        raise BackendError(
            f"TensorRT {trt.__version__} has no bfloat16; build fp16, or move to TensorRT 10.3 (JetPack 6.1) or newer"
        )
    config.set_flag(trt.BuilderFlag.FP16 if precision == "fp16" else trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)


def share_profiles(config: trt.IBuilderConfig) -> None:
    """Let several contexts, one per batch size, use one optimisation profile: 8.6 has to be asked, from 10 on it is so."""
    feature = getattr(getattr(trt, "PreviewFeature", None), "PROFILE_SHARING_0806", None)
    if feature is not None:
        config.set_preview_feature(feature, True)


def float_types() -> dict[trt.DataType, str]:
    """TensorRT's floating-point types → our names of them."""
    types = {trt.float32: "fp32", trt.float16: "fp16"}
    if hasattr(trt, "bfloat16"):
        types[trt.bfloat16] = "bf16"
    return types


def prepare_parser(parser: trt.OnnxParser) -> None:
    """Normalisation by the core library instead of the plugin library."""
    if hasattr(parser, "set_flag"):
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)


def parser_error(error: trt.ParserError) -> str:
    """One error of the parser: what, and at which node where it tells."""
    node = [error.node_name(), error.node_operator()] if hasattr(error, "node_name") else []
    return f"{error.desc()} (node {', '.join(node)})" if any(node) else str(error.desc())


def parser_errors(parser: trt.OnnxParser | trt.OnnxParserRefitter, messages: Messages) -> str:
    """All that a parser says of a graph it refuses, in a line: its errors, and what it only logs, such as the name of a missing file."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    told = [error.desc() for error in errors]
    logged = [
        text for text in messages.take() if not any(desc and (text in desc or desc in text) for desc in told)
    ]
    logged = [
        text for text in logged if not text.startswith("ModelImporter.cpp")
    ]  # where in the graph it is: the errors have that
    return _line([*map(parser_error, errors), *logged])


def can_strip() -> bool:
    """Whether plans can leave their weights out and take them from the graph when they are loaded."""
    return "STRIP_PLAN" in trt.BuilderFlag.__members__ and hasattr(trt, "OnnxParserRefitter")


def strip(config: trt.IBuilderConfig) -> None:
    """Leave weights out of the plan; they must come back the same, so that the engine is tuned as if they were there."""
    config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)


def refit(engine: trt.ICudaEngine, graph: Path, messages: Messages) -> None:
    """Give a stripped engine the weights of its graph. Raises BackendError if any is missing."""
    refitter = trt.Refitter(engine, messages.logger)
    parser = trt.OnnxParserRefitter(refitter, messages.logger)
    if not parser.refit_from_file(str(graph)):
        raise BackendError(f"{graph}: its weights do not fit the engine: {parser_errors(parser, messages)}")
    if left := refitter.get_missing_weights():
        raise BackendError(f"the engine lacks weights that {graph} does not have: {', '.join(left[:3])}")
    if not refitter.refit_cuda_engine():
        raise BackendError(f"the engine does not take the weights of {graph}: {messages.explain()}")


def monitor(config: trt.IBuilderConfig, report: Progress) -> None:
    """Have the builder report its phases, where it can."""
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _progress_monitor(report)


def _progress_monitor(report: Progress) -> trt.IProgressMonitor:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases: dict[str, tuple[str | None, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase, num_steps)
            report(phase_name, parent_phase, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            parent, steps = self._phases.get(phase_name, (None, step + 1))
            report(phase_name, parent, step + 1, steps)
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            parent, steps = self._phases.pop(phase_name, (None, 0))
            report(phase_name, parent, steps, steps)

    return Monitor()


def label_type(engine: trt.ICudaEngine) -> type:
    """What an engine takes labels as: 8.6 has no 64-bit integers, and makes the graph's int64 input an int32 one."""
    return np.int32 if engine.get_tensor_dtype("label") == trt.int32 else np.int64


def scratch_bytes(engine: trt.ICudaEngine) -> int:
    """Device memory that a context of this engine computes in, for the largest shapes of its profile."""
    return int(
        engine.device_memory_size_v2
        if hasattr(engine, "device_memory_size_v2")
        else engine.device_memory_size
    )


def context_for(
    engine: trt.ICudaEngine, batch: int, sample_shape: tuple[int, int, int], messages: Messages
) -> trt.IExecutionContext:
    """An execution context for one batch size, without memory to compute in. Raises BackendError with what TensorRT says."""
    if hasattr(trt, "ExecutionContextAllocationStrategy"):
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    else:
        context = engine.create_execution_context_without_device_memory()
    if context is None:
        raise BackendError(f"TensorRT gives no execution context: {messages.explain()}")
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        if engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT:  # a batch of images, or of numbers
            shape = (batch, *(sample_shape if len(engine.get_tensor_shape(tensor)) == 4 else ()))
            if not context.set_input_shape(tensor, shape):
                raise BackendError(
                    f"the engine does not take {tensor} of shape {list(shape)}: {messages.explain()}"
                )
    if open_shapes := context.infer_shapes():
        raise BackendError(f"the engine leaves shapes open: {', '.join(open_shapes)}")
    return context


def give_memory(context: trt.IExecutionContext, address: int, size: int) -> None:
    """Have a context compute in device memory of ours."""
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, size)
    else:
        context.device_memory = address
