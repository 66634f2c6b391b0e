"""The bundle of a model that ships is made from weights and the data that they were trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from denoisers import BASELINE, tiny_denoiser
from networks import TINY

from bcm_edge.errors import CheckpointError, LabelError
from bcm_edge.evaluation.ship import make_bundle, mixture
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from bcm_edge.runtime.schedule import DEFAULT_SCHEDULES, parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.training.data import load_digits


def test_schedule_of_four_calls_continues_that_of_two():
    schedules = {"ancestral-2": "80>1.2>0.002", "zigzag-3": "80>0.002 +0.3 0.3>1.8>0.002"}
    assert mixture(schedules) == "80>1.2>0.002 +0.3 0.3>1.8>0.002"


@pytest.mark.slow
def test_bundle_and_weights_have_the_schedules_that_were_searched(tmp_path: Path):
    digits, data = load_digits("train"), tmp_path / "few.npz"
    assert digits.labels is not None
    pixels = ((digits.images[:200] + 1) * 127.5).round().to(torch.uint8)
    np.savez(data, images=pixels.numpy(), labels=digits.labels[:200].numpy())
    lines: list[str] = []
    bundle = make_bundle("few", shipped_checkpoint("digits"), data, tmp_path / "work", lines.append)
    manifest = open_bundle(bundle).manifest
    assert sorted(manifest.schedules) == sorted(DEFAULT_SCHEDULES)
    assert manifest.schedules["mixture-4"] == mixture(manifest.schedules)
    assert load_checkpoint(tmp_path / "work" / "few.safetensors").schedules == manifest.schedules
    assert [line[:11] for line in lines if line.startswith("best")] == [f"best with {n}" for n in (1, 2, 3)]
    assert parse_schedule(manifest.schedules["zigzag-3"]).nfe == 3


def test_weights_of_other_classes_are_refused(tmp_path: Path):
    data = tmp_path / "twelve.npz"
    np.savez(data, images=np.zeros((24, 8, 8), np.uint8), labels=np.arange(24) % 12)
    with pytest.raises(LabelError, match="has labels 0 to 11; the model has classes 0 to 9"):
        make_bundle("digits", shipped_checkpoint("digits"), data, tmp_path / "work", print)
    assert not list((tmp_path / "work").iterdir())


def test_weights_of_a_denoiser_are_refused(tmp_path: Path):
    weights = tmp_path / "denoiser.safetensors"
    network = tiny_denoiser().network.state_dict()
    save_checkpoint(weights, network, TINY, {}, BASELINE)
    with pytest.raises(CheckpointError, match=r"is not a BCM: it was trained with --objective edm"):
        make_bundle("tiny", weights, tmp_path / "never.npz", tmp_path / "work", print)
