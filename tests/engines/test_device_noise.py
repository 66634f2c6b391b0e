"""Noise of the tensorrt backend on a simulated GPU, which executes the kernel that ships."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from agreement import assert_images_agree
from device_schedules import IMAGE, MIXTURE
from fixture_types import CompileEngines

import bcm_edge
from bcm_edge.runtime import ahead
from bcm_edge.runtime.backends.base import DeviceBackend, on_device
from bcm_edge.runtime.noise import Draw, values
from bcm_edge.runtime.schedule import Move

SHAPE = (1, 8, 8)
LABELS = np.array([3, 4, 5])
MOVES = [Move(80, 0.002), Move(0.1, 1), Move(1, 0.002)]
START, ADDED = Draw([7, 2**64 - 1, 9], SHAPE, 0, 80), Draw([7, 2**64 - 1, 9], SHAPE, 1, 0.1)


@pytest.fixture
def backend(built_bundle: Path, record: ModuleType) -> DeviceBackend:
    """The engine in fp32."""
    backend = bcm_edge.load(built_bundle, "tensorrt", precision="fp32").backend
    assert on_device(backend)
    return backend


def test_drawn_and_uploaded_noise_give_the_same_images(backend: DeviceBackend, record: ModuleType):
    drawn = backend.play_moves(START, MOVES, [None, ADDED, None], LABELS, every=True)
    assert "draw 4" in record.calls  # three samples are filled up to four
    record.calls.clear()
    added = ADDED.values()
    uploaded = backend.play_moves(START.values(), MOVES, [None, added, None], LABELS, every=True)
    assert not any(call.startswith("draw") for call in record.calls)
    assert np.abs(drawn - uploaded).max() <= 1e-5


def test_image_is_uploaded_and_noise_is_drawn(backend: DeviceBackend, record: ModuleType):
    image = np.full((3, *SHAPE), 0.5, np.float32)
    first = backend.play_moves(image, MOVES[1:], [ADDED, None], LABELS, every=False)
    record.calls.clear()
    again = backend.play_moves(image, MOVES[1:], [ADDED, None], LABELS, every=False)
    inputs = 4 * IMAGE + 256 + 4 * 8  # the image, the seeds and the labels
    assert record.calls == ["set current", f"upload {inputs}", "launch", f"download {4 * IMAGE}", "sync"]
    expected = backend.play_moves(image, MOVES[1:], [ADDED.values(), None], LABELS, every=False)
    assert np.abs(first - expected).max() <= 1e-5 and np.abs(again - expected).max() <= 1e-5


def test_replay_draws_the_noise_of_new_seeds(backend: DeviceBackend, record: ModuleType):
    backend.play_moves(START, MOVES[:1], [None], LABELS, every=False)
    other = Draw([1, 2, 3], SHAPE, 0, 80)
    replayed = backend.play_moves(other, MOVES[:1], [None], LABELS, every=False)
    assert record.calls.count("begin recording") == 1
    expected = backend.play_moves(other.values(), MOVES[:1], [None], LABELS, every=False)
    assert np.abs(replayed - expected).max() <= 1e-5


@pytest.mark.parametrize("other", [Draw(START.seeds, SHAPE, 2, 80), Draw(START.seeds, SHAPE, 0, 40)])
def test_other_draws_and_deviations_are_other_recordings(
    backend: DeviceBackend, record: ModuleType, other: Draw
):
    for x in (START, other, START, other):
        images = backend.play_moves(x, MOVES[:1], [None], LABELS, every=False)
        expected = backend.play_moves(x.values(), MOVES[:1], [None], LABELS, every=False)
        assert np.abs(images - expected).max() <= 1e-5
    assert record.calls.count("begin recording") == 3  # one for the arrays


def test_draws_with_different_seeds_are_not_confused(backend: DeviceBackend, record: ModuleType):
    added = Draw([4, 5, 6], SHAPE, 1, 0.1)
    images = backend.play_moves(START, MOVES, [None, added, None], LABELS, every=False)
    expected = backend.play_moves(START.values(), MOVES, [None, added.values(), None], LABELS, every=False)
    assert np.abs(images - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refused", "the kernel failed: CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
        ("wrong", "the kernel drew other numbers (difference "),
    ],
)
def test_noise_comes_from_the_processor_if_the_kernel_fails(
    built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
):
    record.faults.kernel = fault
    monkeypatch.setattr(ahead, "WORTHWHILE", 1)
    assert_noise_comes_from_the_processor(built_bundle, record, reason)


def test_noise_comes_from_the_processor_on_an_old_gpu(
    typed_copy: Path, record: ModuleType, compile_engines: CompileEngines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_CAPABILITY", "75")
    compile_engines(typed_copy, precision="fp32")
    monkeypatch.setattr(ahead, "WORTHWHILE", 1)
    reason = "the kernel needs compute capability 8.0, and this GPU has 7.5"
    assert_noise_comes_from_the_processor(typed_copy, record, reason)


def assert_noise_comes_from_the_processor(bundle: Path, record: ModuleType, reason: str) -> None:
    """The images of an engine in fp32 are right, nothing is drawn on the GPU, and the reason is reported."""
    with (
        bcm_edge.load(bundle, "tensorrt", batch=2, precision="fp32") as tensorrt,
        bcm_edge.load(bundle, "onnxruntime", precision="fp32") as onnxruntime,
    ):
        record.calls.clear()
        for seed in (1, 2):
            images, expected = (
                bcm.generate(4, schedule=MIXTURE, seed=seed, labels=3) for bcm in (tensorrt, onnxruntime)
            )
            assert_images_agree(images, expected)
        assert "draw 2" not in record.calls and record.calls.count("begin recording") == 1
        assert f"one CUDA graph per schedule, noise from the processor: {reason}" in tensorrt.backend.device


def test_values_of_a_draw_are_drawn_once():
    assert values(START).shape == (3, *SHAPE)
    array = np.zeros((1, *SHAPE), np.float32)
    assert values(array) is array
