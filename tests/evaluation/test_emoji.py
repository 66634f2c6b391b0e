"""The bundle of the emoji model is made from weights of its classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bcm_edge.errors import CheckpointError
from bcm_edge.evaluation.emoji import make_bundle, mixture
from bcm_edge.model.checkpoint import shipped_checkpoint


def test_schedule_of_four_calls_continues_that_of_two():
    schedules = {"ancestral-2": "80>1.2>0.002", "zigzag-3": "80>0.002 +0.3 0.3>1.8>0.002"}
    assert mixture(schedules) == "80>1.2>0.002 +0.3 0.3>1.8>0.002"


def test_weights_of_other_classes_are_refused(tmp_path: Path):
    arrays = {
        "images": np.zeros((3, 3, 64, 64), np.uint8),
        "labels": np.arange(3),
        "label_names": np.array(["fluent", "noto", "twemoji"]),
        "names": np.array(["ghost"] * 3),
        "categories": np.zeros(3, int),
        "category_names": np.array(["Smileys & Emotion"]),
    }
    np.savez(tmp_path / "emoji64.npz", **arrays)
    with pytest.raises(CheckpointError, match="its classes are not fluent, noto, twemoji"):
        make_bundle(shipped_checkpoint("digits"), tmp_path / "emoji64.npz", tmp_path / "work", print)
    assert not (tmp_path / "work" / "emoji.bundle").exists()
