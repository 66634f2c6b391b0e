"""A whole schedule on the GPU: inputs go up once, every move and every injection is computed there, and the result comes down once.

What the engines do for one schedule and batch size is recorded as one CUDA graph. A recording is trusted only after it has given, on the
first images that came, what the same engines gave when called one by one; otherwise they go on being called, and `why_eager` says why.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from cuda.core import Stream
from cuda.core.graph import Graph

from ..accuracy import relative_l2
from ..machine.gpu import Gpu
from ..schedule import Move
from ..wording import first_line
from .loaded import LoadedEngines
from .memory import Block, DeviceMemory, Layout

REPLAY_BOUND = (
    1e-3  # relative L2 between two runs of the same kernels: some add in whatever order they finish
)


class DeviceChain:
    """The moves of one schedule at one batch size. Fewer images are filled up with repetitions, which are not returned.

    noisy: which moves have noise added to their input; shape: (batch size, C, H, W); pixels: whether the last state is converted to
    pixels as well.
    """

    def __init__(
        self,
        engines: LoadedEngines,
        gpu: Gpu,
        memory: DeviceMemory,
        stream: Stream,
        moves: Sequence[Move],
        noisy: Sequence[bool],
        shape: tuple[int, int, int, int],
        pixels: bool,
    ) -> None:
        self.why_eager: str | None = None  # "" once there is a recording, None while none was tried
        self._engines, self._stream = engines, stream
        self._moves, self._noisy, self._shape, self._pixels = list(moves), list(noisy), shape, pixels
        self._contexts = engines.contexts(shape[0])  # of this chain alone, as its CUDA graph is
        self._graph: Graph | None = None
        self._blocks: list[Block] = []
        try:
            self._inputs = self._block(self._input_layout(), gpu.integrated, memory)
            self._outputs = self._block(self._output_layout(), gpu.integrated, memory)
            self._between = self._block(self._between_layout(), False, memory)
            self._fixed = self._fixed_block(memory)
        except Exception:
            self.close()
            raise

    def play(
        self, x: np.ndarray, noises: Sequence[np.ndarray | None], labels: np.ndarray | None, every: bool
    ) -> np.ndarray:
        """The states after every move, or after the last alone: a new float32 [moves or 1, N, C, H, W], N up to the batch size."""
        self._run(x, noises, labels, every)
        states = self._downloaded_states() if every else self._downloaded("last")
        result = np.empty((len(states), *x.shape), np.float32)
        for index, state in enumerate(states):
            result[index] = state[: len(x)]
        return result

    def play_to_pixels(
        self, x: np.ndarray, noises: Sequence[np.ndarray | None], labels: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The last state as pixels, uint8 [N, C, H, W], and the sum of each image before clipping: it is finite if the image is."""
        self._run(x, noises, labels, every=False)
        pixels, total = self._downloaded("pixels", "total")
        return pixels[: len(x)].copy(), total[: len(x)].copy()

    def close(self) -> None:
        """Free graph, contexts and memory. Nothing may be under way."""
        if self._graph is not None:
            self._graph.close()
        self._contexts.close()
        for block in self._blocks:
            block.close()

    def _block(self, layout: Layout, mapped: bool, memory: DeviceMemory) -> Block:
        block = Block(mapped, memory, self._stream, layout)
        self._blocks.append(block)
        return block

    def _input_layout(self) -> Layout:
        image = (self._shape, np.float32)
        layout: Layout = {
            "x": image,
            **{f"noise {i}": image for i, is_noisy in enumerate(self._noisy) if is_noisy},
        }
        if self._engines.label_type is not None:
            layout["label"] = (self._shape[:1], self._engines.label_type)
        return layout

    def _output_layout(self) -> Layout:
        layout: Layout = {"last": (self._shape, np.float32)}
        if self._pixels:
            layout |= {"pixels": (self._shape, np.uint8), "total": (self._shape[:1], np.float32)}
        return layout

    def _between_layout(self) -> Layout:
        image, moves = (self._shape, np.float32), range(len(self._moves))
        sums: Layout = {f"sum {i}": image for i in moves if self._adds_first(i)}
        return {**sums, **{f"state {i}": image for i in moves[:-1]}}

    def _fixed_values(self) -> dict[str, float]:
        """Array → the value that fills it: the levels of each move, and noise of zero where a graph wants some and there is none."""
        values = {
            f"{level} {i}": getattr(move, level) for i, move in enumerate(self._moves) for level in "tu"
        }
        if any(
            move.graph == "inverse" and not noisy
            for move, noisy in zip(self._moves, self._noisy, strict=True)
        ):
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
        x: np.ndarray,
        noises: Sequence[np.ndarray | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> None:
        """Enqueue the whole schedule. every: whether the states between moves are read afterwards."""
        arrays = self._inputs.arrays
        _fill_up(arrays["x"], x)
        for i, noise in enumerate(noises):
            if noise is not None:
                _fill_up(arrays[f"noise {i}"], noise)
        if labels is not None:
            _fill_up(arrays["label"], labels)
        self._inputs.upload()
        if self.why_eager is None:
            self._record()
            if not every:
                self._between.drop_host()
        if self._graph is None:
            self._enqueue(int(self._stream.handle))
        else:
            self._graph.launch(self._stream)

    def _enqueue(self, stream: int) -> None:
        """Every engine in turn, each reading what the one before wrote."""
        x = self._inputs.address("x")
        for i, move in enumerate(self._moves):
            if self._adds_first(i):
                total = self._between.address(f"sum {i}")
                noise = self._inputs.address(f"noise {i}")
                self._contexts.enqueue("add_noise", {"x": x, "noise": noise, "sum": total}, stream)
                x = total
            is_last = i == len(self._moves) - 1
            state = self._outputs.address("last") if is_last else self._between.address(f"state {i}")
            self._contexts.enqueue(move.graph, self._addresses(i, x, state), stream)
            x = state
        if self._pixels:
            addresses = {
                "x": x,
                "pixels": self._outputs.address("pixels"),
                "total": self._outputs.address("total"),
            }
            self._contexts.enqueue("to_uint8", addresses, stream)

    def _addresses(self, index: int, x: int, state: int) -> dict[str, int]:
        """What the engine of a move reads and writes. x, state: the addresses of its image and of its result."""
        addresses = {
            "x": x,
            "t": self._fixed.address(f"t {index}"),
            "u": self._fixed.address(f"u {index}"),
            "x_u": state,
        }
        if self._moves[index].graph == "inverse":
            noisy = self._noisy[index]
            addresses["noise"] = (
                self._inputs.address(f"noise {index}") if noisy else self._fixed.address("no noise")
            )
        if self._engines.label_type is not None:
            addresses["label"] = self._inputs.address("label")
        return addresses

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
            self._graph = self._capture()
            self.why_eager = self._difference(expected)
        except (
            Exception
        ) as error:  # cuda-core's errors share no base class; what cannot be recorded can still be called
            self.why_eager = f"no CUDA graph: {first_line(error)}"
        finally:
            if self.why_eager != "":
                self._discard_recording()

    def _difference(self, expected: Sequence[np.ndarray]) -> str:
        """Replay the recording, and say how its images differ from the expected ones; "" if they do not."""
        assert self._graph is not None
        self._between.erase()  # or a graph that does nothing would look right
        self._outputs.erase()
        self._graph.launch(self._stream)
        distance = max(map(_distance, self._everything(), expected))
        if distance <= REPLAY_BOUND:
            return ""
        return f"the CUDA graph gave other images than its engines (relative L2 {distance:.1e})"

    def _discard_recording(self) -> None:
        """Wait for what is under way, and replace the contexts that took part in the recording by new ones."""
        self._stream.sync()
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        self._contexts.close()
        self._contexts = self._engines.contexts(self._shape[0])

    def _capture(self) -> Graph:
        builder = self._stream.create_graph_builder()
        try:
            with _no_garbage_collection():
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
        """Copies of all states, and of pixels where they are made, image by image."""
        arrays = [*self._downloaded_states(), *(self._downloaded("pixels") if self._pixels else [])]
        return [image.copy() for array in arrays for image in array]

    def _downloaded_states(self) -> list[np.ndarray]:
        """The states after every move, once all that was asked of the GPU is done. They are overwritten by the next download."""
        between = [f"state {i}" for i in range(len(self._moves) - 1)]
        if between:
            self._between.download(between[0], between[-1])
        return [*(self._between.arrays[name] for name in between), *self._downloaded("last")]

    def _downloaded(self, *names: str) -> list[np.ndarray]:
        """Outputs, once all that was asked of the GPU is done. They are overwritten by the next download."""
        self._outputs.download(names[0], names[-1])
        self._stream.sync()
        return [self._outputs.arrays[name] for name in names]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection during a recording could free GPU memory of dropped objects, which no recording allows."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _fill_up(target: np.ndarray, values: np.ndarray) -> None:
    """Write values to the first rows of target, and repeat them in the rest."""
    target[: len(values)] = values
    missing = len(target) - len(values)
    if missing:
        target[len(values) :] = values[np.arange(missing) % len(values)]


def _distance(image: np.ndarray, expected: np.ndarray) -> float:
    return relative_l2(image.astype(np.float64), expected.astype(np.float64))
