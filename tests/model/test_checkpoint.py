"""Checkpoint import: the configuration from names and shapes, official files, float16 files and iCT files."""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import ROUNDING, relative_l2
from checkpoints import same_tensors
from fixture_types import ROOT
from networks import TINY

from bcm_edge import BcmError
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from bcm_edge.model.config import NetworkConfig
from bcm_edge.model.infer_config import PRESETS, fitting_presets, infer_config, inferred_fields
from bcm_edge.model.preconditioning import ConsistencyModel

IMAGENET64 = NetworkConfig(
    64, 3, 192, 3, 3, (4, 8), (1, 2, 3, 4), 1000, 64, resblock_updown=True, use_scale_shift_norm=False
)
KNOWN = {"image_size": 16, "num_head_channels": TINY.num_head_channels}


def random_weights(config: NetworkConfig = TINY) -> dict[str, torch.Tensor]:
    """Return the same random weights of a network in every call."""
    torch.manual_seed(0)
    return ConsistencyModel(config).network.state_dict()


def shapes_of(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of a network."""
    with torch.device("meta"):
        tensors = ConsistencyModel(config).network.state_dict()
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def official_file(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Write a file as the authors' trainer writes it. Return its path.

    The tensors are views into two shared storages, one for vectors and one for all others, and require
    gradients.
    """
    views = OrderedDict[str, torch.Tensor]()
    for group in (
        {name: tensor for name, tensor in tensors.items() if tensor.ndim > 1},
        {name: tensor for name, tensor in tensors.items() if tensor.ndim <= 1},
    ):
        storage = torch.cat([tensor.reshape(-1) for tensor in group.values()])
        parts = storage.split([tensor.numel() for tensor in group.values()])
        for (name, tensor), part in zip(group.items(), parts, strict=True):
            views[name] = part.view(tensor.shape).requires_grad_()
    torch.save(OrderedDict((name, views[name]) for name in tensors), path)
    return path


def test_imagenet64_network_has_its_published_size():
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
def test_configuration_is_inferred_from_names_and_shapes(config: NetworkConfig):
    shapes = shapes_of(config)
    known = {"image_size": config.image_size, "num_head_channels": config.num_head_channels}
    if len(config.channel_mult) == 1:  # one level has no resampling layers
        known["resblock_updown"] = config.resblock_updown
    assert infer_config(shapes, known, "file") == config


@pytest.mark.parametrize("depth", [3, 6])
def test_preset_fits_the_released_network_of_any_depth(depth: int):
    shapes = shapes_of(replace(IMAGENET64, num_res_blocks=depth))
    assert infer_config(shapes, PRESETS["imagenet64"], "file").num_res_blocks == depth


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
def test_preset_is_refused_for_other_networks(change: dict[str, Any], message: str):
    with pytest.raises(BcmError, match=message):
        infer_config(shapes_of(replace(IMAGENET64, **change)), PRESETS["imagenet64"], "file")


def test_message_proposes_a_preset_that_fits():
    with pytest.raises(BcmError, match=r"pass --preset imagenet64, or --config FILE\.json with these fields"):
        infer_config(shapes_of(IMAGENET64), {}, "file")


def test_examples_of_the_documentation_are_configurations():
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    examples = [json.loads(text) for text in re.findall(r"```json\n(.+?)```", page, re.DOTALL)]
    whole = [fields for fields in examples if "model_channels" in fields]
    assert [(fields["image_size"], fields["num_classes"]) for fields in whole] == [(32, None), (64, 1000)]
    for fields in whole:
        config = NetworkConfig.from_json(fields)
        assert infer_config(shapes_of(config), fields, "file") == config
        needed = {name: fields[name] for name in ("image_size", "num_head_channels")}
        assert infer_config(shapes_of(config), needed, "file") == config


def test_lsun_preset_is_a_network_of_526_million_parameters():
    config = NetworkConfig.from_json(PRESETS["lsun256"])
    shapes = shapes_of(config)
    assert infer_config(shapes, PRESETS["lsun256"], "file") == config
    assert fitting_presets(inferred_fields(shapes, "file")) == ["lsun256"]
    assert fitting_presets(inferred_fields(shapes_of(IMAGENET64), "file")) == ["imagenet64"]
    one_level = [shape for name, shape in shapes.items() if not name.startswith("time_embed_")]  # as OpenAI's
    assert sum(math.prod(shape) for shape in one_level) == 526_304_771


def test_official_files_load_with_their_tensors(tmp_path: Path):
    tensors = random_weights()
    loaded = load_checkpoint(official_file(tmp_path / "ema_0.99997_234000.pt", tensors), KNOWN)
    assert loaded.config == TINY
    assert same_tensors(loaded.state_dict, tensors)
    assert not any(tensor.requires_grad for tensor in loaded.state_dict.values())


def test_half_precision_files_load_as_float32(tmp_path: Path):
    path = official_file(tmp_path / "half.pt", {name: t.half() for name, t in random_weights().items()})
    loaded = load_checkpoint(path, KNOWN)
    assert {t.dtype for t in loaded.state_dict.values()} == {torch.float32}
    assert torch.equal(loaded.state_dict["out.2.bias"], random_weights()["out.2.bias"].half().float())


def test_own_files_contain_their_configuration(tmp_path: Path):
    path = tmp_path / "own.safetensors"
    schedules, provenance = {"one-step": "80>0.002"}, {"trained_on": "nothing"}
    save_checkpoint(path, random_weights(), TINY, schedules, provenance, torch.float32)
    loaded = load_checkpoint(path)
    assert (loaded.config, loaded.schedules, loaded.provenance) == (TINY, schedules, provenance)
    assert same_tensors(loaded.state_dict, random_weights())


def test_message_names_fields_that_cannot_be_inferred(tmp_path: Path):
    path = official_file(tmp_path / "x.pt", random_weights())
    message = r"image_size and num_head_channels cannot be inferred .*; pass --config FILE\.json with these"
    with pytest.raises(BcmError, match=message):
        load_checkpoint(path)


def test_field_that_contradicts_the_tensors_is_named(tmp_path: Path):
    path = official_file(tmp_path / "x.pt", random_weights())
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
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
):
    tensors = random_weights()
    change(tensors)
    with pytest.raises(BcmError, match=message):
        load_checkpoint(official_file(tmp_path / "x.pt", tensors), KNOWN)


def test_weights_that_are_not_finite_are_named(tmp_path: Path):
    tensors = random_weights()
    tensors["out.2.bias"][1] = math.nan
    with pytest.raises(BcmError, match=r"NaN or infinity in 1 tensors \(out.2.bias\)"):
        load_checkpoint(official_file(tmp_path / "x.pt", tensors), KNOWN)


@pytest.mark.numerical
def test_ict_network_ignores_the_second_level(tmp_path: Path):
    second_level = ("time_embed_end", "time_embed_align")
    ict = {name: t for name, t in random_weights().items() if not name.startswith(second_level)}
    loaded = load_checkpoint(official_file(tmp_path / "ict.pt", ict), KNOWN)
    assert loaded.untrained_inversion
    network = loaded.model().network
    x, tau, label = torch.randn(2, 3, 16, 16), torch.tensor([100.0, -500.0]), torch.tensor([0, 1])
    moves = [network(x, tau, torch.tensor(second), label) for second in ([0.0, 0.0], [900.0, -9.0])]
    assert relative_l2(*moves) < ROUNDING
    assert torch.equal(loaded.state_dict["time_embed_end.2.weight"], ict["time_embed.2.weight"])


def test_shipped_models_are_small():
    assert shipped_checkpoint().stat().st_size <= 2_000_000
    assert load_checkpoint(shipped_checkpoint()).config.num_classes == 10
    assert shipped_checkpoint("mnist").stat().st_size <= 4_000_000
    assert load_checkpoint(shipped_checkpoint("mnist")).config.sample_shape == (1, 28, 28)
    assert shipped_checkpoint("emoji").stat().st_size <= 8_000_000
    assert load_checkpoint(shipped_checkpoint("emoji")).config.sample_shape == (3, 32, 32)
