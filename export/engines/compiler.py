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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tensorrt as trt

from ...errors import BackendError, BcmError, BuildError, DowngradeError
from ...runtime.engines import adapter
from ...runtime.engines.gpu import free_memory, is_out_of_memory, make_current, probe
from ...runtime.engines.store import HELPERS, BuildOptions
from .plans import OnDla, OutOfMemory, PlanWriter
from .realised import UNKNOWN, counted, downgrades, realised_types

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
    """What came out. requested, types: direction → type → convolutions, as asked for and as read back ({} without a GPU);
    scratch: bytes."""

    requested: dict[str, dict[str, int]]
    types: dict[str, dict[str, int]]
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

    Raises BuildError (a graph that does not parse or build, or too little memory), DowngradeError, BackendError.
    """
    started = time.perf_counter()
    if request.device is not None:
        make_current(request.device)
        event("memory", free=free_memory(probe(request.device)))
    requested = _write_plans(request, event)
    types: Types = {}
    scratch = 0
    if request.device is not None:
        types, scratch = _read_back(request, requested)
        _check(request.options.precision, requested, types, event)
    return Compiled(
        {name: counted(of) for name, of in requested.items()},
        {name: counted(of) for name, of in types.items()},
        scratch,
        time.perf_counter() - started,
    )


def _report_dla(request: Request, event: Event) -> dict[str, OnDla]:
    """Direction → what a DLA could take. Raises BackendError where there is none."""
    if request.device is not None:
        make_current(request.device)
    writer = _writer(request, event)
    return {name: writer.on_dla(name, Path(graph)) for name, graph in request.graphs.items()}


def _writer(request: Request, event: Event) -> PlanWriter:
    return PlanWriter(
        Path(request.folder),
        request.options,
        request.sample_shape,
        Path(request.timing_cache) if request.timing_cache else None,
        lambda text: event("line", text=text),
        lambda plan, phase, done, steps: event("progress", plan=plan, phase=phase, done=done, steps=steps),
    )


def _write_plans(request: Request, event: Event) -> Types:
    """The types that the graphs ask for; the builder's memory is free again."""
    writer = _writer(request, event)
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
            inspector = engine.create_engine_inspector()  # tells the formats of dynamic tensors for the shapes of a context
            inspector.execution_context = adapter.context_for(engine, request.options.batch[1], request.sample_shape, messages)
            types[name] = realised_types(inspector.get_engine_information(trt.LayerInformationFormat.JSON), convolutions)
        except (ValueError, KeyError, TypeError) as error:
            raise BuildError(f"{name}: TensorRT {trt.__version__} does not tell what it built ({error})") from error
        except BackendError as error:
            kind = OutOfMemory if is_out_of_memory(str(error)) else BackendError
            raise kind(f"{name}: {error}") from error
        scratch = max(scratch, adapter.scratch_bytes(engine))
    return types, scratch


def _check(precision: str, requested: Types, types: Types, event: Event) -> None:
    """Raise DowngradeError if an engine computes convolutions in more bits than the graph says.

    One is enough, but where TensorRT itself decides layer by layer, as it does for 8 bits (is there an integer kernel?) and as 8.6 does
    for everything: there up to half are told and let pass. Where no convolution tells its type, that is told.
    """
    decides = precision == "int8" or not adapter.is_strongly_typed()
    for name, convolutions in requested.items():
        wider = downgrades(convolutions, types[name])
        told = f"{len(wider)} of {len(convolutions)} convolutions compute in more bits than {precision} asks for"
        if len(wider) > (len(convolutions) // 2 if decides else 0):
            raise DowngradeError(f"{name}: {told}, {wider[0]} first ({types[name][wider[0]]}); no engine was kept")
        if wider:
            event("line", text=f"warning: {name}: {told}: {', '.join(wider)}")
        if set(types[name].values()) == {UNKNOWN}:
            event("line", text=f"warning: {name}: TensorRT tells of no convolution in which type it computes, so that was not checked")
