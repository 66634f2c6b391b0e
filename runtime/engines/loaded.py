"""Engines in the GPU's memory: deserialised, given their weights if they were stripped, and one scratch allocation for all of them."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import tensorrt as trt

from ...errors import BackendError
from ..storage.bundle import Bundle
from ..storage.manifest import DIRECTIONS
from . import adapter
from .facts import FACTS, PLANS
from .store import Engine

if TYPE_CHECKING:
    from cuda.core import Stream

    from .memory import DeviceMemory


class LoadedEngines:
    """The engines of one build. They run one after the other on one stream, so they can share their scratch memory."""

    def __init__(self, engine: Engine, bundle: Bundle, memory: DeviceMemory, stream: Stream) -> None:
        self._sample_shape = bundle.manifest.model.sample_shape
        self.messages = adapter.Messages()
        runtime = adapter.create(trt.Runtime, self.messages)
        runtime.error_recorder = self.messages.recorder
        self._runtime = runtime  # outlives its engines
        self._engines = {name: self._deserialise(runtime, engine, name) for name in PLANS}
        if engine.facts.options.stripped:
            for direction, graph in bundle.graphs(engine.facts.options.precision).items():
                adapter.refit(self._engines[direction], graph, self.messages)
        expected = tensor_names(bundle.manifest.model.num_classes is not None)
        for name, loaded in self._engines.items():
            names = {loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)}
            if names != expected[name]:
                raise BackendError(
                    f"{engine.plan(name)}: takes {', '.join(sorted(names))}, which is no engine of this bundle"
                )
        forward = self._engines[DIRECTIONS[0]]
        self.label_type = (
            adapter.label_type(forward) if "label" in expected[DIRECTIONS[0]] else None
        )  # None: no classes
        self._size = max(max(adapter.scratch_bytes(loaded) for loaded in self._engines.values()), 1)
        self._scratch = memory.allocate(self._size, stream)
        self.messages.check_recorder("the engines are loaded, but TensorRT says")

    def contexts(self, batch: int) -> Contexts:
        """New execution contexts for one batch size, all in the shared scratch memory."""
        return Contexts(self, batch)

    def context(self, name: str, batch: int) -> trt.IExecutionContext:
        """A new execution context of one engine. Raises BackendError with what TensorRT says."""
        context = adapter.context_for(self._engines[name], batch, self._sample_shape, self.messages)
        adapter.give_memory(context, int(self._scratch.handle), self._size)
        return context

    def close(self, stream: Stream) -> None:
        """Free engines and scratch memory. Their contexts must be gone, and nothing may be under way that uses them."""
        self._engines.clear()
        self._scratch.close(stream)

    def _deserialise(self, runtime: trt.Runtime, engine: Engine, name: str) -> trt.ICudaEngine:
        plan = engine.plan(name)
        with plan.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            loaded = runtime.deserialize_cuda_engine(content)
        if loaded is None:
            why = self.messages.explain()
            raise BackendError(
                f"{plan}: TensorRT {trt.__version__} does not take it, though its {FACTS} fits: {why}"
            )
        return loaded


class Contexts:
    """One execution context per engine, made at its first use, for one batch size and one CUDA graph.

    A graph holds what its context was when it was recorded, so contexts of another graph must be others: NVIDIA advises one context per
    captured graph. The memory that they compute in is shared, because engines run one after the other on one stream.
    """

    def __init__(self, engines: LoadedEngines, batch: int) -> None:
        self._engines, self._batch = engines, batch
        self._contexts: dict[str, trt.IExecutionContext] = {}

    def enqueue(self, name: str, addresses: Mapping[str, int], stream: int) -> None:
        """Have an engine compute on a stream (its handle), from and to these device addresses. Raises BackendError if it refuses."""
        messages = self._engines.messages
        if name not in self._contexts:
            self._contexts[name] = self._engines.context(name, self._batch)
        context = self._contexts[name]
        accepted = [context.set_tensor_address(tensor, address) for tensor, address in addresses.items()]
        if not all(accepted) or not context.execute_async_v3(stream):
            raise BackendError(f"TensorRT does not run {name} at batch {self._batch}: {messages.explain()}")
        messages.check_recorder(f"TensorRT runs {name} at batch {self._batch}, but says")

    def close(self) -> None:
        """Free the contexts. Nothing may be under way that uses them, and the graph recorded from them must be closed."""
        self._contexts.clear()


def tensor_names(labelled: bool) -> dict[str, set[str]]:
    """Plan → the names of its inputs and outputs."""
    common = {"x", "t", "u", "x_u"} | ({"label"} if labelled else set())
    forward, inverse = DIRECTIONS
    return {
        forward: common,
        inverse: common | {"noise"},
        "add_noise": {"x", "noise", "sum"},
        "to_uint8": {"x", "pixels", "total"},
    }
