"""All differences between TensorRT 8.6, 10.3 to 10.16 and 11.

The code tests for features, never for version numbers.

In a strongly typed network the types of the graph are the types of the engine. Since TensorRT 10 a network
can be strongly typed, and since TensorRT 11 it always is. TensorRT 8.6 (JetPack 6.0) selects the types
itself, within the limits that flags set. There the types of a 16-bit or 8-bit engine are not guaranteed, so
they are read back after the build.

tests/tensorrt/ checks every name that this project uses against the real bindings of each version, and lists
the names that only some versions have.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import tensorrt as trt

from ...errors import BackendError
from .messages import Messages, one_line

Created = TypeVar("Created")
# progress(phase, the phase that contains it or None, number of finished steps, number of all steps)
Progress = Callable[[str, "str | None", int, int], None]


# Precision → what a TensorRT without strongly typed networks lacks for it, and what to build instead.
_MISSING = {
    "bf16": "has no bfloat16; build fp16",
    "int8-fp16": "has no float16 scales for 8-bit values; build int8 or fp16",
    "fp8": "has no float8 convolutions; build int8 or fp16",
}


def create(kind: Callable[[trt.ILogger], Created], messages: Messages) -> Created:
    """Create an object of a class of TensorRT: Builder or Runtime.

    Raises BackendError if the driver is too old or has no GPU.
    """
    try:
        return kind(messages.logger)
    except TypeError as error:  # the bindings got a null pointer from TensorRT
        raise BackendError(
            f"TensorRT {trt.__version__} cannot start on this GPU and driver: {messages.explain()}"
        ) from error


def is_strongly_typed() -> bool:
    """Whether this TensorRT has strongly typed networks."""
    members = trt.NetworkDefinitionCreationFlag.__members__
    return "STRONGLY_TYPED" in members or "EXPLICIT_BATCH" not in members


def network_flags() -> int:
    """Return the flags of Builder.create_network: strong typing, or in 8.6 the explicit batch."""
    members = trt.NetworkDefinitionCreationFlag.__members__
    if "EXPLICIT_BATCH" not in members:  # 11, where every network has an explicit batch and is strongly typed
        return 0
    flag = "STRONGLY_TYPED" if "STRONGLY_TYPED" in members else "EXPLICIT_BATCH"
    return 1 << int(members[flag])


def why_unsupported(precision: str) -> str | None:
    """Return why this TensorRT cannot build graphs of a precision, or None if it can."""
    if is_strongly_typed() or precision not in _MISSING:
        return None
    return f"TensorRT {trt.__version__} {_MISSING[precision]}, or use TensorRT 10.3 (JetPack 6.1) or newer"


def set_precision(config: trt.IBuilderConfig, precision: str) -> None:
    """Set the flags with which an engine computes in the types of its graph.

    TF32 is disabled: by default GPUs since Ampere use it for float32, with a mantissa of 10 bits. Raises
    BackendError for a precision that this TensorRT does not support.
    """
    config.clear_flag(trt.BuilderFlag.TF32)
    if is_strongly_typed() or precision == "fp32":
        return
    if reason := why_unsupported(precision):
        raise BackendError(reason)
    config.set_flag(trt.BuilderFlag.FP16 if precision == "fp16" else trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)


def share_profiles(config: trt.IBuilderConfig) -> None:
    """Allow several contexts, one per batch size, to use the same optimisation profile.

    TensorRT 8.6 needs a preview feature for this. Later versions always allow it.
    """
    feature = getattr(getattr(trt, "PreviewFeature", None), "PROFILE_SHARING_0806", None)
    if feature is not None:
        config.set_preview_feature(feature, True)


def float_types() -> dict[trt.DataType, str]:
    """Return floating-point type of TensorRT → name of the precision."""
    types = {trt.float32: "fp32", trt.float16: "fp16"}
    if hasattr(trt, "bfloat16"):
        types[trt.bfloat16] = "bf16"
    return types


def prepare_parser(parser: trt.OnnxParser) -> None:
    """Have normalisations computed by the core library instead of the plugin library."""
    if hasattr(parser, "set_flag"):
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)


def parser_error(error: trt.ParserError) -> str:
    """Return an error of the parser, with the node if TensorRT reports it."""
    node = [error.node_name(), error.node_operator()] if hasattr(error, "node_name") else []
    return f"{error.desc()} (node {', '.join(node)})" if any(node) else str(error.desc())


def parser_errors(parser: trt.OnnxParser | trt.OnnxParserRefitter, messages: Messages) -> str:
    """Return in one line why a parser does not accept a graph.

    These are the errors of the parser, and messages that it only logs, for example the name of a missing
    file.
    """
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    descriptions = [error.desc() for error in errors if error.desc()]
    logged: list[str] = []
    for text in messages.take():
        repeats_error = any(text in description or description in text for description in descriptions)
        # Such a message only contains the position in the graph, which is also in the errors.
        is_position = text.startswith("ModelImporter.cpp")
        if not repeats_error and not is_position:
            logged.append(text)
    return one_line([*map(parser_error, errors), *logged])


def can_strip() -> bool:
    """Whether this TensorRT can build plans without weights, which are read from the graph at loading."""
    return "STRIP_PLAN" in trt.BuilderFlag.__members__ and hasattr(trt, "OnnxParserRefitter")


def strip(config: trt.IBuilderConfig) -> None:
    """Build a plan without weights.

    The same weights must be added at loading. The engine is therefore tuned for these weights.
    """
    config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)


def refit(engine: trt.ICudaEngine, graph: Path, messages: Messages) -> None:
    """Add the weights of a graph to an engine without weights. Raises BackendError if any are missing."""
    refitter = trt.Refitter(engine, messages.logger)
    parser = trt.OnnxParserRefitter(refitter, messages.logger)
    if not parser.refit_from_file(str(graph)):
        raise BackendError(f"{graph}: its weights do not fit the engine: {parser_errors(parser, messages)}")
    missing = refitter.get_missing_weights()
    if missing:
        raise BackendError(f"{graph}: weights of the engine are missing: {', '.join(missing[:3])}")
    if not refitter.refit_cuda_engine():
        raise BackendError(f"{graph}: TensorRT cannot add its weights to the engine: {messages.explain()}")


def monitor(config: trt.IBuilderConfig, report: Progress) -> None:
    """Have the builder report its progress, if this TensorRT supports it."""
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _progress_monitor(report)


def _progress_monitor(report: Progress) -> trt.IProgressMonitor:
    class Monitor(trt.IProgressMonitor):
        """Progress monitor that calls `report`. Defined here because TensorRT 8.6 has no such base class."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases: dict[str, tuple[str | None, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase, num_steps)
            report(phase_name, parent_phase, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            parent, steps = self._phases.get(phase_name, (None, step + 1))
            report(phase_name, parent, step + 1, steps)
            return True  # continue the build

        def phase_finish(self, phase_name: str) -> None:
            parent, steps = self._phases.pop(phase_name, (None, 0))
            report(phase_name, parent, steps, steps)

    return Monitor()


def label_type(engine: trt.ICudaEngine) -> type:
    """Return the numpy type of labels. TensorRT 8.6 has no int64, and converts the input to int32."""
    return np.int32 if engine.get_tensor_dtype("label") == trt.int32 else np.int64


def scratch_bytes(engine: trt.ICudaEngine, profile: int) -> int:
    """Return the bytes of scratch memory that a context needs for the largest shapes of a profile.

    profile: its index. TensorRT 8.6 reports only what the profile that needs most memory needs.
    """
    if hasattr(engine, "get_device_memory_size_for_profile_v2"):
        return int(engine.get_device_memory_size_for_profile_v2(profile))
    return int(engine.device_memory_size)


def context_for(
    engine: trt.ICudaEngine,
    profile: int,
    batch: int,
    sample_shape: tuple[int, int, int],
    stream: int,
    messages: Messages,
) -> trt.IExecutionContext:
    """Return an execution context for one batch size, without scratch memory (see `give_memory`).

    profile: the index of a profile that contains the batch size.
    stream: the handle of the stream on which the context will run.

    Raises BackendError with the reason that TensorRT reports.
    """
    if hasattr(trt, "ExecutionContextAllocationStrategy"):
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    else:
        context = engine.create_execution_context_without_device_memory()
    if context is None:
        raise BackendError(f"TensorRT cannot create an execution context: {messages.explain()}")
    # TensorRT selects a profile itself only in the first context of an engine.
    if not context.set_optimization_profile_async(profile, stream):
        raise BackendError(f"TensorRT cannot use the optimisation profile {profile}: {messages.explain()}")
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        if engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT:
            is_image = len(engine.get_tensor_shape(tensor)) == 4  # other inputs have one number per sample
            shape = (batch, *sample_shape) if is_image else (batch,)
            if not context.set_input_shape(tensor, shape):
                problem = f"the engine does not accept {tensor} of shape {list(shape)}"
                raise BackendError(f"{problem}: {messages.explain()}")
    without_shape = context.infer_shapes()
    if without_shape:
        raise BackendError(f"tensors of the engine have no shape: {', '.join(without_shape)}")
    return context


def give_memory(context: trt.IExecutionContext, address: int, size: int) -> None:
    """Set the scratch memory of a context: its address on the device and its size in bytes."""
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, size)
    else:
        context.device_memory = address
