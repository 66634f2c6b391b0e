"""Engines of the digits model in every precision: they agree with ONNX Runtime and free all memory."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from agreement import relative_l2
from device_schedules import MIXTURE, RENOISING
from fixture_types import Cli

import bcm_edge
from bcm_edge.errors import BackendError
from bcm_edge.export.engines.build import build
from bcm_edge.export.engines.plan import plan_build
from bcm_edge.runtime.accuracy import BOUNDS
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.backends.tensorrt import TensorRtBackend
from bcm_edge.runtime.chain import injected_noises, start_state
from bcm_edge.runtime.checks.parity import compare
from bcm_edge.runtime.checks.recording import load_recording
from bcm_edge.runtime.engines.facts import UNREAD, BuildOptions, EngineFacts
from bcm_edge.runtime.engines.store import engines
from bcm_edge.runtime.machine.gpu import Gpu, free_memory
from bcm_edge.runtime.pixels import to_uint8
from bcm_edge.runtime.schedule import parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle

Built = Callable[[str], Path]

SMALL = 4 << 20  # bytes that the driver may allocate


@pytest.fixture(params=BOUNDS)
def precision(request: pytest.FixtureRequest) -> str:
    """Every precision, one after the other."""
    return request.param


@pytest.fixture
def onnxruntime(typed_bundle: Path) -> Iterator[bcm_edge.BCM]:
    """The float32 graphs on the CPU, the reference of every precision."""
    with bcm_edge.load(typed_bundle, "onnxruntime", precision="fp32") as bcm:
        yield bcm


def facts_of(bundle: Path, precision: str) -> EngineFacts:
    """The facts in engine.json of the engine of a precision."""
    facts = [engine.facts for engine in engines(open_bundle(bundle))]
    return next(each for each in facts if each.options.precision == precision)


def test_schedules_are_within_the_bound(built: Built, precision: str) -> None:
    bundle = open_bundle(built(precision))
    backend = open_backend("tensorrt", bundle, precision)
    try:
        errors = compare(backend, load_recording(bundle), [1, 4, 7, 16], BOUNDS[precision])
        assert [error for error in errors if not error.ok] == []
        assert {error.batch for error in errors} == {1, 4, 7, 16}
        assert backend.device.endswith("one CUDA graph per schedule")
    finally:
        backend.close()


def test_compute_types_are_reported(built: Built, precision: str) -> None:
    """A convolution may compute in more bits than requested; the types are printed."""
    facts = facts_of(built(precision), precision)
    for direction, types in facts.types.items():
        assert sum(types.values()) == 27, direction
        assert types.get(UNREAD, 0) < 27, direction
        print(precision, direction, types, facts.wider[direction])


@pytest.mark.parametrize("schedule", [MIXTURE, RENOISING])
def test_replay_agrees_with_the_engines_called_one_by_one(
    built: Built, precision: str, schedule: str
) -> None:
    from bcm_edge.runtime.engines.device_chain import REPLAY_BOUND

    backend = open_backend("tensorrt", open_bundle(built(precision)), precision)
    program = parse_schedule(schedule)
    assert isinstance(backend, TensorRtBackend)
    try:
        first, second = ([10, 11, 12], np.array([3, 1, 4])), ([20, 21, 22], np.array([1, 5, 9]))
        inputs = [
            (
                start_state(program, backend, seeds),
                program.moves,
                injected_noises(program, backend, seeds),
                labels,
            )
            for seeds, labels in (first, second)
        ]
        # The first call records the graph, the second one replays it.
        recorded, replayed = (backend.play_moves(*arguments, every=True) for arguments in inputs)
        x, moves, noises, labels = inputs[1]
        key = backend._key(x, moves, noises, pixels=False)
        with backend._turn(key, len(moves), len(x)) as chain:
            assert chain.why_eager == ""
            graph, chain._graph = chain._graph, None
            assert graph is not None
            try:
                one_by_one = chain.play(x, noises, labels, every=True)
            finally:
                chain._graph = graph
        for move, state, expected in zip(moves, replayed, one_by_one, strict=True):
            assert relative_l2(state, expected) <= REPLAY_BOUND, move
        # The second call did not repeat the images of the first one.
        assert relative_l2(recorded[-1], replayed[-1]) > 0.1
    finally:
        backend.close()


@pytest.mark.parametrize("schedule", ["one-step", "mixture-4", RENOISING])
def test_images_agree_with_onnxruntime(
    built: Built, precision: str, schedule: str, onnxruntime: bcm_edge.BCM
) -> None:
    with bcm_edge.load(built(precision), "tensorrt", precision=precision) as bcm:
        for n in (1, 5, 20):  # 20 is played in two batches
            labels = np.arange(n) % 10
            actual, expected = (
                each.generate(n, schedule=schedule, seed=3, labels=labels) for each in (bcm, onnxruntime)
            )
            assert relative_l2(actual, expected) <= BOUNDS[precision]


def test_latents_and_reconstructions_agree_with_onnxruntime(
    built: Built, precision: str, onnxruntime: bcm_edge.BCM
) -> None:
    images = onnxruntime.generate(6, seed=3, labels=np.arange(6))
    with bcm_edge.load(built(precision), "tensorrt", precision=precision) as bcm:
        for schedule in ("invert-1", "invert-2"):
            actual, expected = (
                each.invert(images, inversion=schedule, labels=np.arange(6)) for each in (bcm, onnxruntime)
            )
            assert relative_l2(actual, expected) <= BOUNDS[precision]
        actual, expected = (each.reconstruct(images, labels=np.arange(6)) for each in (bcm, onnxruntime))
        assert relative_l2(actual, expected) <= BOUNDS[precision]


def test_pixels_agree_with_the_floats_within_one_grey_level(built: Built, precision: str) -> None:
    with bcm_edge.load(built(precision), "tensorrt", precision=precision) as bcm:
        floats, pixels = (
            bcm.generate(7, schedule="mixture-4", seed=5, labels=3, output_type=output_type)
            for output_type in ("float", "uint8")
        )
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - to_uint8(floats)).max() <= 1


def test_second_build_is_up_to_date(built: Built, cli: Cli) -> None:
    bundle = built("fp16")
    before = {path: path.stat().st_mtime_ns for path in bundle.glob("engines/*/*")}
    result = cli("build", bundle, "--precision", "fp16")
    assert result.exit_code == 0
    assert "up to date: fp16-sm" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in bundle.glob("engines/*/*")} == before


def test_changed_plan_is_refused(built: Built, tmp_path: Path) -> None:
    bundle = shutil.copytree(built("fp16"), tmp_path / "changed.bundle")
    plan = next(bundle.glob("engines/fp16-*/forward.plan"))
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    with pytest.raises(BackendError, match=r"forward\.plan: not the file that was built"):
        bcm_edge.load(bundle, "tensorrt", precision="fp16")


def test_stripped_plans_return_the_same_images(built: Built, typed_copy: Path) -> None:
    from bcm_edge.runtime.engines.adapter import can_strip

    if not can_strip():
        pytest.skip("this TensorRT cannot leave weights out of plans")
    facts, errors = build(
        plan_build(open_bundle(typed_copy), BuildOptions("fp16", stripped=True)), print, lambda *_: None
    )
    assert errors and all(error.ok for error in errors)
    whole = facts_of(built("fp16"), "fp16")
    assert facts.files["forward"].size < whole.files["forward"].size
    with (
        bcm_edge.load(built("fp16"), "tensorrt", precision="fp16") as bcm,
        bcm_edge.load(typed_copy, "tensorrt") as stripped,
    ):
        images = [each.generate(5, schedule="mixture-4", labels=3) for each in (bcm, stripped)]
    assert relative_l2(*images) <= BOUNDS["fp16"]  # the builder may have chosen other kernels


def test_two_threads_share_a_backend(built: Built) -> None:
    from bcm_edge.runtime.engines.device_chain import REPLAY_BOUND

    with bcm_edge.load(built("fp16"), "tensorrt", precision="fp16") as bcm:

        def play(seed: int) -> np.ndarray:
            return bcm.generate(
                1 + seed % 3, schedule=("one-step", "mixture-4")[seed % 2], seed=seed, labels=seed % 10
            )

        expected = [play(seed) for seed in range(24)]
        with ThreadPoolExecutor(2) as pool:
            actual = list(pool.map(play, range(24)))
    assert max(map(relative_l2, actual, expected)) <= REPLAY_BOUND


def test_close_frees_all_memory(built: Built, gpu: Gpu) -> None:
    def cycle() -> int:
        with bcm_edge.load(built("fp16"), "tensorrt", precision="fp16") as bcm:
            for n in (1, 16):
                bcm.generate(n, schedule="mixture-4", labels=3)
        gc.collect()
        free = free_memory(gpu)
        assert free is not None
        return free

    first = cycle()  # CUDA and TensorRT keep some memory until the process ends
    assert min(cycle() for _ in range(5)) >= first - SMALL
