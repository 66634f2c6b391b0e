"""The command that makes the shipped model, with two training steps and the search of one family."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from bcm_edge.evaluation import comparison, model_page, shipped
from bcm_edge.model.checkpoint import load_checkpoint
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.training.trainer import TrainOptions


@pytest.mark.slow
def test_a_model_is_trained_searched_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shipped, "NETWORK_CALLS", (1,))
    monkeypatch.setattr(comparison, "SETS", 2)
    monkeypatch.setattr(model_page, "SETS", 2)
    threads, lines = torch.get_num_threads(), []
    try:
        options = TrainOptions(steps=2, batch=2, intervals=10, channels=8)
        files = shipped.make_model(tmp_path / "made", options, lines.append)
    finally:
        torch.set_num_threads(threads)
    checkpoint = load_checkpoint(files.weights)
    assert checkpoint.provenance["steps"] == 2
    assert checkpoint.provenance["processor_minutes"] >= 0
    scored = re.findall(r"^  \d/5  (\S+)  (\+.*)$", "\n".join(lines), re.MULTILINE)
    assert len(scored) == 5
    lowest = min(float(score) for score, _ in scored)
    best = [schedule for score, schedule in scored if float(score) == lowest]
    assert checkpoint.schedules["invert-1"] in best
    assert checkpoint.schedules == open_bundle(files.bundle).manifest.schedules
    page = files.page.read_text(encoding="utf-8")
    for name in ("one-step", "ancestral-2", "zigzag-3", "mixture-4", "invert-1", "invert-2"):
        assert (
            f"| {name} | `{checkpoint.schedules[name]}` | {name[-1] if name[-1].isdigit() else 1} |" in page
        )
    assert "| steps | 2 |" in page
    assert "1257 for training" in page
    assert "over 2 sets of seeds" in " ".join(page.split())
    assert files.samples.stat().st_size > 0
