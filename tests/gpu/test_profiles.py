"""Engines with several optimisation profiles, and single engines, of the digits model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from agreement import relative_l2
from device_schedules import MIXTURE, RENOISING

import bcm_edge
from bcm_edge.export.engines.build import build
from bcm_edge.export.engines.plan import plan_build
from bcm_edge.runtime.accuracy import BOUNDS
from bcm_edge.runtime.backends.tensorrt import TensorRtBackend
from bcm_edge.runtime.engines.facts import UNREAD, BuildOptions, EngineFacts
from bcm_edge.runtime.storage.bundle import open_bundle

PROFILES = ((1, 1, 1), (2, 4, 8), (16, 32, 32))


@pytest.fixture
def references(typed_bundle: Path) -> bcm_edge.BCM:
    """The float32 graphs on the CPU."""
    return bcm_edge.load(typed_bundle, "onnxruntime", precision="fp32")


def built(bundle: Path, options: BuildOptions) -> EngineFacts:
    """Build an engine; every recorded schedule was within the bound."""
    facts, errors = build(plan_build(open_bundle(bundle), options), print, lambda *_: None)
    assert errors and all(error.ok for error in errors)
    return facts


def test_every_profile_is_used(tensorrt: None, typed_copy: Path, references: bcm_edge.BCM) -> None:
    facts = built(typed_copy, BuildOptions("fp16", PROFILES))
    assert all(types.get(UNREAD, 0) < 27 for types in facts.types.values()), facts.types
    with bcm_edge.load(typed_copy, "tensorrt", precision="fp16") as bcm:
        assert bcm.batch == 32
        for n in (32, 1, 5, 9, 40):  # 9 images are in a gap, 40 are played in two batches
            labels = np.arange(n) % 10
            actual, expected = (
                each.generate(n, schedule=MIXTURE, seed=3, labels=labels) for each in (bcm, references)
            )
            assert relative_l2(actual, expected) <= BOUNDS["fp16"], n
        assert bcm.backend.device.endswith("one CUDA graph per schedule")
        assert isinstance(bcm.backend, TensorRtBackend)
        scratch = [buffer.size for buffer in bcm.backend._engines._scratch]
        assert max(scratch) <= max(1, facts.scratch)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_single_engine_plays_both_directions(
    tensorrt: None, typed_copy: Path, references: bcm_edge.BCM, precision: str
) -> None:
    facts = built(typed_copy, BuildOptions(precision, single=True))
    assert sorted(facts.files) == ["inverse", "to_uint8"]
    with bcm_edge.load(typed_copy, "tensorrt", precision=precision) as bcm:
        for schedule in ("one-step", MIXTURE, RENOISING):
            actual, expected = (
                each.generate(5, schedule=schedule, seed=3, labels=np.arange(5)) for each in (bcm, references)
            )
            assert relative_l2(actual, expected) <= BOUNDS[precision], schedule
        actual, expected = (each.reconstruct(expected, labels=np.arange(5)) for each in (bcm, references))
        assert relative_l2(actual, expected) <= BOUNDS[precision]
        assert bcm.backend.device.endswith("one CUDA graph per schedule")
