"""Play schedules in a session of ONNX Runtime. All states stay on the GPU.

There are two buffers for states. A move reads one and writes the other, the next move reads that one. So a
session is always called with one of two bindings, and needs two CUDA graphs at a batch size. Everything that
a CUDA graph reads lies at fixed addresses on the GPU, and is written there before each move.

A CUDA graph is used only if its result for the first images equals that of an ordinary run, and if it reads
its inputs anew. Otherwise the session always runs without CUDA graphs, and `why_eager` contains the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..accuracy import REPLAY_BOUND, replay_distance
from ..engines.graph_recording import no_garbage_collection
from ..engines.memory import Block, DeviceMemory, Layout, fill_up
from ..engines.noise_kernel import NoiseKernel, seed_array
from ..noise import Draw, values
from ..schedule import Move
from ..wording import first_line

if TYPE_CHECKING:
    import onnxruntime
    from cuda.core import Stream

# The number of a run without a CUDA graph.
NO_GRAPH = -1
# So many runs with a new number end with a recorded CUDA graph. ONNX Runtime records the first or the
# second run after one or two ordinary runs, by version. Some versions do all of this in one call.
RUNS_TO_RECORD = 4


class SessionChain:
    """The buffers of one batch size. It plays any schedule.

    A smaller number of images is filled up with repetitions, which are not returned. One thread must make all
    calls: ONNX Runtime keeps CUDA graphs for the thread that recorded them.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        device: int,
        memory: DeviceMemory,
        stream: Stream,
        kernel: NoiseKernel | None,
        shape: tuple[int, int, int, int],
        num_classes: int | None,
        graph_option: str | None,
        first_graph: int,
    ) -> None:
        """Allocate the memory.

        session: of the inverse graph, which computes moves in both directions.
        device: the number of the GPU.
        kernel: draws noise on the GPU. None: it is drawn on the host.
        shape: (batch size, C, H, W).
        graph_option: the run option whose value is the number of a CUDA graph. None: none are recorded.
        first_graph: the first number of two, which no other chain of the session has ever used.
        """
        self.why_eager: str | None = None  # why CUDA graphs are not used, although the provider has them
        self._session, self._stream, self._kernel = session, stream, kernel
        self._shape, self._num_classes = shape, num_classes
        self._graph_option, self._graph_ids = graph_option, (first_graph, first_graph + 1)
        self._proven: set[int] = set()  # the buffers whose CUDA graph is used
        self._blocks: list[Block] = []
        try:
            image: Layout = {"image": (shape, np.float32)}
            self._states = [self._block(image, memory), self._block(image, memory)]
            self._noise = self._block(image, memory)
            self._levels = self._block({"t": (shape[:1], np.float32), "u": (shape[:1], np.float32)}, memory)
            self._labels = self._block({"label": (shape[:1], np.int64)}, memory)
            self._seeds = self._block({"seeds": (shape[:1], np.uint64)}, memory)
            self._bindings = [self._binding(device, source) for source in (0, 1)]
        except Exception:
            self.close()
            raise

    def play(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        """Return the states after every move, or only the last state: a new float32 [moves or 1, N, C, H, W].

        The arguments are those of `DeviceBackend.play_moves`.
        """
        n, source = len(x), 0
        self._write_images(self._states[source], x)
        if labels is not None:
            self._write(self._labels, "label", labels)
        states = []
        for index, (move, noise) in enumerate(zip(moves, noises, strict=True)):
            self._write_levels(move.t, move.u)
            if noise is None:
                self._noise.fill("image", 0.0)
            else:
                self._write_images(self._noise, noise)
            self._run(source, move)
            source = 1 - source
            if every or index == len(moves) - 1:
                states.append(self._downloaded(self._states[source])[:n].copy())
        return np.stack(states)

    def close(self) -> None:
        """Free the memory, and the CUDA graphs if this ONNX Runtime can. No work may be running."""
        if hasattr(self._session, "release_captured_graph"):
            for source in self._proven:
                self._session.release_captured_graph(self._graph_ids[source])
        for block in self._blocks:
            block.close()
        self._blocks = []

    def _block(self, layout: Layout, memory: DeviceMemory) -> Block:
        block = Block(False, memory, self._stream, layout)
        self._blocks.append(block)
        return block

    def _binding(self, device: int, source: int) -> onnxruntime.IOBinding:
        """Bind the inputs and the output of the session. source: the state that is read, 0 or 1."""
        binding = self._session.io_binding()
        inputs = {
            "x": (self._states[source], "image", np.float32, self._shape),
            "noise": (self._noise, "image", np.float32, self._shape),
            "t": (self._levels, "t", np.float32, self._shape[:1]),
            "u": (self._levels, "u", np.float32, self._shape[:1]),
        }
        if self._num_classes is not None:
            inputs["label"] = (self._labels, "label", np.int64, self._shape[:1])
        for name, (block, array, dtype, shape) in inputs.items():
            binding.bind_input(name, "cuda", device, dtype, list(shape), block.address(array))
        target = self._states[1 - source].address("image")
        binding.bind_output("x_u", "cuda", device, np.float32, list(self._shape), target)
        return binding

    def _write_levels(self, t: float, u: float) -> None:
        """Write the levels of a move to the GPU, in stream order."""
        self._levels.fill("t", t)
        self._levels.fill("u", u)

    def _write_images(self, block: Block, images: np.ndarray | Draw) -> None:
        """Write images to the GPU, in stream order. The GPU draws noise itself if it can."""
        if isinstance(images, Draw) and self._kernel is not None:
            self._write(self._seeds, "seeds", seed_array(images.seeds))
            rows, *sample = self._shape
            addresses = block.address("image"), self._seeds.address("seeds")
            count = int(np.prod(sample))
            self._kernel.launch(self._stream, *addresses, rows, count, images.number, images.sigma)
        else:
            self._write(block, "image", values(images))

    def _write(self, block: Block, name: str, array: np.ndarray) -> None:
        """Write the only array of a block to the GPU, in stream order."""
        self._stream.sync()  # an earlier copy may still read the array on the host
        fill_up(block.arrays[name], array)
        block.upload()

    def _downloaded(self, block: Block) -> np.ndarray:
        """Return images, when all work on the GPU has ended. The next download or upload overwrites them."""
        block.download("image", "image")
        self._stream.sync()
        return block.arrays["image"]

    def _run(self, source: int, move: Move) -> None:
        """Enqueue one move from one state to the other."""
        if self._graph_option is None or self.why_eager:
            self._start(source, NO_GRAPH)
        elif source in self._proven:
            self._start(source, self._graph_ids[source])
        else:
            self._record(source, move)

    def _start(self, source: int, graph_id: int) -> None:
        """Enqueue the session. With the number of a recorded CUDA graph, the graph is launched."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.log_severity_level = 4
        # The work is in stream order, so a run need not wait for it.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self._graph_option:
            options.add_run_config_entry(self._graph_option, str(graph_id))
        self._session.run_with_iobinding(self._bindings[source], options)

    def _record(self, source: int, move: Move) -> None:
        """Run a move, record its CUDA graph, and compare the results. Its result is in its buffer afterwards.

        The CUDA graph is recorded with other inputs. So a graph that contains them gives other results.
        """
        target = self._states[1 - source]
        self._start(source, NO_GRAPH)
        expected = self._downloaded(target).copy()
        if not np.isfinite(expected).all():
            return  # NaN cannot be compared; the next move tries again
        inputs = [self._states[source], self._noise]
        for block in inputs:
            self._downloaded(block)  # it stays on the host, and is uploaded again
        labels = self._labels.arrays["label"].copy()
        try:
            self._write_other_inputs(inputs, move)
            with no_garbage_collection():
                for _ in range(RUNS_TO_RECORD):
                    self._start(source, self._graph_ids[source])
            self._write_inputs_again(inputs, move, labels)
            target.erase()  # otherwise a graph that computes nothing would seem to be correct
            self._start(source, self._graph_ids[source])
            distance = replay_distance([self._downloaded(target)], [expected])
            if not distance <= REPLAY_BOUND:
                self.why_eager = f"they gave other images than the session (relative L2 {distance:.1e})"
        except Exception as error:  # the errors of the libraries have no common base class
            self.why_eager = f"recording failed: {first_line(error)}"
        if self.why_eager is None:
            self._proven.add(source)
            return
        self._write_inputs_again(inputs, move, labels)
        self._start(source, NO_GRAPH)

    def _write_other_inputs(self, images: Sequence[Block], move: Move) -> None:
        """Write inputs to the GPU that all differ from those of the move."""
        for block in images:
            block.fill("image", 0.5)
        self._write_levels(move.u, move.t)
        if self._num_classes is not None:
            self._write(self._labels, "label", (self._labels.arrays["label"] + 1) % self._num_classes)

    def _write_inputs_again(self, images: Sequence[Block], move: Move, labels: np.ndarray) -> None:
        """Undo `_write_other_inputs`. images: their arrays on the host contain the inputs of the move."""
        for block in images:
            block.upload()
        self._write_levels(move.t, move.u)
        self._write(self._labels, "label", labels)
