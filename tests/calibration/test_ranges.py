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
from bcm_edge.export.graphs import graph_layouts
from bcm_edge.model.config import NetworkConfig
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.schedule import Move, parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle

SHAPE = (1, 4, 4)


def pictures(n: int) -> np.ndarray:
    """Return n different images in [-1, 1]."""
    return np.linspace(-1, 1, n * 16, dtype=np.float32).reshape(n, *SHAPE)


def test_samples_are_spread_evenly_over_classes():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    drawn = draw_samples(pictures(100), labels, 45, "x", SHAPE, 3)
    assert drawn.labels is not None
    # All ten samples of the smallest class are drawn; the other two classes share the rest.
    assert np.bincount(drawn.labels).tolist() == [18, 17, 10]
    assert len(np.unique(drawn.images, axis=0)) == 45
    assert drawn.digest == draw_samples(pictures(100), labels, 45, "x", SHAPE, 3).digest
    assert drawn.digest != draw_samples(pictures(100), labels, 46, "x", SHAPE, 3).digest


@pytest.mark.parametrize(
    ("images", "labels", "n", "error", "message"),
    [
        (pictures(40), None, 31, CalibrationError, "31 images are too few .*; at least 32 are needed"),
        (
            pictures(33),
            np.zeros(33, int),
            34,
            CalibrationError,
            "x: has 33 images, but 34 are requested for calibration",
        ),
        (pictures(40).reshape(40, 1, 2, 8), np.zeros(40, int), 32, ImageError, "the model takes 1 × 4 × 4"),
        (pictures(40) * 2, np.zeros(40, int), 32, ImageError, r"must be finite and lie in \[-1, 1\]"),
        (pictures(40) * np.nan, np.zeros(40, int), 32, ImageError, r"must be finite and lie in \[-1, 1\]"),
        (pictures(40), None, 32, LabelError, "has no labels, and the model has 3 classes"),
        (pictures(40), np.full(40, 3), 32, LabelError, "has labels 3 to 3; the model has classes 0 to 2"),
    ],
)
def test_samples_that_do_not_fit_the_model_are_refused(
    images: np.ndarray, labels: np.ndarray | None, n: int, error: type, message: str
):
    with pytest.raises(error, match=message):
        draw_samples(images, labels, n, "x", SHAPE, 3)


class Counting(NullBackend):
    """A backend that records the move and the labels of each call."""

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
    progress: list[tuple[int, int]] = []
    programs = [parse_schedule("80>2>0.002"), parse_schedule("+0.07 0.07>80")]
    play_all(backend, programs, samples, lambda done, total: progress.append((done, total)))
    labels_of: dict[str, list[int]] = {"80>2": [], "2>0.002": [], "0.07>80": []}
    for move, labels in backend.calls:
        labels_of[str(move)].extend(labels.tolist())
    for labels in labels_of.values():
        assert len(labels) == len(set(labels)) == 36
    assert progress == [(i, 15) for i in range(1, 16)]


@pytest.mark.slow
def test_ranges_are_the_extremes_of_all_states(digits_bundle: Path):
    bundle = open_bundle(digits_bundle)
    backend = open_backend("auto", bundle)
    samples = draw_samples(*labelled_digits("train"), 32, "digits", (1, 8, 8), 10)
    programs = [parse_schedule("80>0.002"), parse_schedule("+0.07 0.07>80")]
    calibration = measure_ranges(bundle, programs, samples)
    inputs: dict[str, list[np.ndarray]] = {"forward": [], "inverse": []}
    outputs: dict[str, list[np.ndarray]] = {"forward": [], "inverse": []}

    class Recording(NullBackend):
        def play_move(
            self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
        ) -> np.ndarray:
            inputs[move.graph].append(x if noise is None else x + noise)
            outputs[move.graph].append(backend.play_move(x, noise, move, labels))
            return outputs[move.graph][-1]

    play_all(Recording((1, 8, 8), 10), programs, samples)
    for direction, first in (("forward", "x"), ("inverse", "noise/Add")):
        for tensor, played in ((first, inputs[direction]), ("x_u", outputs[direction])):
            states = np.concatenate(played)
            extremes = (states.min(), states.max())
            assert calibration.ranges[direction][tensor] == pytest.approx(extremes, rel=1e-4)
    assert calibration.images == 32
    assert calibration.schedules == ["80>0.002", "+0.07 0.07>80"]
    order = list(calibration.ranges["forward"])
    layers = ("input_blocks.0.0/Conv", "middle_block.0.in_layers.2/Conv", "out.2/Conv")
    positions = [order.index(layer) for layer in layers]
    assert positions == sorted(positions)


@pytest.mark.slow
def test_schedules_must_play_both_graphs(digits_bundle: Path):
    samples = draw_samples(*labelled_digits("train"), 32, "digits", (1, 8, 8), 10)
    with pytest.raises(CalibrationError, match="no schedule plays the inverse graph"):
        measure_ranges(open_bundle(digits_bundle), [parse_schedule("80>0.002")], samples)


def test_headroom_reports_types_and_reasons(typed_bundle: Path):
    config = NetworkConfig.from_json(open_bundle(typed_bundle).manifest.model.config)
    calibration = read_calibration(typed_bundle / "calibration.json")
    measured = {a.tensor: a for a in activations(graph_layouts(config), calibration)}
    embedding = measured["time_embed/Mul"]
    assert embedding.bits == 32
    assert "250 log t" in embedding.why
    assert 1000 < embedding.largest < 1600  # 250 |log 0.002| = 1554, 250 log 80 = 1096
    norm = measured["middle_block.1/ReduceSum"]
    assert norm.bits == 32
    assert "cosine attention" in norm.why
    softmax = measured["middle_block.1/Softmax"]
    assert softmax.bits == 16
    assert softmax.largest <= 1.0001
    convolution = measured["input_blocks.1.0.in_layers.2/Conv"]
    assert convolution.bits == 16
    assert convolution.headroom == pytest.approx(65504 / convolution.largest)


def test_overflowing_are_float16_tensors_beyond_the_largest_number():
    measured = [
        Activation("a", 7e4, 16, ""),
        Activation("b", 9e4, 32, "norm"),
        Activation("c", 6e4, 16, ""),
        Activation("d", 8e4, 16, ""),
    ]
    assert [a.tensor for a in overflowing(measured)] == ["d", "a"]
