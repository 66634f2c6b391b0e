"""Compile a bundle's graphs with TensorRT, in a process of its own that frees all memory when it ends.

`main` reads a Request as JSON from stdin and writes events to stdout, one JSON object per line. Parsing
needs no GPU, nor does building with a TensorRT that supports that. Reading the types back needs one, and is
left out if the request names no GPU.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tensorrt as trt

from ...errors import BackendError, BcmError, BuildError
from ...runtime.engines import adapter
from ...runtime.engines.facts import BuildOptions
from ...runtime.engines.store import workspace_limit
from ...runtime.machine.gpu import disable_tf32, free_memory, is_out_of_memory, make_current, probe
from .plan_writer import DlaSupport, OutOfMemory, PlanWriter
from .realised import counted, realised_types, wider_types, widest_types

Types = dict[str, dict[str, str]]  # direction → convolution → type
Counts = dict[str, dict[str, int]]  # direction → type → number of convolutions
Event = Callable[..., None]  # event(name, **fields)

DEFAULT_STREAM = 0  # the handle of CUDA's default stream


@dataclass(frozen=True)
class Request:
    """The work of the compiling process."""

    # Direction → the ONNX file, for each of options.directions.
    graphs: dict[str, str]
    # The folder in which NAME.plan is written.
    folder: str
    # (C, H, W)
    sample_shape: tuple[int, int, int]
    options: BuildOptions
    # The index of the GPU. None: compile without one, and read no types back.
    device: int | None = None
    # The file of kernel timings to read and to extend, or None.
    timing_cache: str | None = None
    # Build nothing, and report what a DLA supports.
    dla: bool = False

    @classmethod
    def from_json(cls, values: Any) -> Request:
        """Return the request from JSON values, in which tuples are lists."""
        profiles = tuple(tuple(profile) for profile in values["options"]["profiles"])
        options = BuildOptions(**{**values["options"], "profiles": profiles})
        return cls(**{**values, "options": options, "sample_shape": tuple(values["sample_shape"])})


@dataclass(frozen=True)
class Compiled:
    """The result of a build. Without a GPU `types` and `wider` are empty."""

    # The convolutions as the graph asks for them.
    requested: Counts
    # The convolutions as read back from the engine.
    types: Counts
    # The convolutions that compute in more bits than the graph asks for, with the types they compute in.
    wider: Types
    # Bytes of device memory that all plans share, for the profile that needs most.
    scratch: int
    # The time that compiling took.
    seconds: float


def main() -> None:
    """Run the process. The exit code is 0 after a "done" event, 2 after an "error" event."""
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout, too; that must not mix with the events

    def event(event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=events, flush=True)

    request = Request.from_json(json.load(sys.stdin))
    try:
        if request.dla:
            event("done", **_dla_support(request, event))
        else:
            event("done", **asdict(compile_graphs(request, event)))
    except BcmError as error:
        event("error", kind=type(error).__name__, text=str(error))
        sys.exit(2)


def compile_graphs(request: Request, event: Event) -> Compiled:
    """Write every plan of the request's options.

    Events: "memory" (free: bytes of GPU memory), "line" (text), "progress" (plan, phase, done, steps).

    Raises BuildError if a graph cannot be parsed or built or there is too little memory, and BackendError
    if the GPU cannot be used.
    """
    started = time.perf_counter()
    disable_tf32()
    workspace, integrated = request.options.workspace, False
    if request.device is not None:
        make_current(request.device)
        gpu = probe(request.device)
        free = free_memory(gpu)
        event("memory", free=free)
        workspace, integrated = workspace_limit(workspace, gpu, free), gpu.integrated
    requested = _write_plans(request, workspace, integrated, event)
    types: Types = {}
    scratch = 0
    if request.device is not None:
        types, scratch = _read_back(request, requested)
    return Compiled(
        requested={direction: counted(convolutions) for direction, convolutions in requested.items()},
        types={direction: counted(convolutions) for direction, convolutions in types.items()},
        wider={
            direction: wider_types(requested[direction], convolutions)
            for direction, convolutions in types.items()
        },
        scratch=scratch,
        seconds=time.perf_counter() - started,
    )


def _dla_support(request: Request, event: Event) -> dict[str, DlaSupport]:
    """Return direction → what a DLA supports. Raises BackendError if there is none."""
    if request.device is not None:
        make_current(request.device)
    writer = _writer(request, request.options.workspace, False, event)
    return {name: writer.dla_support(name, Path(graph)) for name, graph in request.graphs.items()}


def _writer(request: Request, workspace: int | None, integrated: bool, event: Event) -> PlanWriter:
    return PlanWriter(
        Path(request.folder),
        replace(request.options, workspace=workspace),
        request.sample_shape,
        integrated,
        Path(request.timing_cache) if request.timing_cache else None,
        lambda text: event("line", text=text),
        lambda plan, phase, done, steps: event("progress", plan=plan, phase=phase, done=done, steps=steps),
    )


def _write_plans(request: Request, workspace: int | None, integrated: bool, event: Event) -> Types:
    """Write the plans, free the memory of the builder, and return the types that the graphs ask for."""
    writer = _writer(request, workspace, integrated, event)
    for name, graph in request.graphs.items():
        writer.write(name, Path(graph))
    for name in request.options.helpers:
        writer.write(name, Path(__file__).parent / f"{name}.onnx")
    return writer.convolutions


def _read_back(request: Request, requested: Types) -> tuple[Types, int]:
    """Return the types in which the plans compute, and the bytes of scratch memory that they share.

    Raises BackendError or BuildError, with the name of the plan, if a plan cannot be loaded or read.
    """
    messages = adapter.Messages()
    runtime = adapter.create(trt.Runtime, messages)
    types: Types = {}
    scratch = 0
    for name, convolutions in requested.items():
        try:
            engine = _load(request, name, runtime, messages)
            types[name] = widest_types(
                [
                    realised_types(_inspect(request, engine, profile, messages), convolutions)
                    for profile in range(len(request.options.profiles))
                ]
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BuildError(
                f"{name}: TensorRT {trt.__version__} does not report the types of its engine ({error})"
            ) from error
        except BackendError as error:
            error_class = OutOfMemory if is_out_of_memory(str(error)) else BackendError
            raise error_class(f"{name}: {error}") from error
        for profile in range(len(request.options.profiles)):
            scratch = max(scratch, adapter.scratch_bytes(engine, profile))
    return types, scratch


def _load(request: Request, name: str, runtime: trt.Runtime, messages: adapter.Messages) -> trt.ICudaEngine:
    plan = Path(request.folder) / f"{name}.plan"
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise BackendError(f"the plan that was just built cannot be loaded: {messages.explain()}")
    if request.options.stripped:
        adapter.refit(engine, Path(request.graphs[name]), messages)
    return engine


def _inspect(request: Request, engine: trt.ICudaEngine, profile: int, messages: adapter.Messages) -> str:
    """The JSON of TensorRT's engine inspector for the profile of this index."""
    inspector = engine.create_engine_inspector()
    # The formats of tensors with dynamic shapes are reported for the shapes of an execution context only.
    _, common, _ = request.options.profiles[profile]
    context = adapter.context_for(engine, profile, common, request.sample_shape, DEFAULT_STREAM, messages)
    inspector.execution_context = context
    return inspector.get_engine_information(trt.LayerInformationFormat.JSON)
