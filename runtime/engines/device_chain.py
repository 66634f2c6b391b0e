"""A whole schedule on the GPU: inputs go up once, every move and every injection is computed there, and what was asked for comes down once.

What the engines do for one schedule and batch size is recorded as one CUDA graph. A recording is trusted only after it has given, on the
first images that came, what the same engines gave when called one by one; otherwise they go on being called, and `why_eager` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from cuda.core import Device, DeviceMemoryResource, Stream
from cuda.core.graph import Graph

from ..backends.base import first_line
from ..schedule import Move
from .gpu import Gpu
from .loaded import LoadedEngines
from .memory import Block, Layout

REPLAY_BOUND = 1e-3  # relative L2 between two runs of the same kernels: some add in whatever order they finish


class DeviceChain:
    """The moves of one schedule at one batch size.

    noisy: which moves have noise added to their input; pixels: whether the last state is converted to pixels as well.
    """

    def __init__(
        self,
        engines: LoadedEngines,
        gpu: Gpu,
        memory: Device | DeviceMemoryResource,
        stream: Stream,
        moves: Sequence[Move],
        noisy: Sequence[bool],
        shape: tuple[int, int, int, int],
        pixels: bool,
    ) -> None:
        self.why_eager: str | None = None  # "" once there is a recording, None while none was tried
        self._engines, self._stream = engines, stream
        self._moves, self._noisy, self._batch, self._pixels = list(moves), list(noisy), shape[0], pixels
        self._graph: Graph | None = None
        image, number = (shape, np.float32), ((shape[0],), np.float32)
        inputs: Layout = {"x": image, **{f"noise {i}": image for i, is_noisy in enumerate(noisy) if is_noisy}}
        if engines.label_type is not None:
            inputs["label"] = ((shape[0],), engines.label_type)
        outputs: Layout = {"last": image}
        if pixels:
            outputs |= {"pixels": (shape, np.uint8), "total": number}
        between: Layout = {f"sum {i}": image for i in range(len(moves)) if self._adds_first(i)}
        between |= {f"state {i}": image for i in range(len(moves) - 1)}
        fixed: Layout = {"no noise": image, **{f"{level} {i}": number for i in range(len(moves)) for level in "tu"}}
        self._blocks: list[Block] = []
        try:
            for layout, mapped in ((inputs, gpu.integrated), (outputs, gpu.integrated), (between, False), (fixed, False)):
                self._blocks.append(Block(mapped, memory, stream, layout))
        except Exception:
            self.close()
            raise
        self._inputs, self._outputs, self._between, self._fixed = self._blocks
        self._fixed.arrays["no noise"][:] = 0
        for i, move in enumerate(moves):
            self._fixed.arrays[f"t {i}"][:], self._fixed.arrays[f"u {i}"][:] = move.t, move.u
        self._fixed.upload()

    def play(self, x: np.ndarray, noises: Sequence[np.ndarray | None], labels: np.ndarray | None, every: bool) -> np.ndarray:
        """The states after every move, or after the last alone: float32 [moves or 1, N, C, H, W]."""
        self._run(x, noises, labels)
        return np.stack(self._states() if every else self._fetched("last"))

    def play_to_pixels(
        self, x: np.ndarray, noises: Sequence[np.ndarray | None], labels: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The last state as pixels, uint8 [N, C, H, W], and the sum of each image before clipping: it is finite if the image is."""
        self._run(x, noises, labels)
        pixels, total = self._fetched("pixels", "total")
        return pixels, total

    def close(self) -> None:
        """Free graph and memory. Nothing may be under way."""
        if self._graph is not None:
            self._graph.close()
        for block in self._blocks:
            block.close()

    def _run(self, x: np.ndarray, noises: Sequence[np.ndarray | None], labels: np.ndarray | None) -> None:
        arrays = self._inputs.arrays
        arrays["x"][:] = x
        for i, noise in enumerate(noises):
            if noise is not None:
                arrays[f"noise {i}"][:] = noise
        if labels is not None:
            arrays["label"][:] = labels
        self._inputs.upload()
        if self.why_eager is None:
            self._record()
        if self._graph is None:
            self._enqueue(int(self._stream.handle))
        else:
            self._graph.launch(self._stream)

    def _enqueue(self, stream: int) -> None:
        """Every engine in turn, each reading what the one before wrote."""
        x = self._inputs.address("x")
        for i, move in enumerate(self._moves):
            noise = self._inputs.address(f"noise {i}") if self._noisy[i] else self._fixed.address("no noise")
            if self._adds_first(i):
                total = self._between.address(f"sum {i}")
                self._engines.enqueue("add_noise", self._batch, {"x": x, "noise": noise, "sum": total}, stream)
                x = total
            is_last = i == len(self._moves) - 1
            state = self._outputs.address("last") if is_last else self._between.address(f"state {i}")
            addresses = {"x": x, "t": self._fixed.address(f"t {i}"), "u": self._fixed.address(f"u {i}"), "x_u": state}
            if move.graph == "inverse":
                addresses["noise"] = noise
            if self._engines.label_type is not None:
                addresses["label"] = self._inputs.address("label")
            self._engines.enqueue(move.graph, self._batch, addresses, stream)
            x = state
        if self._pixels:
            addresses = {"x": x, "pixels": self._outputs.address("pixels"), "total": self._outputs.address("total")}
            self._engines.enqueue("to_uint8", self._batch, addresses, stream)

    def _adds_first(self, index: int) -> bool:
        """Whether a move's noise is added by an engine of its own: the graph towards the image has no addition in it."""
        return self._noisy[index] and self._moves[index].graph == "forward"

    def _record(self) -> None:
        """Call the engines once, which must have happened before a recording; record them; compare. The inputs are up already."""
        self._enqueue(int(self._stream.handle))
        expected = self._everything()
        if not all(np.isfinite(array).all() for array in expected):
            return  # nothing can be compared with NaN; the next images may be better
        try:
            graph = self._capture()
        except Exception as error:  # cuda-core's errors share no base class; what cannot be recorded can still be called
            self.why_eager = f"no CUDA graph: {first_line(error)}"
            return
        self._between.erase()  # or a graph that does nothing would look right
        self._outputs.erase()
        graph.launch(self._stream)
        distance = max(map(_distance, self._everything(), expected))
        if not distance <= REPLAY_BOUND:
            graph.close()
            self.why_eager = f"the CUDA graph gave other images than its engines (relative L2 {distance:.1e})"
            return
        self._graph, self.why_eager = graph, ""

    def _capture(self) -> Graph:
        builder = self._stream.create_graph_builder()
        try:
            builder.begin_building("thread_local")
            self._enqueue(int(builder.stream.handle))
            graph = builder.end_building().complete()
        except BaseException:
            with suppress(Exception):  # ends the recording, and says once more that it was broken off
                builder.close()
            raise
        builder.close()
        return graph

    def _everything(self) -> list[np.ndarray]:
        """All states, and pixels where they are made, image by image."""
        arrays = [*self._states(), *(self._fetched("pixels") if self._pixels else [])]
        return [image for array in arrays for image in array]

    def _states(self) -> list[np.ndarray]:
        """The states after every move, once all that was asked of the GPU is done."""
        between = [f"state {i}" for i in range(len(self._moves) - 1)]
        if between:
            self._between.download(between[0], between[-1])
        return [*(self._between.arrays[name] for name in between), *self._fetched("last")]

    def _fetched(self, *names: str) -> list[np.ndarray]:
        """Copies of outputs, once all that was asked of the GPU is done."""
        self._outputs.download(names[0], names[-1])
        self._stream.sync()
        return [self._outputs.arrays[name].copy() for name in names]


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-30)
