"""Checkpoints of training loops and wrappers: the network is found, and a note names the weights used."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import CONFIG, Weights, holds, loaded, saved
from fixture_types import Cli, Refusal
from networks import TINY

QKV = "middle_block.1.qkv.weight"


@pytest.fixture(scope="module")
def average(weights: Weights) -> Weights:
    """Other weights of the same network, for a moving average."""
    return {name: tensor * 0.5 for name, tensor in weights.items()}


def prefixed(prefix: str, tensors: Weights) -> Weights:
    """Add a prefix to every name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("wrap", "location"),
    [
        (lambda w: prefixed("module.", w), "module"),
        (lambda w: prefixed("_orig_mod.", w), "_orig_mod"),
        (lambda w: prefixed("module._orig_mod.", w), "module._orig_mod"),
        (lambda w: prefixed("diffusion.net.", w), "diffusion.net"),
        (
            lambda w: {
                "state_dict": prefixed("model.", w),
                "epoch": 1,
                "callbacks": {"saver": {"best": 0.5}},
            },
            "state_dict.model",
        ),
        (lambda w: {"model": {"state_dict": w}}, "model.state_dict"),
        (lambda w: {"ema": w, "step": 7}, "ema"),
        (lambda w: {"n_averaged": torch.tensor(3), **prefixed("module.", w)}, "module"),
        (
            lambda w: {
                "model": w,
                "optimizer": {"exp_avg": w, "state": {0: {"exp_avg": torch.zeros(3)}}},
                "lr": 1e-3,
            },
            "model",
        ),
        (
            lambda w: {"weights": prefixed("module.", w), "loss.perceptual.weight": torch.zeros(3)},
            "weights.module",
        ),
        (lambda w: [w, {"state": {}, "param_groups": []}], "0"),
    ],
    ids=[
        "ddp",
        "compiled",
        "both",
        "own",
        "lightning",
        "nested",
        "average",
        "swa",
        "optimiser",
        "loss",
        "list",
    ],
)
def test_network_is_found_inside_a_checkpoint(
    tmp_path: Path, weights: Weights, wrap: Callable[[Weights], Any], location: str
) -> None:
    path = saved(tmp_path / "loop.pt", wrap(weights))
    checkpoint = loaded(path)
    assert holds(checkpoint, weights)
    assert checkpoint.config == TINY
    assert checkpoint.notes == (f"{path}: used the weights of '{location}'",)


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"]
)
def test_names_of_wrappers_are_removed(tmp_path: Path, weights: Weights, wrapper: str) -> None:
    wrapped = {
        name.replace("input_blocks.0.", f"input_blocks.0.{wrapper}."): tensor
        for name, tensor in weights.items()
    }
    assert wrapped.keys() != weights.keys()
    assert holds(loaded(saved(tmp_path / "blocks.pt", wrapped)), weights)


def test_counters_beside_the_weights_are_ignored(tmp_path: Path, weights: Weights) -> None:
    checkpoint = loaded(saved(tmp_path / "x.pt", {**weights, "step": torch.tensor(7), "epoch": 3}))
    assert holds(checkpoint, weights)
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    ("wrap", "location", "other"),
    [
        (lambda w, a: {"model": w, "ema": a, "step": 7}, "ema", "model"),
        (lambda w, a: {"net": w, "netEMA": a}, "netEMA", "net"),
        (lambda w, a: {"params": w, "params_ema": a}, "params_ema", "params"),
        (
            lambda w, a: {**prefixed("online_model.", w), **prefixed("ema_model.", a)},
            "ema_model",
            "online_model",
        ),
        (
            lambda w, a: {"ema": {**prefixed("online_model.", w), **prefixed("ema_model.", a)}},
            "ema.ema_model",
            "ema.online_model",
        ),
        (
            lambda w, a: {
                "state_dict": {
                    **prefixed("model.diffusion_model.", w),
                    **{
                        "model_ema.diffusion_model" + name.replace(".", ""): tensor
                        for name, tensor in a.items()
                    },
                    "model_ema.decay": torch.tensor(0.999),
                }
            },
            "state_dict.model_ema.diffusion_model",
            "state_dict.model.diffusion_model",
        ),
    ],
    ids=["keys", "camel case", "suffix", "prefixes", "wrapper", "latent diffusion"],
)
def test_averaged_weights_are_preferred_and_the_others_named(
    tmp_path: Path,
    weights: Weights,
    average: Weights,
    wrap: Callable[[Weights, Weights], Any],
    location: str,
    other: str,
) -> None:
    path = saved(tmp_path / "loop.pt", wrap(weights, average))
    checkpoint = loaded(path)
    assert holds(checkpoint, average)
    (note,) = checkpoint.notes
    assert note.startswith(
        f"{path}: used the averaged weights (EMA) of '{location}', not those of '{other}'. "
    )


@pytest.mark.parametrize("form", ["keys", "prefixes"])
def test_code_in_the_note_saves_the_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Weights, average: Weights, form: str
) -> None:
    both = {
        "keys": {"model": weights, "ema": average},
        "prefixes": {**prefixed("raw.", weights), **prefixed("ema.", average)},
    }
    (note,) = loaded(saved(tmp_path / "loop.pt", both[form])).notes
    monkeypatch.chdir(tmp_path)
    exec(note.partition("save them alone: ")[2], {"torch": torch})
    assert holds(loaded(tmp_path / "weights.pt"), weights)


def test_averaged_weights_without_names_are_reported(
    tmp_path: Path, weights: Weights, average: Weights
) -> None:
    checkpoint = loaded(
        saved(tmp_path / "x.pt", {"model": weights, "ema": {"shadow_params": list(average.values())}})
    )
    assert holds(checkpoint, weights)
    assert "the averaged weights in 'ema.shadow_params' have no names and are not used" in checkpoint.notes[1]


def test_two_networks_of_equal_rank_are_refused(
    refuse_checkpoint: Refusal, tmp_path: Path, weights: Weights
) -> None:
    message = refuse_checkpoint(saved(tmp_path / "x.pt", {"teacher": weights, "student": weights}))
    assert message.startswith(
        "contains 2 networks, 'teacher', 'student'. "
        "Save one of them alone, for example: torch.save(torch.load("
    )


def test_export_and_train_print_the_notes(cli: Cli, tmp_path: Path, weights: Weights) -> None:
    path = saved(tmp_path / "ddp.pt", prefixed("module.", weights))
    exported = cli("export", path, "--config", CONFIG, "--dry-run", "-o", tmp_path / "x.bundle")
    assert exported.exit_code == 0, exported.stderr
    np.savez(
        tmp_path / "d.npz",
        images=np.linspace(-1, 1, 8 * 3 * 16 * 16, dtype=np.float32).reshape(8, 3, 16, 16),
        labels=np.arange(8) % 4,
    )
    options = ("--data", tmp_path / "d.npz", "--steps", 1, "--batch", 4, "-o", tmp_path / "t.safetensors")
    trained = cli("train", "--init", path, "--config", CONFIG, *options)
    assert trained.exit_code == 0, trained.stderr
    for result in (exported, trained):
        assert f"note: {path}: used the weights of 'module'\n" in result.stderr


@pytest.mark.slow  # the whole export
def test_bundle_of_a_wrapped_network(cli: Cli, tmp_path: Path, weights: Weights) -> None:
    path = saved(tmp_path / "lightning.ckpt", {"state_dict": prefixed("model.", weights), "epoch": 1})
    result = cli("export", path, "--config", CONFIG, "-o", tmp_path / "x.bundle")
    assert result.exit_code == 0, result.stderr
    manifest = json.loads((tmp_path / "x.bundle" / "manifest.json").read_text())
    assert manifest["model"]["name"] == "lightning"
    assert manifest["model"]["config"]["channel_mult"] == list(TINY.channel_mult)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (argparse.Namespace(lr=1e-3), "argparse.Namespace"),
        (np.float64(0.5), "multiarray.scalar"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
    ids=["hyper-parameters", "numpy", "module"],
)
def test_other_objects_beside_the_weights_are_refused(
    refuse_checkpoint: Refusal, tmp_path: Path, weights: Weights, value: Any, problem: str
) -> None:
    message = refuse_checkpoint(
        saved(tmp_path / "x.ckpt", {"state_dict": weights, "hyper_parameters": value})
    )
    assert message.startswith("refused, because it contains more than tensors, for example ")
    assert f"{problem} (nothing in it was executed). " in message
    assert message.endswith("torch.save(network.state_dict(), 'weights.pt')")


def test_state_of_an_optimizer_is_refused(refuse_checkpoint: Refusal, tmp_path: Path) -> None:
    message = refuse_checkpoint(
        saved(tmp_path / "opt.pt", {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []})
    )
    assert message.startswith("the state of an optimizer, not of a network; give the file of the weights")
