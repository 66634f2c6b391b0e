"""A whole schedule on the GPU.

The inputs are copied to the GPU once, every move and every injection is computed there, and the result is
copied to the host once. The inputs are labels, and images or the seeds of noise: the GPU draws noise itself.

The calls of the engines for one schedule and batch size are recorded as one CUDA graph. The graph is used
only if its results for the first images equal those of the engines called one by one. Otherwise the engines
are always called one by one, and `why_eager` contains the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cuda.core import Stream
from cuda.core.graph import Graph

from ..accuracy import REPLAY_BOUND, replay_distance
from ..machine.gpu import Gpu
from ..noise import Draw, values
from ..wording import first_line
from .chain_key import ChainKey, Noise
from .graph_recording import record_graph
from .loaded import LoadedEngines
from .memory import Block, DeviceMemory, Layout, fill_up
from .noise_kernel import NoiseKernel, seed_array


class DeviceChain:
    """The moves of one schedule at one batch size.

    A smaller number of images is filled up with repetitions, which are not returned.
    """

    def __init__(
        self,
        engines: LoadedEngines,
        gpu: Gpu,
        memory: DeviceMemory,
        stream: Stream,
        key: ChainKey,
        kernel: NoiseKernel | None,
    ) -> None:
        """Allocate the memory of the chain.

        kernel: draws the noise of the key; None if the key has none.
        """
        # None before the first recording, "" with a CUDA graph, else why the engines are called one by one.
        self.why_eager: str | None = None
        self._engines, self._stream, self._kernel = engines, stream, kernel
        self._moves, self._shape, self._pixels = key.moves, key.shape, key.pixels
        self._start, self._added, self._drawn = key.start, key.added, key.drawn
        self._plans = [engines.plan_for(move.graph) for move in key.moves]
        self._contexts = engines.contexts(self._shape[0])  # no other chain uses them
        self._graph: Graph | None = None
        self._blocks: list[Block] = []
        try:
            self._inputs = self._block(key.input_layout(engines.label_type), gpu.integrated, memory)
            self._outputs = self._block(key.output_layout, gpu.integrated, memory)
            self._between = self._block(self._between_layout(), False, memory)
            self._noise = self._block(dict.fromkeys(self._drawn, (self._shape, np.float32)), False, memory)
            self._fixed = self._fixed_block(memory)
        except Exception:
            self.close()
            raise

    def play(
        self,
        x: np.ndarray | Draw,
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        """Return the states after every move, or only the last state: a new float32 [moves or 1, N, C, H, W].

        x: float32 [N, C, H, W] or a Draw, with N up to the batch size.
        noises: float32 [N, C, H, W] or a Draw for each noisy move, None for the others.
        labels: int64 [N] for a model with classes, else None.
        every: whether all states are returned.
        """
        self._run(x, noises, labels, every)
        states = self._downloaded_states() if every else self._downloaded("last")
        result = np.empty((len(states), len(x), *self._shape[1:]), np.float32)
        for index, state in enumerate(states):
            result[index] = state[: len(x)]
        return result

    def play_to_pixels(
        self, x: np.ndarray | Draw, noises: Sequence[np.ndarray | Draw | None], labels: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the last state as pixels, uint8 [N, C, H, W], and the sums of the unclipped images, [N].

        A sum is finite if the image is finite. The arguments are those of `play`.
        """
        self._run(x, noises, labels, every=False)
        pixels, total = self._downloaded("pixels", "total")
        return pixels[: len(x)].copy(), total[: len(x)].copy()

    def close(self) -> None:
        """Free the CUDA graph, the contexts and the memory. No work may be running."""
        if self._graph is not None:
            self._graph.close()
        self._contexts.close()
        for block in self._blocks:
            block.close()

    def _block(self, layout: Layout, mapped: bool, memory: DeviceMemory) -> Block:
        block = Block(mapped, memory, self._stream, layout)
        self._blocks.append(block)
        return block

    def _between_layout(self) -> Layout:
        image, moves = (self._shape, np.float32), range(len(self._moves))
        sums: Layout = {f"sum {i}": image for i in moves if self._adds_first(i)}
        states: Layout = {f"state {i}": image for i in moves[:-1]}
        return sums | states

    def _fixed_values(self) -> dict[str, float]:
        """Return array → the value that fills it.

        The arrays are the levels of each move, and zeros for moves without noise on the inverse engine,
        because its graph requires noise.
        """
        values: dict[str, float] = {}
        for i, move in enumerate(self._moves):
            values[f"t {i}"] = move.t
            values[f"u {i}"] = move.u
        for plan, noise in zip(self._plans, self._added, strict=True):
            if plan == "inverse" and not noise:
                values["no noise"] = 0.0
        return values

    def _fixed_block(self, memory: DeviceMemory) -> Block:
        values = self._fixed_values()
        shapes = {name: self._shape if name == "no noise" else self._shape[:1] for name in values}
        block = self._block({name: (shape, np.float32) for name, shape in shapes.items()}, False, memory)
        for name, value in values.items():
            block.fill(name, value)
        return block

    def _run(
        self,
        x: np.ndarray | Draw,
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> None:
        """Enqueue the whole schedule. every: whether the caller will read the states between moves."""
        self._fill_inputs(x, noises, labels)
        self._inputs.upload()
        if self.why_eager is None:
            self._record()
            if not every:
                self._between.drop_host()
        if self._graph is None:
            self._enqueue(self._stream)
        else:
            self._graph.launch(self._stream)

    def _fill_inputs(
        self,
        x: np.ndarray | Draw,
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
    ) -> None:
        """Write what the GPU does not draw to the arrays of the inputs."""
        arrays, drawn = self._inputs.arrays, self._drawn
        for name, noise in [("x", x), *((f"noise {i}", noise) for i, noise in enumerate(noises))]:
            if name in drawn:
                assert isinstance(noise, Draw)
                fill_up(arrays["seeds"], seed_array(noise.seeds))
            elif noise is not None:
                fill_up(arrays[name], values(noise))
        if labels is not None:
            fill_up(arrays["label"], labels)

    def _enqueue(self, stream: Stream) -> None:
        """Enqueue the draws, and every engine in turn. Each reads the result of the previous one."""
        count, handle = int(np.prod(self._shape[1:])), int(stream.handle)
        for name, noise in self._drawn.items():
            assert self._kernel is not None
            addresses = self._noise.address(name), self._inputs.address("seeds")
            self._kernel.launch(stream, *addresses, self._shape[0], count, noise.number, noise.sigma)
        x = self._source("x", self._start)
        for i, plan in enumerate(self._plans):
            if self._adds_first(i):
                total = self._between.address(f"sum {i}")
                noise = self._source(f"noise {i}", self._added[i])
                self._contexts.enqueue("add_noise", {"x": x, "noise": noise, "sum": total}, handle)
                x = total
            is_last = i == len(self._plans) - 1
            state = self._outputs.address("last") if is_last else self._between.address(f"state {i}")
            self._contexts.enqueue(plan, self._addresses(i, x, state), handle)
            x = state
        if self._pixels:
            addresses = {
                "x": x,
                "pixels": self._outputs.address("pixels"),
                "total": self._outputs.address("total"),
            }
            self._contexts.enqueue("to_uint8", addresses, handle)

    def _source(self, name: str, noise: Noise | bool | None) -> int:
        """Return the address of an array that the GPU draws, or that is an input."""
        return (self._noise if isinstance(noise, Noise) else self._inputs).address(name)

    def _addresses(self, index: int, x: int, state: int) -> dict[str, int]:
        """Return the addresses of the inputs and outputs of a move's engine, by name.

        x, state: the addresses of its input image and of its result.
        """
        addresses = {
            "x": x,
            "t": self._fixed.address(f"t {index}"),
            "u": self._fixed.address(f"u {index}"),
            "x_u": state,
        }
        if self._plans[index] == "inverse":
            if noise := self._added[index]:
                addresses["noise"] = self._source(f"noise {index}", noise)
            else:
                addresses["noise"] = self._fixed.address("no noise")
        if self._engines.label_type is not None:
            addresses["label"] = self._inputs.address("label")
        return addresses

    def _adds_first(self, index: int) -> bool:
        """Whether a separate engine adds the noise of a move.

        Only the inverse graph contains the addition.
        """
        return bool(self._added[index]) and self._plans[index] == "forward"

    def _record(self) -> None:
        """Record a CUDA graph, and compare its results with those of the engines for the inputs on the GPU.

        The engines are called once before the recording, which TensorRT requires.
        """
        self._enqueue(self._stream)
        expected = self._all_results()
        if not all(np.isfinite(array).all() for array in expected):
            return  # NaN cannot be compared; the next call tries again
        try:
            self._graph = record_graph(self._stream, self._enqueue)
            self.why_eager = self._difference(expected)
        except Exception as error:  # the errors of cuda-core have no common base class
            self.why_eager = f"no CUDA graph: {first_line(error)}"
        finally:
            if self.why_eager != "":
                self._discard_recording()

    def _difference(self, expected: Sequence[np.ndarray]) -> str:
        """Replay the CUDA graph, and return how its results differ from the expected ones, or ""."""
        assert self._graph is not None
        # Otherwise a graph that computes nothing would seem to be correct.
        for block in (self._noise, self._between, self._outputs):
            block.erase()
        self._graph.launch(self._stream)
        distance = replay_distance(self._all_results(), expected)
        if distance <= REPLAY_BOUND:
            return ""
        return f"the CUDA graph gave other images than its engines (relative L2 {distance:.1e})"

    def _discard_recording(self) -> None:
        """Wait for running work, and replace the contexts that were part of the recording."""
        self._stream.sync()
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        self._contexts.close()
        self._contexts = self._engines.contexts(self._shape[0])

    def _all_results(self) -> list[np.ndarray]:
        """Return copies of the images of all states, and of the pixels if they are computed."""
        arrays = self._downloaded_states()
        if self._pixels:
            arrays += self._downloaded("pixels")
        return [image.copy() for array in arrays for image in array]

    def _downloaded_states(self) -> list[np.ndarray]:
        """Return the states after every move, when all work on the GPU has ended.

        The next download overwrites them.
        """
        between = [f"state {i}" for i in range(len(self._moves) - 1)]
        if between:
            self._between.download(between[0], between[-1])
        return [*(self._between.arrays[name] for name in between), *self._downloaded("last")]

    def _downloaded(self, *names: str) -> list[np.ndarray]:
        """Return outputs, when all work on the GPU has ended. The next download overwrites them.

        names: in the order of `ChainKey.output_layout`, without gaps.
        """
        self._outputs.download(names[0], names[-1])
        self._stream.sync()
        return [self._outputs.arrays[name] for name in names]
