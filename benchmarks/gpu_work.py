"""What benchmarks/gpu.py runs and times: inputs, the matrix product, and TensorRT's launches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

PART = 16  # images per call in float32

Inputs = tuple[Any, Any, Any, Any]  # x, moves, noises, labels: the arguments of play_moves


def inputs_of(program: Any, batch: int, config: Any) -> Inputs:
    """Return what the chain passes to a device, for the images that runtime/checks/benchmark.py plays.

    Noise is not drawn yet (Draw in runtime/noise.py).
    """
    import numpy as np

    from bcm_edge.runtime import chain
    from bcm_edge.runtime.backends.null import NullBackend
    from bcm_edge.runtime.noise import START_DRAW, standard_normal

    seeds, shape = list(range(batch)), NullBackend(config.sample_shape, config.num_classes)
    start = chain.start_state(program, shape, seeds) if not program.from_image else None
    if start is None:
        start = np.tanh(standard_normal(seeds, config.sample_shape, START_DRAW))
    labels = None if config.num_classes is None else np.arange(batch) % config.num_classes
    return start, program.moves, chain.injected_noises(program, shape, seeds), labels


def drawn(x: Any, moves: Any, noises: Any, labels: Any) -> Inputs:
    """Return the inputs with their noise, drawn on the host."""
    from bcm_edge.runtime.noise import values

    return values(x), moves, [None if noise is None else values(noise) for noise in noises], labels


def in_parts(player: Any, x: Any, moves: Any, noises: Any, labels: Any) -> Any:
    """Return the last state, computed for PART images at a time. Each image has its own noise."""
    import numpy as np

    from bcm_edge.runtime.batches import slices

    states = []
    for part in slices(len(x), PART):
        own_noises = [None if noise is None else noise[part] for noise in noises]
        own_labels = None if labels is None else labels[part]
        states.append(player.play_moves(x[part], moves, own_noises, own_labels, every=False)[-1])
    return np.concatenate(states)


def distance(state: Any, truth: Any) -> float:
    """Return the relative L2 distance, computed in float64."""
    import numpy as np

    from bcm_edge.runtime.accuracy import relative_l2

    return relative_l2(state.astype(np.float64), truth.astype(np.float64))


class Timed:
    """Work on a CUDA stream (None: torch's current one), timed with events. `ms`: the time of each run.

    The work runs once before the first event, so that the GPU does not wait for the host between the events.
    """

    def __init__(self, work: Callable[[], object], stream: Any = None) -> None:
        self._work, self._stream = work, stream
        self.ms: list[float] = []

    def __call__(self) -> None:
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._work()
        start.record(self._stream)
        self._work()
        end.record(self._stream)
        end.synchronize()
        self.ms.append(start.elapsed_time(end))


def matrix_product(size: int) -> Timed:
    """Return the timed product of two random fp16 matrices with `size` rows and columns."""
    import torch

    a, b, out = (torch.randn(size, size, dtype=torch.float16, device="cuda") for _ in range(3))
    return Timed(partial(torch.matmul, a, b, out=out))


def product_tflops(size: int, ms: float) -> float:
    """Return the TFLOP/s of a matrix product that takes `ms`."""
    return 2 * size**3 / ms / 1e9


def engine_launches(backend: Any, x: Any, moves: Any, noises: Any, labels: Any) -> list[Timed]:
    """Return the timed launches of the TensorRT backend, without copies: each move alone, then all."""
    import torch

    stream = torch.cuda.ExternalStream(int(backend._stream.handle))

    def schedules() -> Iterator[tuple[Any, Any]]:
        for move, noise in zip(moves, noises, strict=True):
            yield [move], [noise]
        yield moves, noises

    launches = []
    for own_moves, own_noises in schedules():
        backend.play_moves(x, own_moves, own_noises, labels, every=False)  # uploads, and records a graph
        key = backend._key(x, own_moves, own_noises, pixels=False)
        with backend._turn(key, len(own_moves), len(x)) as chain:
            enqueue = chain._enqueue if chain._graph is None else chain._graph.launch
            launches.append(Timed(partial(enqueue, backend._stream), stream))
    return launches


def say(line: str) -> None:
    """Print a line of progress on standard error, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
