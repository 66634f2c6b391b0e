"""Checkpoint import: what names and shapes tell, official files, fp16, iCT."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import ROUNDING, relative_l2
from networks import TINY

from bcm_edge import BcmError
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from bcm_edge.model.config import NetworkConfig
from bcm_edge.model.infer_config import PRESETS, infer_config
from bcm_edge.model.preconditioning import ConsistencyModel

IMAGENET64 = NetworkConfig(
    64, 3, 192, 3, 3, (4, 8), (1, 2, 3, 4), 1000, 64, resblock_updown=True, use_scale_shift_norm=False
)
KNOWN = {"image_size": 16, "num_head_channels": TINY.num_head_channels}


def state_dict(config: NetworkConfig = TINY) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return ConsistencyModel(config).network.state_dict()


def shapes_of(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in ConsistencyModel(config).network.state_dict().items()}


def official_file(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """A file as the authors' trainer writes it: views into two shared storages, requires_grad on."""
    flat = {
        many: torch.cat([t.reshape(-1) for t in tensors.values() if (t.ndim > 1) == many])
        for many in (True, False)
    }
    offsets = {True: 0, False: 0}
    views = OrderedDict()
    for name, t in tensors.items():
        many = t.ndim > 1
        views[name] = flat[many][offsets[many] : offsets[many] + t.numel()].view(t.shape).requires_grad_()
        offsets[many] += t.numel()
    torch.save(views, path)
    return path


def test_the_imagenet64_network_has_its_published_size():
    with torch.device("meta"):
        tensors = ConsistencyModel(IMAGENET64).network.state_dict()
    assert len(tensors) == 504 and sum(t.numel() for t in tensors.values()) == 279_941_571


@pytest.mark.parametrize(
    "config",
    [
        IMAGENET64,
        replace(IMAGENET64, num_res_blocks=6),
        TINY,
        replace(TINY, resblock_updown=False, attention_resolutions=()),
        replace(
            TINY,
            use_scale_shift_norm=True,
            num_classes=None,
            channel_mult=(1, 2, 2),
            attention_resolutions=(1, 4),
        ),
        replace(TINY, channel_mult=(2,), attention_resolutions=(1,), in_channels=1, out_channels=1),
        replace(TINY, patch_size=4, channel_mult=(1, 2)),
    ],
    ids=["imagenet64", "imagenet64-deep", "tiny", "conv-resampling", "scale-shift", "one-level", "patches"],
)
def test_names_and_shapes_tell_the_configuration(config: NetworkConfig):
    shapes = shapes_of(config)
    known = {"image_size": config.image_size, "num_head_channels": config.num_head_channels}
    if len(config.channel_mult) == 1:  # one level has nothing to resample, so nothing tells how it would
        known["resblock_updown"] = config.resblock_updown
    assert infer_config(shapes, known, "file") == config


@pytest.mark.parametrize("depth", [3, 6])
def test_the_preset_is_the_released_networks_of_any_depth(depth: int):
    assert (
        infer_config(
            shapes_of(replace(IMAGENET64, num_res_blocks=depth)), PRESETS["imagenet64"], "file"
        ).num_res_blocks
        == depth
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"in_channels": 1, "out_channels": 1},
            "the tensors have in_channels = 1, but --preset imagenet64 has 3; a preset is for the released",
        ),
        ({"num_classes": 10}, "the tensors have num_classes = 10, but --preset imagenet64 has 1000"),
        ({"num_classes": None}, "the tensors have num_classes = None, but --preset imagenet64 has 1000"),
        (
            {"channel_mult": (1, 2, 3)},
            r"the tensors have channel_mult = \(1, 2, 3\), but --preset imagenet64 has \(1, 2, 3, 4\)",
        ),
        (
            {"use_scale_shift_norm": True},
            "the tensors have use_scale_shift_norm = True, but --preset imagenet64 has False",
        ),
    ],
)
def test_the_preset_is_refused_for_other_networks(change: dict[str, Any], message: str):
    with pytest.raises(BcmError, match=message):
        infer_config(shapes_of(replace(IMAGENET64, **change)), PRESETS["imagenet64"], "file")


def test_a_preset_is_proposed_where_the_tensors_fit():
    with pytest.raises(BcmError, match=r"pass --preset imagenet64, or --config FILE\.json with these fields"):
        infer_config(shapes_of(IMAGENET64), {}, "file")


def test_official_files_load_as_the_tensors_they_hold(tmp_path: Path):
    tensors = state_dict()
    loaded = load_checkpoint(official_file(tmp_path / "ema_0.99997_234000.pt", tensors), KNOWN)
    assert loaded.config == TINY and set(loaded.state_dict) == set(tensors)
    assert all(
        torch.equal(loaded.state_dict[name], t) and not loaded.state_dict[name].requires_grad
        for name, t in tensors.items()
    )


def test_half_precision_files_load_as_float32(tmp_path: Path):
    path = official_file(tmp_path / "half.pt", {name: t.half() for name, t in state_dict().items()})
    loaded = load_checkpoint(path, KNOWN)
    assert {t.dtype for t in loaded.state_dict.values()} == {torch.float32}
    assert torch.equal(loaded.state_dict["out.2.bias"], state_dict()["out.2.bias"].half().float())


def test_own_files_bring_their_configuration(tmp_path: Path):
    path = tmp_path / "own.safetensors"
    save_checkpoint(
        path, state_dict(), TINY, {"one-step": "80>0.002"}, {"trained_on": "nothing"}, torch.float32
    )
    loaded = load_checkpoint(path)
    assert (loaded.config, loaded.schedules, loaded.provenance) == (
        TINY,
        {"one-step": "80>0.002"},
        {"trained_on": "nothing"},
    )
    assert all(torch.equal(loaded.state_dict[name], t) for name, t in state_dict().items())


def test_what_tensors_do_not_tell_is_asked_for(tmp_path: Path):
    path = official_file(tmp_path / "x.pt", state_dict())
    with pytest.raises(
        BcmError,
        match=r"image_size and num_head_channels cannot be inferred from its tensors; pass --config FILE\.json with these fields",
    ):
        load_checkpoint(path)


def test_a_contradiction_is_named(tmp_path: Path):
    path = official_file(tmp_path / "x.pt", state_dict())
    with pytest.raises(BcmError, match="the tensors have num_classes = 4, but the configuration has 12"):
        load_checkpoint(path, {**KNOWN, "num_classes": 12})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("out.0.bias"), r"1 missing \(out.0.bias\)"),
        (lambda d: d.update({"surplus": torch.zeros(1)}), r"1 unexpected \(surplus\)"),
        (
            lambda d: d.update({"out.0.bias": torch.zeros(7)}),
            r"1 misshapen \(out.0.bias \[7\] instead of \[32\]\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change, message: str):
    tensors = state_dict()
    change(tensors)
    with pytest.raises(BcmError, match=message):
        load_checkpoint(official_file(tmp_path / "x.pt", tensors), KNOWN)


def test_weights_that_are_not_finite_are_named(tmp_path: Path):
    tensors = state_dict()
    tensors["out.2.bias"][1] = math.nan
    with pytest.raises(BcmError, match=r"NaN or infinity in 1 tensors \(out.2.bias\)"):
        load_checkpoint(official_file(tmp_path / "x.pt", tensors), KNOWN)


@pytest.mark.numerical
def test_ict_becomes_a_start_that_ignores_the_second_level(tmp_path: Path):
    ict = {
        name: t
        for name, t in state_dict().items()
        if not name.startswith(("time_embed_end", "time_embed_align"))
    }
    loaded = load_checkpoint(official_file(tmp_path / "ict.pt", ict), KNOWN)
    assert loaded.untrained_inversion
    network = loaded.model().network
    x, tau, label = torch.randn(2, 3, 16, 16), torch.tensor([100.0, -500.0]), torch.tensor([0, 1])
    moves = [network(x, tau, torch.tensor(second), label) for second in ([0.0, 0.0], [900.0, -9.0])]
    assert relative_l2(*moves) < ROUNDING
    assert torch.equal(loaded.state_dict["time_embed_end.2.weight"], ict["time_embed.2.weight"])


def test_shipped_model_is_small():
    assert shipped_checkpoint().stat().st_size <= 2_000_000
    assert load_checkpoint(shipped_checkpoint()).config.num_classes == 10
    assert shipped_checkpoint("mnist").stat().st_size <= 4_000_000
    assert load_checkpoint(shipped_checkpoint("mnist")).config.sample_shape == (1, 28, 28)
