"""Memory, copies and CUDA graphs of a schedule on a real GPU. The engines are a few lines of torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bcm_edge.runtime.machine.gpu import Gpu
from bcm_edge.runtime.machine.installed import missing_tensorrt
from bcm_edge.runtime.pixels import to_uint8
from bcm_edge.runtime.schedule import Move, parse_schedule

SHAPE = (3, 2, 4, 4)
MOVES = parse_schedule("80>3>0.002 +0.12 0.12>0.4>0.002").moves
NOISY = (False, True, True, False)  # noise before a move in each direction


@pytest.fixture(scope="module")
def torch() -> ModuleType:
    """torch with CUDA."""
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip(f"torch {module.__version__} has no CUDA here")
    return module


@pytest.fixture(scope="module")
def device_chain(gpu: Gpu, cuda_core: None) -> Iterator[ModuleType]:
    """The module device_chain. Without TensorRT, a stub provides the two classes that its import needs."""
    absent = missing_tensorrt(gpu) is not None
    if absent:
        stub = ModuleType("tensorrt")
        vars(stub).update(ILogger=object, IErrorRecorder=object)
        sys.modules["tensorrt"] = stub
    yield importlib.import_module("bcm_edge.runtime.engines.device_chain")
    if absent:
        package = sys.modules["bcm_edge.runtime.engines"]
        for name in ("adapter", "device_chain", "graph_recording", "loaded", "messages"):
            sys.modules.pop(f"bcm_edge.runtime.engines.{name}", None)
            package.__dict__.pop(name, None)
        del sys.modules["tensorrt"]


class Arithmetic:
    """Replaces LoadedEngines and their contexts.

    A move towards the image computes x / 2 + u + label, a move towards the noise x + noise - t. Playing
    allocates no memory.
    """

    label_type = np.int64

    def __init__(self, torch: ModuleType, sync: bool = False) -> None:
        self._torch, self._sync = torch, sync
        self._scratch = torch.empty(SHAPE, device="cuda")
        self._tensors: dict[tuple[str, int], Any] = {}

    def contexts(self, batch: int) -> Arithmetic:
        """The contexts for a batch size."""
        assert batch == SHAPE[0]
        return self

    def plan_for(self, direction: str) -> str:
        """Each direction has its own engine."""
        return direction

    def close(self) -> None:
        """There is nothing to free."""

    def enqueue(self, name: str, addresses: Mapping[str, int], stream: int) -> None:
        """Put the work of an engine on a stream."""
        torch = self._torch
        at = {tensor: self._at(tensor, address) for tensor, address in addresses.items()}
        with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
            if name == "add_noise":
                torch.add(at["x"], at["noise"], out=at["sum"])
            elif name == "forward":
                torch.mul(at["x"], 0.5, out=at["x_u"]).add_(at["u"]).add_(at["label"])
            elif name == "inverse":
                torch.add(at["x"], at["noise"], out=at["x_u"]).sub_(at["t"])
            else:
                torch.clamp(at["x"], -1, 1, out=self._scratch).add_(1).mul_(127.5).round_()
                at["pixels"].copy_(self._scratch)
                at["total"].copy_(at["x"][:, :1, :1, :1])
            if self._sync and torch.cuda.is_current_stream_capturing():
                torch.cuda.synchronize()  # not allowed while recording

    def _at(self, tensor: str, address: int) -> Any:
        """The tensor at an address: an image, or one number per image, of shape [N, 1, 1, 1]."""
        if (tensor, address) not in self._tensors:
            kind = {"label": "<i8", "pixels": "|u1"}.get(tensor, "<f4")
            shape = (SHAPE[0], 1, 1, 1) if tensor in ("t", "u", "label", "total") else SHAPE
            interface = {"shape": shape, "typestr": kind, "data": (address, False), "version": 3}
            memory = type("Memory", (), {"__cuda_array_interface__": interface})
            self._tensors[tensor, address] = self._torch.as_tensor(memory(), device="cuda")
        return self._tensors[tensor, address]


def drawn(seed: int) -> tuple[np.ndarray, list[np.ndarray | None], np.ndarray]:
    """Return random x, noises and labels."""
    generator = np.random.default_rng(seed)
    x, *noises = (generator.normal(size=SHAPE).astype(np.float32) for _ in range(1 + len(MOVES)))
    return (
        x,
        [noise if noisy else None for noise, noisy in zip(noises, NOISY, strict=True)],
        generator.integers(0, 3, SHAPE[0]),
    )


def expected(
    x: np.ndarray, moves: Sequence[Move], noises: Sequence[np.ndarray | None], labels: np.ndarray
) -> np.ndarray:
    """The state after every move."""
    states = []
    for move, noise in zip(moves, noises, strict=True):
        x = x if noise is None else x + noise
        x = (
            x - np.float32(move.t)
            if move.graph == "inverse"
            else x / 2 + np.float32(move.u) + labels[:, None, None, None].astype(np.float32)
        )
        states.append(x)
    return np.stack(states)


@pytest.fixture
def stream(gpu: Gpu, cuda_core: None) -> Iterator[Any]:
    """A stream of cuda-core."""
    from cuda.core import Device

    device = Device(gpu.index)
    device.set_current()
    stream = device.create_stream()
    yield stream
    stream.sync()
    stream.close()


@pytest.fixture
def chain_on(gpu: Gpu, device_chain: ModuleType, stream: Any) -> Iterator[Callable[..., Any]]:
    """chain_on(engines, pixels=False) returns a chain of MOVES, which is closed after the test."""
    from cuda.core import Device

    from bcm_edge.runtime.engines.memory import DeviceMemory

    memory = DeviceMemory(Device(gpu.index))
    chains = []

    def make(engines: Arithmetic, pixels: bool = False) -> Any:
        key = device_chain.ChainKey(tuple(MOVES), None, tuple(NOISY), SHAPE, pixels)
        chains.append(device_chain.DeviceChain(engines, gpu, memory, stream, key, None))
        return chains[-1]

    yield make
    stream.sync()
    for chain in chains:
        chain.close()
    stream.sync()
    if memory._pool is not None:
        assert memory._pool.attributes.used_mem_current == 0
    memory.close()


def test_schedule_is_replayed_as_one_cuda_graph(torch: ModuleType, chain_on: Callable[..., Any]) -> None:
    chain = chain_on(Arithmetic(torch))
    for seed in range(3):  # recorded on the first, replayed on the others
        x, noises, labels = drawn(seed)
        states = chain.play(x, noises, labels, every=True)
        np.testing.assert_allclose(states, expected(x, MOVES, noises, labels), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            chain.play(x, noises, labels, every=False), states[-1:], rtol=1e-5, atol=1e-5
        )
    assert chain.why_eager == ""


def test_smaller_batches_are_padded(torch: ModuleType, chain_on: Callable[..., Any]) -> None:
    chain = chain_on(Arithmetic(torch))
    for n in (3, 2, 1):
        x, noises, labels = drawn(n)
        x, labels = x[:n], labels[:n]
        noises = [None if noise is None else noise[:n] for noise in noises]
        states = chain.play(x, noises, labels, every=True)
        assert states.shape == (len(MOVES), n, *SHAPE[1:])
        np.testing.assert_allclose(states, expected(x, MOVES, noises, labels), rtol=1e-5, atol=1e-5)
    assert chain.why_eager == ""


def test_pixels_are_computed_on_the_device(torch: ModuleType, chain_on: Callable[..., Any]) -> None:
    chain = chain_on(Arithmetic(torch), pixels=True)
    for seed in range(2):
        x, noises, labels = drawn(seed)
        pixels, total = chain.play_to_pixels(x, noises, labels)
        floats = expected(x, MOVES, noises, labels)[-1]
        assert pixels.dtype == np.uint8
        assert np.abs(pixels.astype(int) - to_uint8(floats)).max() <= 1
        assert np.isfinite(total).all()


def test_chain_that_cannot_be_recorded_runs_move_by_move(
    torch: ModuleType, chain_on: Callable[..., Any]
) -> None:
    chain = chain_on(Arithmetic(torch, sync=True))
    for seed in range(2):
        x, noises, labels = drawn(seed)
        states = chain.play(x, noises, labels, every=True)
        np.testing.assert_allclose(states, expected(x, MOVES, noises, labels), rtol=1e-5, atol=1e-5)
    assert chain.why_eager.startswith("no CUDA graph: ")


def test_memory_without_a_pool(gpu: Gpu, stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocations on integrated GPUs, which have no memory pools."""
    from cuda.core import Device

    from bcm_edge.runtime.engines.memory import Block, DeviceMemory

    memory = DeviceMemory(Device(gpu.index))
    monkeypatch.setattr(memory, "_pool", None)
    block = Block(False, memory, stream, {"x": ((4, 5), np.float32), "t": ((4,), np.float32)})
    block.fill("x", 2.5)
    block.fill("t", -1)
    block.download("x", "t")
    stream.sync()
    assert (block.arrays["x"] == 2.5).all() and (block.arrays["t"] == -1).all()
    block.erase()
    block.download("x", "t")
    stream.sync()
    assert np.isnan(block.arrays["x"]).all() and np.isnan(block.arrays["t"]).all()
    block.close()
    memory.close()
