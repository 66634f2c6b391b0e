"""Engines in GPU memory.

Plans are deserialised, and plans without weights get the weights of the graphs. All engines share scratch
memory. That of a large profile is allocated when a schedule first needs it.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import tensorrt as trt

from ...errors import BackendError
from ..storage.bundle import Bundle
from . import adapter
from .facts import FACTS
from .profiles import profile_of
from .store import Engine

if TYPE_CHECKING:
    from cuda.core import Buffer, Stream

    from .memory import DeviceMemory


class LoadedEngines:
    """The engines of one build.

    They run one after the other on one stream, so they can share scratch memory.
    """

    def __init__(self, engine: Engine, bundle: Bundle, memory: DeviceMemory, stream: Stream) -> None:
        self._sample_shape = bundle.manifest.model.sample_shape
        self._options, self._memory, self._stream = engine.facts.options, memory, stream
        self.messages = adapter.Messages()
        runtime = adapter.create(trt.Runtime, self.messages)
        runtime.error_recorder = self.messages.recorder
        self._runtime = runtime  # outlives its engines
        self._engines = {name: self._deserialise(runtime, engine, name) for name in self._options.plans}
        if self._options.stripped:
            graphs = bundle.graphs(self._options.precision)
            for direction in self._options.directions:
                adapter.refit(self._engines[direction], graphs[direction], self.messages)
        has_classes = bundle.manifest.model.num_classes is not None
        self._check_tensors(engine, has_classes)
        # The type in which the engines accept labels. None for a model without classes.
        self.label_type = adapter.label_type(self._engines["inverse"]) if has_classes else None
        self._scratch: list[Buffer] = []
        self._scratch_for(profile=0)
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
            if loaded.num_optimization_profiles != len(self._options.profiles):
                raise BackendError(
                    f"{engine.plan(name)}: it has {loaded.num_optimization_profiles} optimisation profiles, "
                    f"but {FACTS} lists {len(self._options.profiles)}; run bcm-edge build again"
                )

    def plan_for(self, direction: str) -> str:
        """Return the plan that computes the moves of a direction. A single engine computes both."""
        return "inverse" if self._options.single else direction

    def contexts(self, batch: int) -> Contexts:
        """Return new execution contexts for one batch size, all in the shared scratch memory."""
        self._scratch_for(self._profile(batch))
        return Contexts(self, batch)

    def context(self, name: str, batch: int) -> trt.IExecutionContext:
        """Return a new execution context of one engine. Raises BackendError with the reason of TensorRT."""
        profile = self._profile(batch)
        stream = int(self._stream.handle)
        context = adapter.context_for(
            self._engines[name], profile, batch, self._sample_shape, stream, self.messages
        )
        scratch = self._scratch_for(profile)
        adapter.give_memory(context, int(scratch.handle), scratch.size)
        return context

    def _profile(self, batch: int) -> int:
        return profile_of(batch, self._options.profiles)

    def _scratch_for(self, profile: int) -> Buffer:
        """Return scratch memory that is large enough for a profile in every engine.

        It is allocated if no present one is large enough. Smaller ones stay, because recorded CUDA graphs
        contain their addresses.
        """
        needed = max(1, *(adapter.scratch_bytes(engine, profile) for engine in self._engines.values()))
        for scratch in self._scratch:
            if scratch.size >= needed:
                return scratch
        self._scratch.append(self._memory.allocate(needed, self._stream))
        return self._scratch[-1]

    def close(self, stream: Stream) -> None:
        """Free engines and scratch memory. Their contexts must be closed, and no work may use them."""
        self._engines.clear()
        for scratch in self._scratch:
            scratch.close(stream)
        self._scratch.clear()

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
    return {
        "forward": common,
        "inverse": common | {"noise"},
        "add_noise": {"x", "noise", "sum"},
        "to_uint8": {"x", "pixels", "total"},
    }
