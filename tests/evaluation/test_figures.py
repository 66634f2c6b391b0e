"""The figures of the pages of models, from the outputs of `evaluate --json` and evaluation/memorised.py."""

from __future__ import annotations

from typing import Any

import pytest

from bcm_edge.errors import InputError
from bcm_edge.evaluation.figures import END, START, figures, quality, with_figures
from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint

SCORES = [{"precision": 0.5, "recall": 0.25}, {"precision": 0.7, "recall": 0.35}]


@pytest.fixture
def report() -> dict[str, Any]:
    """What the page uses of the output of `evaluate`."""
    sample = {"family": "BCM", "name": "one-step", "program": "80>0.002", "nfe": 1, "scores": SCORES}
    inversion = {"program": "+0.07 0.07>80 then 80>0.002", "nfe": 2, "mse": 0.01234, "ssim": 0.876}
    longer = {"name": "4 moves, levels inserted, one-step", "nfe": 5, "mse": 0.5, **inversion}
    columns = ["method", "levels", "MSE to the true image"]
    restyling = {"title": "Restyling", "note": "Of 6 pairs.", "columns": columns}
    return {
        "facts": {
            "Data": {
                "held-out images": "63 of emoji-test.npz",
                "generated": "449 images",
                "inverted": "20 held-out images",
                "classifier": "90.5% right on the held-out images",
            }
        },
        "floor": 1.2345,
        "real": {"precision": 0.9, "recall": 0.8},
        "generation": [{**sample, "ratio": 3.456, "spread": 0.078, "agreement": 0.98}],
        "inversion": [
            {"name": "invert-1, one-step", "latent_mean": 0.1, "latent_std": 0.9, **inversion},
            longer,
        ],
        "exhibits": {
            "Tasks": [
                {"title": "Restyling", "note": "", "images": 24, "rows": []},
                {**restyling, "rows": [["restyle", "+0.07 0.07>80>0.002", 0.05]]},
            ]
        },
    }


def test_quality_for_the_manifest_is_rounded_as_on_the_page(report: dict[str, Any]):
    facts = {"data": "emoji (held-out names)", "images": 63}
    baseline = {**report["generation"][0], "family": "Heun", "name": "Heun 18"}
    report = {**report, "generation": [*report["generation"], baseline]}
    assert quality(report, ["one-step", "invert-1"], "emoji (held-out names)") == {
        "one-step": {"frechet_ratio": 3.46, **facts, "samples": 449},
        "invert-1": {"reconstruction_mse": 0.0123, "data": "emoji (held-out names)", "images": 20},
    }


def test_figures_are_tables(report: dict[str, Any]):
    samples, held_out = (
        {"least": 0.05, "low": 0.08, "median": 0.1},
        {"least": 0.02, "low": 0.04, "median": 0.2},
    )
    distances = {"samples": samples, "held_out": held_out, "close": 0.25}
    nearest = {"schedule": "one-step", "images": 449, "held_out": 63, "pixels": distances}
    lines = figures(load_checkpoint(shipped_checkpoint()), report, {**nearest, "features": distances})
    assert "| one-step | `80>0.002` | 1 | 3.46 ± 0.08 | 0.60 | 0.30 | 98% |" in lines
    assert "| invert-1, one-step | `+0.07 0.07>80 then 80>0.002` | 2 | 0.0123 | 0.88 | 0.10 | 0.90 |" in lines
    assert "| restyle | `+0.07 0.07>80>0.002` | 0.05 |" in lines
    assert "| pixels | held-out drawings | 0.020 | 0.040 | 0.200 |" in lines
    assert "Closer than 95 % of the held-out drawings: 25% in pixels and 25% in features." in lines
    assert "| steps | 3400 |" in lines
    assert not any("levels inserted" in line for line in lines)


def test_page_shows_the_baseline_with_few_calls_and_edm(report: dict[str, Any]):
    ours = report["generation"][0]
    heun = {**ours, "family": "Heun", "name": "Heun 18", "program": "18 steps", "nfe": 35, "spread": None}
    longer = {**heun, "name": "Heun 40", "program": "40 steps", "nfe": 79}
    ddim = {**report["inversion"][0], "name": "DDIM 2", "program": "2 steps each way", "nfe": 4}
    report |= {"generation": [ours, heun, longer], "inversion": [*report["inversion"], ddim]}
    lines = figures(load_checkpoint(shipped_checkpoint()), {**report, "exhibits": {"Tasks": []}}, None)
    assert "| Heun 18 | 18 steps | 35 | 3.46 | 0.60 | 0.30 | 98% |" in lines
    assert "| DDIM 2 | 2 steps each way | 4 | 0.0123 | 0.88 | 0.10 | 0.90 |" in lines
    assert not any("40 steps" in line or "Restyling" in line or "memorised" in line for line in lines)


def test_only_the_part_between_the_marks_is_replaced():
    page = f"# Title\n\n{START}\nold\n{END}\n\nmore\n"
    once = with_figures(page, ["new", ""])
    assert once == f"# Title\n\n{START}\n\nnew\n\n{END}\n\nmore\n"
    assert with_figures(once, ["new"]) == once


def test_page_without_marks_is_refused():
    for page in ("# Title\n", f"# Title\n{START}\nold\n"):
        with pytest.raises(InputError, match="the page has no place for the figures; add the lines <!-- fig"):
            with_figures(page, ["new"])
