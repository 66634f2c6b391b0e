"""Engines in GPU memory.

Plans are deserialised, and plans without weights get the weights of the graphs. All engines share one
allocation of scratch memory.
"""

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
    """The engines of one build.

    They run one after the other on one stream, so they can share scratch memory.
    """

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
        has_classes = bundle.manifest.model.num_classes is not None
        self._check_tensors(engine, has_classes)
        # The type in which the engines accept labels. None for a model without classes.
        self.label_type = adapter.label_type(self._engines[DIRECTIONS[0]]) if has_classes else None
        self._size = max(1, *map(adapter.scratch_bytes, self._engines.values()))
        self._scratch = memory.allocate(self._size, stream)
        self.messages.check_recorder("TensorRT reported an error while it loaded the engines")

    def _check_tensors(self, engine: Engine, has_classes: bool) -> None:
        """Raise BackendError if an engine has other inputs and outputs than this bundle needs."""
        expected = tensor_names(has_classes)
        for name, loaded in self._engines.items():
            names = {loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)}
            if names != expected[name]:
                raise BackendError(
                    f"{engine.plan(name)}: its inputs and outputs are {', '.join(sorted(names))}, "
                    f"but this bundle needs {', '.join(sorted(expected[name]))}; run bcm-edge build again"
                )

    def contexts(self, batch: int) -> Contexts:
        """Return new execution contexts for one batch size, all in the shared scratch memory."""
        return Contexts(self, batch)

    def context(self, name: str, batch: int) -> trt.IExecutionContext:
        """Return a new execution context of one engine. Raises BackendError with the reason of TensorRT."""
        context = adapter.context_for(self._engines[name], batch, self._sample_shape, self.messages)
        adapter.give_memory(context, int(self._scratch.handle), self._size)
        return context

    def close(self, stream: Stream) -> None:
        """Free engines and scratch memory. Their contexts must be closed, and no work may use them."""
        self._engines.clear()
        self._scratch.close(stream)

    def _deserialise(self, runtime: trt.Runtime, engine: Engine, name: str) -> trt.ICudaEngine:
        """Load a plan. Raises BackendError if TensorRT cannot load it."""
        plan = engine.plan(name)
        with plan.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            loaded = runtime.deserialize_cuda_engine(content)
        if loaded is None:
            raise BackendError(
                f"{plan}: TensorRT {trt.__version__} cannot load it, although {FACTS} fits this machine: "
                f"{self.messages.explain()}"
            )
        return loaded


class Contexts:
    """The execution contexts of one CUDA graph at one batch size: one per engine, created at its first use.

    A CUDA graph contains the state of its contexts at the time of the recording, so every graph needs
    contexts of its own, as NVIDIA advises. All contexts share scratch memory, because engines run one after
    the other on one stream.
    """

    def __init__(self, engines: LoadedEngines, batch: int) -> None:
        self._engines, self._batch = engines, batch
        self._contexts: dict[str, trt.IExecutionContext] = {}

    def enqueue(self, name: str, addresses: Mapping[str, int], stream: int) -> None:
        """Enqueue an engine on a stream. Raises BackendError if TensorRT reports an error.

        addresses: the name of each input and output → its address on the device. stream: the handle of the
        stream.
        """
        messages = self._engines.messages
        if name not in self._contexts:
            self._contexts[name] = self._engines.context(name, self._batch)
        context = self._contexts[name]
        accepted = [context.set_tensor_address(tensor, address) for tensor, address in addresses.items()]
        if not all(accepted) or not context.execute_async_v3(stream):
            raise BackendError(f"TensorRT cannot run {name} at batch {self._batch}: {messages.explain()}")
        messages.check_recorder(f"TensorRT reported an error when it ran {name} at batch {self._batch}")

    def close(self) -> None:
        """Free the contexts. No work may use them, and the CUDA graph recorded from them must be closed."""
        self._contexts.clear()


def tensor_names(has_classes: bool) -> dict[str, set[str]]:
    """Return plan → the names of its inputs and outputs."""
    common = {"x", "t", "u", "x_u"}
    if has_classes:
        common.add("label")
    forward, inverse = DIRECTIONS
    return {
        forward: common,
        inverse: common | {"noise"},
        "add_noise": {"x", "noise", "sum"},
        "to_uint8": {"x", "pixels", "total"},
    }
