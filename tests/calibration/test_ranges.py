"""Calibration: the samples that are drawn, the ranges that are measured, and the headroom of float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from digit_images import labelled_digits

from bcm_edge.calibration.headroom import Activation, activations, overflowing
from bcm_edge.calibration.ranges import measure_ranges, read_calibration
from bcm_edge.calibration.trajectories import draw_samples, generate_samples, play_all
from bcm_edge.errors import CalibrationError, ImageError, LabelError
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.schedule import Move, parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle

SHAPE = (1, 4, 4)


def pictures(n: int) -> np.ndarray:
    return np.linspace(-1, 1, n * 16, dtype=np.float32).reshape(n, *SHAPE)


def test_samples_are_spread_evenly_over_classes():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    drawn = draw_samples(pictures(100), labels, 45, "x", SHAPE, 3)
    assert drawn.labels is not None
    assert np.bincount(drawn.labels).tolist() == [
        18,
        17,
        10,
    ]  # all ten of the smallest class, the rest shared
    assert len(np.unique(drawn.images, axis=0)) == 45
    assert drawn.digest == draw_samples(pictures(100), labels, 45, "x", SHAPE, 3).digest
    assert drawn.digest != draw_samples(pictures(100), labels, 46, "x", SHAPE, 3).digest


@pytest.mark.parametrize(
    ("images", "labels", "n", "error", "message"),
    [
        (
            pictures(40),
            None,
            31,
            CalibrationError,
            "31 images are too few to calibrate on; at least 32 are needed",
        ),
        (
            pictures(33),
            np.zeros(33, int),
            34,
            CalibrationError,
            "x: has 33 images, but calibration is to use 34",
        ),
        (
            pictures(40).reshape(40, 1, 2, 8),
            np.zeros(40, int),
            32,
            ImageError,
            "images of 1 × 2 × 8; the model takes 1 × 4 × 4",
        ),
        (pictures(40) * 2, np.zeros(40, int), 32, ImageError, r"must be finite and lie in \[-1, 1\]"),
        (pictures(40) * np.nan, np.zeros(40, int), 32, ImageError, r"must be finite and lie in \[-1, 1\]"),
        (pictures(40), None, 32, LabelError, "has no labels, and the model has 3 classes"),
        (pictures(40), np.full(40, 3), 32, LabelError, "has labels 3 to 3; the model has classes 0 to 2"),
    ],
)
def test_samples_that_do_not_fit(
    images: np.ndarray, labels: np.ndarray | None, n: int, error: type, message: str
):
    with pytest.raises(error, match=message):
        draw_samples(images, labels, n, "x", SHAPE, 3)


class Counting(NullBackend):
    def __init__(self) -> None:
        super().__init__(SHAPE, 40)
        self.calls: list[tuple[Move, np.ndarray]] = []

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        assert labels is not None
        self.calls.append((move, labels))
        return super().play_move(x, noise, move, labels)


def test_every_schedule_is_played_on_every_sample():
    backend = Counting()
    samples = generate_samples(NullBackend(SHAPE, 40), 36)
    told: list[tuple[int, int]] = []
    play_all(
        backend,
        [parse_schedule("80>2>0.002"), parse_schedule("+0.07 0.07>80")],
        samples,
        lambda *at: told.append(at),
    )
    seen = {
        str(move): np.concatenate([labels for m, labels in backend.calls if m == move])
        for move, _ in backend.calls
    }
    assert {move: len(labels) for move, labels in seen.items()} == {"80>2": 36, "2>0.002": 36, "0.07>80": 36}
    assert all(len(np.unique(labels)) == 36 for labels in seen.values())
    assert told == [(i, 15) for i in range(1, 16)]


@pytest.mark.slow
def test_ranges_are_the_extremes_of_what_was_played(digits_bundle: Path):
    bundle = open_bundle(digits_bundle)
    backend = open_backend("auto", bundle)
    samples = draw_samples(*labelled_digits("train"), 32, "digits", (1, 8, 8), 10)
    calibration = measure_ranges(
        bundle, [parse_schedule("80>0.002"), parse_schedule("+0.07 0.07>80")], samples
    )
    states = []

    class Watching(NullBackend):
        def play_move(self, x, noise, move, labels):
            states.append(
                (move.graph, x if noise is None else x + noise, backend.play_move(x, noise, move, labels))
            )
            return states[-1][2]

    play_all(Watching((1, 8, 8), 10), [parse_schedule("80>0.002"), parse_schedule("+0.07 0.07>80")], samples)
    for direction, taken in (("forward", "x"), ("inverse", "noise/Add")):
        for name, index in ((taken, 1), ("x_u", 2)):
            played = np.concatenate([state[index] for state in states if state[0] == direction])
            assert calibration.ranges[direction][name] == pytest.approx(
                (played.min(), played.max()), rel=1e-4
            )
    assert calibration.images == 32 and calibration.schedules == ["80>0.002", "+0.07 0.07>80"]
    order = list(calibration.ranges["forward"])
    assert (
        order.index("input_blocks.0.0/Conv")
        < order.index("middle_block.0.in_layers.2/Conv")
        < order.index("out.2/Conv")
    )


@pytest.mark.slow
def test_a_direction_that_is_never_played_is_refused(digits_bundle: Path):
    samples = draw_samples(*labelled_digits("train"), 32, "digits", (1, 8, 8), 10)
    with pytest.raises(CalibrationError, match="no schedule plays the inverse graph"):
        measure_ranges(open_bundle(digits_bundle), [parse_schedule("80>0.002")], samples)


def test_headroom_names_types_and_reasons(typed_bundle: Path):
    bundle = open_bundle(typed_bundle)
    measured = {a.tensor: a for a in activations(bundle, read_calibration(typed_bundle / "calibration.json"))}
    assert measured["time_embed/Mul"].bits == 32 and "250 log t" in measured["time_embed/Mul"].why
    assert 1000 < measured["time_embed/Mul"].largest < 1600  # 250 |log 0.002| = 1554, 250 log 80 = 1096
    assert (
        measured["middle_block.1/Softmax"].bits == 32 and "softmax" in measured["middle_block.1/Softmax"].why
    )
    convolution = measured["input_blocks.1.0.in_layers.2/Conv"]
    assert convolution.bits == 16 and convolution.headroom == pytest.approx(65504 / convolution.largest)
    assert measured["middle_block.1/Softmax"].largest <= 1.0001


def test_overflowing_are_narrow_tensors_beyond_the_end():
    measured = [
        Activation("a", 7e4, 16, ""),
        Activation("b", 9e4, 32, "norm"),
        Activation("c", 6e4, 16, ""),
        Activation("d", 8e4, 16, ""),
    ]
    assert [a.tensor for a in overflowing(measured)] == ["d", "a"]
