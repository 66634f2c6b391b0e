"""The player and the inputs of benchmarks/gpu.py on the CPU: torch agrees with the chain."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gpu_figures import players, results, variants, work
from networks import random_model
from torch._dynamo.testing import CompileCounter

from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint
from bcm_edge.model.player import TorchBackend
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.batches import Batch
from bcm_edge.runtime.chain import play
from bcm_edge.runtime.checks import benchmark
from bcm_edge.runtime.noise import Draw, values
from bcm_edge.runtime.schedule import DEFAULT_SCHEDULES, Schedule, parse_schedule

NAMES = ("one-step", "mixture-4", "invert-2")
RENOISED = parse_schedule("80>2.4 +1 1>0.002")  # adds noise before a move whose graph does not add it
PROGRAMS = [*(parse_schedule(DEFAULT_SCHEDULES[name]) for name in NAMES), RENOISED]


def chain_and_inputs(program: Schedule, n: int) -> tuple[Any, np.ndarray, tuple[Any, ...]]:
    """Return the digits model, the last state of the chain on torch, and the inputs of a player for it."""
    model = load_checkpoint(shipped_checkpoint()).model()
    inputs = work.drawn(*work.inputs_of(program, n, model.config))
    image = inputs[0] if program.from_image else None
    return model, play(program, TorchBackend(model), Batch(range(n), inputs[3]), image), inputs


class Recorder(NullBackend):
    """A device that records the arguments of play_moves."""

    files, max_batch, draws = {}, 64, False
    arguments: tuple[Any, ...] = ()

    def play_moves(self, x: Any, moves: Any, noises: Any, labels: Any, every: bool) -> np.ndarray:
        drawn = [None if noise is None else values(noise) for noise in noises]
        self.arguments = (values(x), moves, drawn, labels)
        return np.zeros((1, len(x), *self.sample_shape), np.float32)

    def play_to_pixels(self, *_: Any) -> Any: ...


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_those_of_the_chain_for_a_device(name: str):
    program, device = parse_schedule(DEFAULT_SCHEDULES[name]), Recorder((3, 8, 8), 10)
    benchmark.player(device, program, 3)()
    config = SimpleNamespace(sample_shape=(3, 8, 8), num_classes=10)
    x, moves, noises, labels = work.drawn(*work.inputs_of(program, 3, config))
    np.testing.assert_array_equal(x, device.arguments[0])
    assert moves == device.arguments[1]
    for noise, expected in zip(noises, device.arguments[2], strict=True):
        assert noise is expected is None or np.array_equal(noise, expected)
    np.testing.assert_array_equal(labels, device.arguments[3])


@pytest.mark.parametrize("variant", [results.TENSORRT, results.NOISE_ON_GPU, results.NOISE_ON_HOST])
def test_noise_is_drawn_by_the_device_in_one_variant(variant: str):
    class Device(NullBackend):
        def play_moves(self, x: Any, moves: Any, noises: Any, labels: Any, every: bool) -> np.ndarray:
            return np.array([isinstance(noise, Draw) for noise in (x, *noises) if noise is not None])

    config = SimpleNamespace(sample_shape=(3, 8, 8), num_classes=10)
    inputs = work.inputs_of(RENOISED, 3, config)
    on_device = variants.run_of(variant, Device((3, 8, 8), 10), inputs)()
    assert on_device.tolist() == [variant == results.NOISE_ON_GPU] * 2


def test_state_in_parts_is_that_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch):
    model = random_model()
    player, inputs = players.TorchPlayer(model, "cpu"), work.drawn(*work.inputs_of(RENOISED, 5, model.config))
    whole = player.play_moves(*inputs, every=False)[-1]
    monkeypatch.setattr(work, "PART", 2)
    assert work.distance(work.in_parts(player, *inputs), whole) < 1e-6


def test_relative_distance():
    assert work.distance(np.array([[3.0, 0.0]]), np.array([[3.0, 4.0]])) == pytest.approx(0.8)


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_torch_player_gives_the_state_of_the_chain(program: Schedule):
    model, state, inputs = chain_and_inputs(program, 3)
    player = players.TorchPlayer(model, "cpu")
    assert work.distance(player.play_moves(*inputs, every=False)[-1], state) < 1e-6
    half = players.TorchPlayer(players.rounded(model, torch.float16), "cpu").play_moves(*inputs, every=False)
    assert (half.shape, half.dtype) == ((1, 3, 1, 8, 8), np.float32)
    assert 1e-5 < work.distance(half[-1], state) < 5e-3


def test_rounded_network_keeps_float32_sinusoids_and_the_original():
    model = random_model()
    half = players.rounded(model, torch.float16)
    assert {p.dtype for p in half.network.parameters()} == {torch.float16}
    assert half.network.embedding.frequencies.dtype == torch.float32
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    assert half.network.out[2].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_compiled_network_is_one_graph_for_all_moves(monkeypatch: pytest.MonkeyPatch):
    counter, compile_model = CompileCounter(), torch.compile
    requested: list[dict[str, Any]] = []
    torch._dynamo.reset()

    def compile_with(model: Any, **options: Any) -> Any:
        requested.append(options)
        fullgraph, dynamic = options["fullgraph"], options["dynamic"]
        return compile_model(model, backend=counter, fullgraph=fullgraph, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compile_with)
    model, state, inputs = chain_and_inputs(PROGRAMS[1], 2)
    player = players.TorchPlayer(players.rounded(model, torch.float16), "cpu", compiled=True)
    for _ in range(2):
        assert work.distance(player.play_moves(*inputs, every=False)[-1], state) < 5e-3
    assert requested == [{"mode": "max-autotune", "fullgraph": True, "dynamic": False}]
    assert counter.frame_count == 1
