"""Comparison with a recording: errors are located, and recordings that do not fit are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bcm_edge import BcmError
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.checks.parity import compare
from bcm_edge.runtime.checks.recording import load_recording, record
from bcm_edge.runtime.schedule import Move, parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle


class Inaccurate(NullBackend):
    """Multiplies states by a factor in moves that end at one level."""

    def __init__(self, level: float, factor: float) -> None:
        super().__init__((1, 4, 4))
        self.level, self.factor = level, np.float32(factor)

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        return super().play_move(x, noise, move, labels) * (self.factor if move.u == self.level else 1)


def test_first_inaccurate_move_is_reported():
    recording = record(NullBackend((1, 4, 4)), [parse_schedule("80>15>2>0.002")], 5)
    errors = compare(Inaccurate(2, 1.01), recording, (1, 2, 5), 1e-4)
    assert [(e.batch, e.move) for e in errors if not e.ok] == [
        (n, move) for n in (1, 2, 5) for move in ("15>2", "2>0.002")
    ]
    assert [e.relative_l2 for e in errors if not e.ok] == pytest.approx([0.01] * 6, rel=1e-3)
    assert all(e.relative_l2 == 0 and e.psnr == np.inf for e in errors if e.ok)


def test_nan_is_an_error_of_the_comparison():
    recording = record(NullBackend((1, 4, 4)), [parse_schedule("80>15>0.002"), parse_schedule("80>0.002")], 2)
    errors = compare(Inaccurate(15, np.nan), recording, (2,), 1e-4)
    assert [e.ok for e in errors] == [False, True]
    assert "move 1 of 2 (80>15)" in errors[0].move


def test_recording_that_does_not_fit_is_refused(digits_bundle: Path, tmp_path: Path):
    bundle = open_bundle(digits_bundle)
    arrays = dict(np.load(digits_bundle / "golden.npz"))
    state = next(name for name in arrays if name.startswith("states "))
    damage = {
        "too few moves": {state: arrays[state][:0]},
        "another shape": {"images": arrays["images"][:, :, :4]},
        "a label too high": {"labels": arrays["labels"] + 10},
        "not finite": {state: arrays[state] * np.float32(np.nan)},
        "no schedule": {"states 80>80": arrays[state]},
        "another number": {"seeds": arrays["seeds"][:2]},
    }
    for name, change in damage.items():
        np.savez(tmp_path / "golden.npz", **{**arrays, **change})
        with pytest.raises(BcmError, match="not a recording"):
            load_recording(replace(bundle, path=tmp_path))
            pytest.fail(name)
