"""The torch network gives the recorded outputs of the authors' code on three networks with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import relative_l2
from networks import TINY, tiny_model

from bcm_edge.model.checkpoint import load_checkpoint
from bcm_edge.model.preconditioning import ConsistencyModel, coefficients, warp
from bcm_edge.model.unet import TimeEmbedding

pytestmark = pytest.mark.numerical


def levels(values: list[float] | np.ndarray | float, n: int) -> torch.Tensor:
    """Return n noise levels from one or n values."""
    return torch.as_tensor(np.broadcast_to(np.asarray(values, np.float32), n).copy())


def test_tiny_network_agrees_with_the_authors_code():
    model, recorded = tiny_model()
    labels = torch.from_numpy(recorded["labels"]).long()
    for x, (t, u), expected in zip(recorded["x"], recorded["pairs"], recorded["f"], strict=True):
        ours = model(torch.from_numpy(x), levels(t, 2), levels(u, 2), labels).numpy()
        assert relative_l2(ours, expected) <= 1e-5, (t, u)


@pytest.mark.parametrize("name", ["adm_classcond", "adm_uncond_grey"])
def test_reference_network_agrees_with_the_authors_code(reference_dir: Path, name: str):
    config = json.loads((reference_dir / f"{name}.json").read_text())
    checkpoint = load_checkpoint(reference_dir / f"{name}.pt", config)
    recorded = np.load(reference_dir / f"{name}.npz")
    labels = torch.from_numpy(recorded["labels"]).long() if "labels" in recorded else None
    model = checkpoint.model()
    for x, (t, u), expected in zip(recorded["x"], recorded["pairs"], recorded["f"], strict=True):
        ours = model(torch.from_numpy(x), levels(t, 3), levels(u, 3), labels).numpy()
        assert relative_l2(ours, expected) <= 1e-5, (t, u)
        if t == u:
            assert (ours == x).all()
    mixed = model(*(torch.from_numpy(recorded[f"mixed_{k}"]) for k in "xtu"), labels).numpy()
    assert relative_l2(mixed, recorded["mixed_f"]) <= 1e-5


def test_move_from_a_level_to_itself_changes_nothing():
    model, recorded = tiny_model()
    x = torch.from_numpy(recorded["x"][0])
    for level in (0.002, 0.07, 1.5, 80):
        assert torch.equal(model(x, levels(level, 2), levels(level, 2), torch.tensor([0, 3])), x)


def test_preconditioning_coefficients_are_those_of_the_paper():
    t = torch.tensor([80.0, 2.4, 0.1, 0.07, 15.0], dtype=torch.float64)
    u = torch.tensor([0.002, 0.002, 1.2, 80.0, 80.0], dtype=torch.float64)
    c_skip, c_out, c_in = coefficients(t, u)
    skip = [6.4059998e-05, 0.042396007, 1.4230769, 22.950177, 5.3285239]
    out = [0.49997773, 0.4890823, -1.0786387, -79.158016, -2.165464]
    scale = [0.012499756, 0.40790851, 1.9611614, 1.9806835, 0.06662966]
    assert c_skip.tolist() == pytest.approx(skip, rel=1e-7)
    assert c_out.tolist() == pytest.approx(out, rel=1e-7)
    assert c_in.tolist() == pytest.approx(scale, rel=1e-7)
    assert warp(torch.tensor([80.0, 0.002])).tolist() == pytest.approx([1095.5067, -1553.6520], rel=1e-6)


def test_time_embedding_puts_cosines_first():
    embedding = TimeEmbedding(192)(warp(torch.tensor([80.0])))[0]
    expected = [-0.61443853, -0.82659733, 0.78896469, 0.12028972]
    assert embedding[[0, 1, 96, 191]].tolist() == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"resblock_updown": False},
        {"use_scale_shift_norm": True},
        {"num_classes": None},
        {"norm_groups": 8, "channel_mult": (1, 1, 2), "attention_resolutions": (1, 4), "num_res_blocks": 2},
        {"in_channels": 1, "out_channels": 1},
        {"patch_size": 2},
        {"attention": "dot_product"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_output_depends_on_both_levels_and_the_label(change: dict[str, Any]):
    config = replace(TINY, **change)
    torch.manual_seed(0)
    model = ConsistencyModel(config).eval().requires_grad_(False)
    x = torch.randn(2, *config.sample_shape)
    label = None if config.num_classes is None else torch.tensor([0, 1])

    def network(t: float, u: float, label: torch.Tensor | None) -> torch.Tensor:
        return model.network(x, warp(levels(t, 2)), warp(levels(u, 2)), label)

    base = network(1.0, 0.002, label)
    assert base.shape == x.shape
    assert not torch.allclose(base, network(2.0, 0.002, label))
    assert not torch.allclose(base, network(1.0, 0.5, label))
    if label is not None:
        assert not torch.allclose(base, network(1.0, 0.002, label + 1))
