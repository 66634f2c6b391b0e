"""Engines in the GPU's memory: deserialised, given their weights if they were stripped, and one scratch allocation for all of them."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import tensorrt as trt

from ...errors import BackendError
from ..bundle import DIRECTIONS, Bundle
from . import adapter
from .store import FACTS, PLANS, Engine

if TYPE_CHECKING:
    from cuda.core import Device, DeviceMemoryResource, Stream


class LoadedEngines:
    """The plans of one build. They run one after the other on one stream, which is what lets them share their scratch memory."""

    def __init__(self, engine: Engine, bundle: Bundle, memory: Device | DeviceMemoryResource, stream: Stream) -> None:
        assert engine.facts
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
                raise BackendError(f"{engine.plan(name)}: takes {', '.join(sorted(names))}, which is no engine of this bundle")
        forward = self._engines[DIRECTIONS[0]]
        self.label_type = adapter.label_type(forward) if "label" in expected[DIRECTIONS[0]] else None  # None: no classes
        self._size = max(max(adapter.scratch_bytes(loaded) for loaded in self._engines.values()), 1)
        self._scratch = memory.allocate(self._size, stream=stream)
        self.messages.check_recorder("the engines are loaded, but TensorRT says")
        self._contexts: dict[tuple[str, int], trt.IExecutionContext] = {}

    def keep(self, batches: set[int]) -> None:
        """Let go of contexts for other batch sizes; each has memory of its own. Nothing may be under way."""
        self._contexts = {key: context for key, context in self._contexts.items() if key[1] in batches}

    def enqueue(self, name: str, batch: int, addresses: Mapping[str, int], stream: int) -> None:
        """Have an engine compute on a stream (its handle), from and to these device addresses. Raises BackendError if it refuses.

        A context serves one batch size for good: a CUDA graph recorded from it would not notice another shape.
        """
        key = name, batch
        if key not in self._contexts:
            self._contexts[key] = self._context(name, batch)
        context = self._contexts[key]
        taken = [context.set_tensor_address(tensor, address) for tensor, address in addresses.items()]
        if not all(taken) or not context.execute_async_v3(stream):
            raise BackendError(f"TensorRT does not run {name} at batch {batch}: {self.messages.explain()}")
        self.messages.check_recorder(f"TensorRT runs {name} at batch {batch}, but says")

    def close(self, stream: Stream) -> None:
        """Free contexts, engines and scratch, in this order. Nothing may be under way that uses them."""
        self._contexts.clear()
        self._engines.clear()
        self._scratch.close(stream)

    def _deserialise(self, runtime: trt.Runtime, engine: Engine, name: str) -> trt.ICudaEngine:
        plan = engine.plan(name)
        with plan.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            loaded = runtime.deserialize_cuda_engine(content)
        if loaded is None:
            why = self.messages.explain()
            raise BackendError(f"{plan}: TensorRT {trt.__version__} does not take it, though its {FACTS} fits: {why}")
        return loaded

    def _context(self, name: str, batch: int) -> trt.IExecutionContext:
        context = adapter.context_for(self._engines[name], batch, self._sample_shape, self.messages)
        adapter.give_memory(context, int(self._scratch.handle), self._size)
        return context


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
