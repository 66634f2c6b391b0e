"""Engines of the digits model: their types, their recordings, and the files of a build.

test_backends.py compares their images with those of the CPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
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
from bcm_edge.runtime.accuracy import BOUNDS, REPLAY_BOUND
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.backends.tensorrt import TensorRtBackend
from bcm_edge.runtime.chain import injected_noises, start_state
from bcm_edge.runtime.engines.facts import UNREAD, BuildOptions, EngineFacts
from bcm_edge.runtime.engines.store import engines
from bcm_edge.runtime.schedule import parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle

Built = Callable[[str], Path]


@pytest.fixture(params=BOUNDS)
def precision(request: pytest.FixtureRequest) -> str:
    """Every precision, one after the other."""
    return request.param


def facts_of(bundle: Path, precision: str) -> EngineFacts:
    """The facts in engine.json of the engine of a precision."""
    facts = [engine.facts for engine in engines(open_bundle(bundle))]
    return next(each for each in facts if each.options.precision == precision)


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
