"""The kernel that draws noise, on a real GPU: the numbers of the processor, in a CUDA graph too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bcm_edge.runtime.engines import noise_kernel
from bcm_edge.runtime.machine.gpu import Gpu
from bcm_edge.runtime.noise import START_DRAW, VARIATION_DRAW, Draw, standard_normal


class Drawing:
    """The kernel with its stream and memory."""

    def __init__(self, gpu: Gpu) -> None:
        from cuda.core import Device

        from bcm_edge.runtime.engines.memory import DeviceMemory

        device = Device(gpu.index)
        device.set_current()
        self.stream = device.create_stream()
        self.memory = DeviceMemory(device)
        self.kernel, reason = noise_kernel.load_kernel(gpu, device, self.memory, self.stream)
        assert reason == ""

    def close(self) -> None:
        """Free everything."""
        self.stream.sync()
        self.memory.close()
        self.stream.close()


@pytest.fixture
def drawing(gpu: Gpu, cuda_core: None) -> Iterator[Drawing]:
    """The kernel, on a GPU and a driver that it was compiled for."""
    if reason := noise_kernel.why_unavailable(gpu):
        pytest.skip(reason)
    drawing = Drawing(gpu)
    yield drawing
    drawing.close()


@pytest.mark.parametrize("number", [START_DRAW, VARIATION_DRAW + 3])
def test_numbers_are_those_of_the_processor(drawing: Drawing, number: int) -> None:
    assert drawing.kernel is not None
    draw = Draw((*range(255), 2**64 - 1), (3, 64, 64), number, 1.0)
    noise = noise_kernel.drawn(drawing.kernel, draw, drawing.memory, drawing.stream)
    expected = draw.values()
    places = np.abs(noise.astype(np.float64) - expected) / np.spacing(np.abs(expected))
    print(f"{(noise != expected).sum()} of {noise.size} numbers differ, by {places.max():.2g} roundings")
    assert places.max() <= 1 and (noise != expected).mean() <= 1e-6


@pytest.mark.parametrize("count", [1, 7, 63, 1131])
def test_odd_numbers_of_values(drawing: Drawing, count: int) -> None:
    assert drawing.kernel is not None
    draw = Draw((5, 6), (1, 1, count), 1, 80.0)
    noise = noise_kernel.drawn(drawing.kernel, draw, drawing.memory, drawing.stream)
    np.testing.assert_allclose(noise, draw.values(), rtol=3e-7)


def test_cuda_graph_draws_for_the_seeds_of_each_launch(drawing: Drawing) -> None:
    from bcm_edge.runtime.engines.graph_recording import record_graph
    from bcm_edge.runtime.engines.memory import Block

    rows, count, kernel = 16, 12288, drawing.kernel
    assert kernel is not None
    layout = {"seeds": ((rows,), np.uint64), **{f"z{i}": ((rows, count), np.float32) for i in (1, 2)}}
    block = Block(False, drawing.memory, drawing.stream, layout)

    def enqueue(stream: Any) -> None:
        for number in (1, 2):
            out, seeds = block.address(f"z{number}"), block.address("seeds")
            kernel.launch(stream, out, seeds, rows, count, number, 0.5)

    graph = record_graph(drawing.stream, enqueue)
    for first in (0, 100):
        block.arrays["seeds"][:] = range(first, first + rows)
        block.upload()
        started = time.perf_counter()
        graph.launch(drawing.stream)
        drawing.stream.sync()
        seconds = time.perf_counter() - started
        block.download("z1", "z2")
        drawing.stream.sync()
        for number in (1, 2):
            expected = np.float32(0.5) * standard_normal(range(first, first + rows), (count,), number)
            np.testing.assert_allclose(block.arrays[f"z{number}"], expected, rtol=3e-7)
        print(f"two draws for {rows} images: {1e3 * seconds:.3f} ms")
    graph.close()
    block.close()


def test_time_of_a_large_batch(drawing: Drawing) -> None:
    """Prints the times of 256 images of ImageNet-64 on this GPU and on its host."""
    from bcm_edge.runtime.engines.memory import Block

    rows, count, kernel = 256, 12288, drawing.kernel
    assert kernel is not None
    layout = {"seeds": ((rows,), np.uint64), "noise": ((rows, count), np.float32)}
    block = Block(False, drawing.memory, drawing.stream, layout)
    block.arrays["seeds"][:] = range(rows)
    block.upload()
    drawing.stream.sync()
    started = time.perf_counter()
    kernel.launch(drawing.stream, block.address("noise"), block.address("seeds"), rows, count, 1, 1.0)
    drawing.stream.sync()
    on_gpu = time.perf_counter() - started
    block.close()
    started = time.perf_counter()
    standard_normal(range(rows), (count,), 1)
    on_host = time.perf_counter() - started
    print(f"a draw for {rows} images: {1e3 * on_gpu:.2f} ms here, {1e3 * on_host:.0f} ms on the processor")
