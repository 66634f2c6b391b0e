"""Every backend on a GPU, in every precision that it plays, on the digits model.

They agree with ONNX Runtime on the CPU, replay what they recorded with new images, and free all memory.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import relative_l2
from device_schedules import MIXTURE, RENOISING
from fixture_types import Cli

import bcm_edge
from bcm_edge.errors import BackendError
from bcm_edge.runtime.accuracy import BOUNDS, REPLAY_BOUND
from bcm_edge.runtime.backends import MODULES, backend_module, info, open_backend
from bcm_edge.runtime.backends.onnxruntime_cuda import OLDEST_FOR_GRAPHS
from bcm_edge.runtime.chain import injected_noises, start_state
from bcm_edge.runtime.checks.parity import compare
from bcm_edge.runtime.checks.recording import load_recording
from bcm_edge.runtime.machine.gpu import Gpu, free_memory
from bcm_edge.runtime.machine.onnxruntime_gpu import is_older
from bcm_edge.runtime.pixels import to_uint8
from bcm_edge.runtime.schedule import parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle

Ready = Callable[[str, str], Path]

BACKENDS = [name for name in MODULES if info(name).device == "gpu"]
CASES = [(name, precision) for name in BACKENDS for precision in info(name).precisions]
WITHOUT_GRAPHS = ("onnxruntime-tensorrt",)  # its provider keeps one CUDA graph for all batch sizes
SMALL = 4 << 20  # bytes that the driver may allocate


def has_graphs(name: str) -> bool:
    """Whether a backend replays CUDA graphs."""
    if name == "onnxruntime-cuda":
        import onnxruntime

        return not is_older(onnxruntime.__version__, OLDEST_FOR_GRAPHS)
    return name not in WITHOUT_GRAPHS


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A backend and a precision: every pair, one after the other."""
    return request.param


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend on a GPU, one after the other."""
    return request.param


@pytest.fixture
def on_cpu(gpu_bundle: Path) -> Iterator[bcm_edge.BCM]:
    """The float32 graphs on the CPU, the reference of every precision."""
    with bcm_edge.load(gpu_bundle, "onnxruntime", precision="fp32") as bcm:
        yield bcm


def test_schedules_are_within_the_bound(ready: Ready, case: tuple[str, str]) -> None:
    name, precision = case
    bundle = open_bundle(ready(*case))
    opened: Any = open_backend(name, bundle, precision)
    try:
        errors = compare(opened, load_recording(bundle), [1, 3, 7, 16], BOUNDS[precision])
        assert [error for error in errors if not error.ok] == []
        assert {error.batch for error in errors} == {1, 3, 7, 16}
        mode = "one CUDA graph per" if has_graphs(name) else "without CUDA graphs"
        assert mode in opened.device
    finally:
        opened.close()


@pytest.mark.parametrize("schedule", ["mixture-4", RENOISING])
def test_images_agree_with_the_cpu(
    ready: Ready, case: tuple[str, str], schedule: str, on_cpu: bcm_edge.BCM
) -> None:
    name, precision = case
    with bcm_edge.load(ready(*case), name, precision=precision) as bcm:
        for n in (1, 5, 20):
            labels = np.arange(n) % 10
            actual, expected = (
                each.generate(n, schedule=schedule, seed=3, labels=labels) for each in (bcm, on_cpu)
            )
            assert relative_l2(actual, expected) <= BOUNDS[precision]


def test_latents_and_reconstructions_agree_with_the_cpu(
    ready: Ready, case: tuple[str, str], on_cpu: bcm_edge.BCM
) -> None:
    name, precision = case
    images, labels = on_cpu.generate(6, seed=3, labels=np.arange(6)), np.arange(6)
    with bcm_edge.load(ready(*case), name, precision=precision) as bcm:
        for schedule in ("invert-1", "invert-2"):
            actual, expected = (
                each.invert(images, inversion=schedule, labels=labels) for each in (bcm, on_cpu)
            )
            assert relative_l2(actual, expected) <= BOUNDS[precision]
        actual, expected = (each.reconstruct(images, labels=labels) for each in (bcm, on_cpu))
        assert relative_l2(actual, expected) <= BOUNDS[precision]


def test_holes_are_filled_as_on_the_cpu(ready: Ready, case: tuple[str, str], on_cpu: bcm_edge.BCM) -> None:
    name, precision = case
    images, labels = on_cpu.generate(3, seed=3, labels=np.arange(3)), np.arange(3)
    holes = np.zeros((8, 8), bool)
    holes[2:6, 3:] = True
    with bcm_edge.load(ready(*case), name, precision=precision) as bcm:
        actual, expected = (each.inpaint(images, holes, labels=labels, seed=4) for each in (bcm, on_cpu))
    known = np.broadcast_to(~holes, images.shape)
    np.testing.assert_allclose(actual[known], images[known], atol=1e-6)
    assert relative_l2(actual, expected) <= 2 * BOUNDS[precision]  # the moves of a hole follow each other


def test_pixels_agree_with_the_floats_within_one_grey_level(ready: Ready, case: tuple[str, str]) -> None:
    name, precision = case
    with bcm_edge.load(ready(*case), name, precision=precision) as bcm:
        floats, pixels = (
            bcm.generate(7, schedule="mixture-4", seed=5, labels=3, output_type=output_type)
            for output_type in ("float", "uint8")
        )
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - to_uint8(floats)).max() <= 1


def inputs(opened: Any, text: str, seeds: list[int], labels: list[int]) -> tuple[Any, ...]:
    """The arguments of play_moves that the chain passes for these seeds."""
    program = parse_schedule(text)
    noises = injected_noises(program, opened, seeds)
    return start_state(program, opened, seeds), program.moves, noises, np.array(labels)


def test_every_state_is_that_of_the_move(ready: Ready, backend: str) -> None:
    precision = info(backend).precisions[0]
    opened: Any = open_backend(backend, open_bundle(ready(backend, precision)), precision)
    try:
        x, moves, noises, labels = inputs(opened, MIXTURE, [10, 11, 12], [3, 1, 4])
        states = opened.play_moves(x, moves, noises, labels, every=True)
        assert states.shape == (len(moves), 3, 1, 8, 8)
        for index in range(len(moves)):
            (last,) = opened.play_moves(x, moves[: index + 1], noises[: index + 1], labels, every=False)
            assert relative_l2(states[index], last) <= REPLAY_BOUND
    finally:
        opened.close()


def test_replay_after_other_schedules_and_batches(ready: Ready, backend: str) -> None:
    precision = info(backend).precisions[0]
    bundle = open_bundle(ready(backend, precision))
    opened: Any = open_backend(backend, bundle, precision)
    try:
        first = inputs(opened, MIXTURE, [10, 11, 12], [3, 1, 4])
        second = inputs(opened, MIXTURE, [20, 21, 22], [1, 5, 9])
        other = inputs(opened, RENOISING, [30], [2])
        before = opened.play_moves(*first, every=True)
        opened.play_moves(*other, every=False)
        changed = opened.play_moves(*second, every=True)
        again = opened.play_moves(*first, every=True)
        assert relative_l2(before, again) <= REPLAY_BOUND
        assert relative_l2(changed[-1], again[-1]) > 0.1  # the replay did not repeat older images
    finally:
        opened.close()
    fresh: Any = open_backend(backend, bundle, precision)
    try:
        assert relative_l2(changed, fresh.play_moves(*second, every=True)) <= REPLAY_BOUND
    finally:
        fresh.close()


def test_two_threads_share_a_backend(ready: Ready, backend: str) -> None:
    with bcm_edge.load(ready(backend, "fp16"), backend, precision="fp16") as bcm:

        def play(seed: int) -> np.ndarray:
            return bcm.generate(
                1 + seed % 3, schedule=("one-step", "mixture-4")[seed % 2], seed=seed, labels=seed % 10
            )

        expected = [play(seed) for seed in range(24)]
        with ThreadPoolExecutor(2) as pool:
            actual = list(pool.map(play, range(24)))
    assert max(map(relative_l2, actual, expected)) <= REPLAY_BOUND


def test_close_frees_all_memory(ready: Ready, backend: str, gpu: Gpu) -> None:
    bundle = ready(backend, "fp16")

    def cycle() -> int:
        with bcm_edge.load(bundle, backend, precision="fp16") as bcm:
            for n in (1, 16):
                bcm.generate(n, schedule="mixture-4", labels=3)
        gc.collect()
        free = free_memory(gpu)
        assert free is not None
        return free

    first = cycle()  # the libraries keep some memory until the process ends
    assert min(cycle() for _ in range(5)) >= first - SMALL


def test_closed_model_is_refused(ready: Ready, backend: str) -> None:
    bcm = bcm_edge.load(ready(backend, "fp16"), backend, precision="fp16")
    bcm.close()
    with pytest.raises(BackendError, match="this model has been closed"):
        bcm.generate(1, labels=3)


def test_backend_that_cannot_run_is_refused_with_the_reason(backend: str, gpu_bundle: Path, cli: Cli) -> None:
    """It never runs on the CPU instead. A backend that can run is opened by the other tests."""
    reason = backend_module(backend).unavailable("fp16")
    if reason is None:
        return
    with pytest.raises(BackendError) as refused:
        bcm_edge.load(gpu_bundle, backend, precision="fp16")
    assert reason in str(refused.value)
    result = cli("generate", gpu_bundle, "--backend", backend, "--precision", "fp16", "-o", "unused.png")
    assert result.exit_code != 0
    assert backend in result.output
