"""Compiling a bundle's graphs with TensorRT, in a process of its own: its memory ends with it, and so does whatever it breaks.

`main` reads a Request as JSON from stdin and writes events, one JSON object a line, to stdout. It needs no GPU to parse and, with a library
that can, to build; reading the types back takes one, and is left out where the request names none.
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
from ...runtime.engines.facts import HELPERS, BuildOptions
from ...runtime.engines.store import workspace_limit
from ...runtime.machine.gpu import free_memory, is_out_of_memory, make_current, probe
from .plans import OnDla, OutOfMemory, PlanWriter
from .realised import counted, realised_types, wider_types

Types = dict[str, dict[str, str]]  # direction → convolution → type
Event = Callable[..., None]  # event(name, **what)


@dataclass(frozen=True)
class Request:
    """graphs: direction → file; folder: where NAME.plan goes; sample_shape: (C, H, W); device: the GPU's index, or None to compile only;
    timing_cache: a file to begin with and to add to, or None; dla: whether to say what a DLA could take, and build nothing."""

    graphs: dict[str, str]
    folder: str
    sample_shape: tuple[int, int, int]
    options: BuildOptions
    device: int | None = None
    timing_cache: str | None = None
    dla: bool = False

    @classmethod
    def from_json(cls, values: Any) -> Request:
        options = BuildOptions(**{**values["options"], "batch": tuple(values["options"]["batch"])})
        return cls(**{**values, "options": options, "sample_shape": tuple(values["sample_shape"])})


@dataclass(frozen=True)
class Compiled:
    """What came out. Without a GPU nothing is read back, and types and wider are {}.

    requested, types: direction → type → how many convolutions, as the graph asks for and as read back
    wider: direction → convolution → its type, where that has more bits than the graph asks for
    scratch: bytes
    """

    requested: dict[str, dict[str, int]]
    types: dict[str, dict[str, int]]
    wider: Types
    scratch: int
    seconds: float


def main() -> None:
    """The process. Exit code 0 after a "done" event, 2 after an "error" event."""

    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no event

    def event(event: str, **what: Any) -> None:
        print(json.dumps({"event": event, **what}), file=events, flush=True)

    request = Request.from_json(json.load(sys.stdin))
    try:
        if request.dla:
            event("done", **_report_dla(request, event))
        else:
            event("done", **asdict(compile_graphs(request, event)))
    except BcmError as error:
        event("error", kind=type(error).__name__, text=str(error))
        sys.exit(2)


def compile_graphs(request: Request, event: Event) -> Compiled:
    """Write every plan of store.PLANS. Events: "memory" (free bytes), "line" (text), "progress" (plan, phase, done, steps).

    Raises BuildError (a graph that does not parse or build, or too little memory) or BackendError.
    """
    started = time.perf_counter()
    workspace = request.options.workspace
    if request.device is not None:
        make_current(request.device)
        gpu = probe(request.device)
        free = free_memory(gpu)
        event("memory", free=free)
        workspace = workspace_limit(workspace, gpu, free)
    requested = _write_plans(request, workspace, event)
    types: Types = {}
    scratch = 0
    if request.device is not None:
        types, scratch = _read_back(request, requested)
    return Compiled(
        {direction: counted(convolutions) for direction, convolutions in requested.items()},
        {direction: counted(convolutions) for direction, convolutions in types.items()},
        {
            direction: wider_types(requested[direction], convolutions)
            for direction, convolutions in types.items()
        },
        scratch,
        time.perf_counter() - started,
    )


def _report_dla(request: Request, event: Event) -> dict[str, OnDla]:
    """Direction → what a DLA could take. Raises BackendError where there is none."""
    if request.device is not None:
        make_current(request.device)
    writer = _writer(request, request.options.workspace, event)
    return {name: writer.on_dla(name, Path(graph)) for name, graph in request.graphs.items()}


def _writer(request: Request, workspace: int | None, event: Event) -> PlanWriter:
    return PlanWriter(
        Path(request.folder),
        replace(request.options, workspace=workspace),
        request.sample_shape,
        Path(request.timing_cache) if request.timing_cache else None,
        lambda text: event("line", text=text),
        lambda plan, phase, done, steps: event("progress", plan=plan, phase=phase, done=done, steps=steps),
    )


def _write_plans(request: Request, workspace: int | None, event: Event) -> Types:
    """The types that the graphs ask for; the builder's memory is free again."""
    writer = _writer(request, workspace, event)
    for name, graph in request.graphs.items():
        writer.write(name, Path(graph))
    for name in HELPERS:
        writer.write(name, Path(__file__).parent / f"{name}.onnx")
    return writer.convolutions


def _read_back(request: Request, requested: Types) -> tuple[Types, int]:
    """(direction → convolution → type, bytes of scratch) of the finished plans. Raises BackendError or BuildError."""
    messages = adapter.Messages()
    runtime = adapter.create(trt.Runtime, messages)
    types: Types = {}
    scratch = 0
    for name, convolutions in requested.items():
        try:
            engine = runtime.deserialize_cuda_engine((Path(request.folder) / f"{name}.plan").read_bytes())
            if engine is None:
                raise BackendError(f"the plan that was just built cannot be loaded: {messages.explain()}")
            if request.options.stripped:
                adapter.refit(engine, Path(request.graphs[name]), messages)
            inspector = (
                engine.create_engine_inspector()
            )  # tells the formats of dynamic tensors for the shapes of a context
            inspector.execution_context = adapter.context_for(
                engine, request.options.batch[1], request.sample_shape, messages
            )
            types[name] = realised_types(
                inspector.get_engine_information(trt.LayerInformationFormat.JSON), convolutions
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BuildError(
                f"{name}: TensorRT {trt.__version__} does not tell what it built ({error})"
            ) from error
        except BackendError as error:
            kind = OutOfMemory if is_out_of_memory(str(error)) else BackendError
            raise kind(f"{name}: {error}") from error
        scratch = max(scratch, adapter.scratch_bytes(engine))
    return types, scratch
