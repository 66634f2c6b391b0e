"""Checkpoints as training loops and wrappers leave them: read, with a note of what was taken, or refused in one line."""

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
from fixture_types import Cli
from networks import TINY
from refusals import refusal
from safetensors.torch import save_file
from torch import Tensor

QKV = "middle_block.1.qkv.weight"


@pytest.fixture(scope="module")
def average(weights: Weights) -> Weights:
    """Other weights of the same network, for a moving average."""
    return {name: tensor * 0.5 for name, tensor in weights.items()}


def prefixed(prefix: str, tensors: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in tensors.items()}


# Training loops and wrappers


@pytest.mark.parametrize(
    ("wrap", "place"),
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
def test_network_is_found_where_it_stands(
    tmp_path: Path, weights: Weights, wrap: Callable[[Weights], Any], place: str
) -> None:
    path = saved(tmp_path / "loop.pt", wrap(weights))
    checkpoint = loaded(path)
    assert holds(checkpoint, weights)
    assert checkpoint.config == TINY
    assert checkpoint.notes == (f"{path}: took the weights of '{place}'",)


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"]
)
def test_wrappers_inside_the_network_are_taken_off(tmp_path: Path, weights: Weights, wrapper: str) -> None:
    wrapped = {
        name.replace("input_blocks.0.", f"input_blocks.0.{wrapper}."): tensor
        for name, tensor in weights.items()
    }
    assert wrapped.keys() != weights.keys()
    assert holds(loaded(saved(tmp_path / "blocks.pt", wrapped)), weights)


def test_counters_beside_the_weights_are_no_weights(tmp_path: Path, weights: Weights) -> None:
    checkpoint = loaded(saved(tmp_path / "x.pt", {**weights, "step": torch.tensor(7), "epoch": 3}))
    assert holds(checkpoint, weights)
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    ("wrap", "place", "other"),
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
def test_averaged_weights_are_taken_and_the_others_named(
    tmp_path: Path,
    weights: Weights,
    average: Weights,
    wrap: Callable[[Weights, Weights], Any],
    place: str,
    other: str,
) -> None:
    path = saved(tmp_path / "loop.pt", wrap(weights, average))
    checkpoint = loaded(path)
    assert holds(checkpoint, average)
    (note,) = checkpoint.notes
    assert note.startswith(f"{path}: took the averaged weights (EMA) of '{place}', not those of '{other}'. ")


@pytest.mark.parametrize("form", ["keys", "prefixes"])
def test_the_line_in_the_note_saves_the_other_weights(
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


def test_averaged_weights_without_names_are_mentioned(
    tmp_path: Path, weights: Weights, average: Weights
) -> None:
    checkpoint = loaded(
        saved(tmp_path / "x.pt", {"model": weights, "ema": {"shadow_params": list(average.values())}})
    )
    assert holds(checkpoint, weights)
    assert "the averaged weights in 'ema.shadow_params' have no names and are not used" in checkpoint.notes[1]


def test_two_networks_that_nothing_tells_apart(
    refuse_checkpoint: Callable[[Path], str], tmp_path: Path, weights: Weights
) -> None:
    message = refuse_checkpoint(saved(tmp_path / "x.pt", {"teacher": weights, "student": weights}))
    assert message.startswith(
        "holds 2 networks, 'teacher', 'student'. Save one of them alone, such as: torch.save(torch.load("
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
    for ended in (exported, trained):
        assert f"note: {path}: took the weights of 'module'\n" in ended.stderr


@pytest.mark.slow  # the whole export
def test_bundle_of_a_wrapped_network(cli: Cli, tmp_path: Path, weights: Weights) -> None:
    path = saved(tmp_path / "lightning.ckpt", {"state_dict": prefixed("model.", weights), "epoch": 1})
    ended = cli("export", path, "--config", CONFIG, "-o", tmp_path / "x.bundle")
    assert ended.exit_code == 0, ended.stderr
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
def test_other_objects_beside_the_weights(
    refuse_checkpoint: Callable[[Path], str], tmp_path: Path, weights: Weights, value: Any, problem: str
) -> None:
    message = refuse_checkpoint(
        saved(tmp_path / "x.ckpt", {"state_dict": weights, "hyper_parameters": value})
    )
    assert message.startswith("refused, because it holds more than tensors, such as ")
    assert f"{problem} (nothing in it was executed). " in message
    assert message.endswith("torch.save(network.state_dict(), 'weights.pt')")


def test_state_of_an_optimiser(refuse_checkpoint: Callable[[Path], str], tmp_path: Path) -> None:
    message = refuse_checkpoint(
        saved(tmp_path / "opt.pt", {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []})
    )
    assert message.startswith("the state of an optimizer, not of a network; give the file of the weights")


# Values


@pytest.mark.parametrize(
    ("convert", "problem"),
    [
        (lambda t: (t * 100).long(), "weights must be floating point; found int64"),
        (lambda t: t > 0, "weights must be floating point; found bool"),
        (lambda t: t + 0j, "weights must be floating point; found complex64"),
        (
            lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
            "weights must be floating point; found quantized values (qint8)",
        ),
        (lambda t: t.to_sparse(), "weights must be dense; found sparse_coo"),
        (lambda t: t[:, :, 0, 0].to_sparse_csr(), "weights must be dense; found sparse_csr"),
        (lambda t: t.to("meta"), "found shapes without values (tensors on the device meta)"),
        (lambda t: t[:0], "found no elements"),
        (
            lambda t: torch.zeros(1).expand(t.shape),
            "found elements that share memory, as expand() makes them,",
        ),
        (
            lambda t: torch.zeros(1).expand(10**9, 10**9),
            "found elements that share memory, as expand() makes them,",
        ),
        (
            lambda t: torch.nested.nested_tensor([t[0], t[1, :2]]),
            "weights must be plain tensors; found a nested tensor or another class",
        ),
    ],
    ids=[
        "int64",
        "bool",
        "complex",
        "quantized",
        "sparse",
        "csr",
        "meta",
        "empty",
        "expanded",
        "bomb",
        "nested",
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's, of prototypes and of what it will do without
def test_tensors_that_are_no_weights(
    refuse_checkpoint: Callable[[Path], str],
    tmp_path: Path,
    weights: Weights,
    convert: Callable[[Tensor], Tensor],
    problem: str,
) -> None:
    message = refuse_checkpoint(saved(tmp_path / "x.pt", {**weights, QKV: convert(weights[QKV])}))
    assert message.startswith(problem)
    assert f" in {QKV}. " in message


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_state_dict_of_integers(
    refuse_checkpoint: Callable[[Path], str], tmp_path: Path, weights: Weights, suffix: str
) -> None:
    path = tmp_path / f"integers.{suffix}"
    integers = {name: (tensor * 100).to(torch.int16) for name, tensor in weights.items()}
    torch.save(integers, path) if suffix == "pt" else save_file(integers, path)
    message = refuse_checkpoint(path)
    assert message.startswith("weights must be floating point; found int16 in ")
    assert f" and {len(weights) - 3} more. Give the network as it was trained" in message


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str
)
def test_other_floating_point_types_become_float32(
    tmp_path: Path, weights: Weights, dtype: torch.dtype
) -> None:
    converted = {name: tensor.to(dtype) for name, tensor in weights.items()}
    checkpoint = loaded(saved(tmp_path / "x.pt", converted))
    assert holds(checkpoint, {name: tensor.float() for name, tensor in converted.items()})
    assert ["float8_e4m3fn have 2 or 3 bits of precision" in note for note in checkpoint.notes] == [True] * (
        dtype.itemsize == 1
    )


def test_tensors_in_another_order_of_memory_are_read(tmp_path: Path, weights: Weights) -> None:
    checkpoint = loaded(
        saved(tmp_path / "x.pt", {**weights, QKV: weights[QKV].transpose(0, 1).contiguous().transpose(0, 1)})
    )
    assert holds(checkpoint, weights)
    assert checkpoint.state_dict[QKV].is_contiguous()


def test_weights_of_a_wrapped_network_stay_in_the_file(tmp_path: Path, weights: Weights) -> None:
    """Mapped into memory, the tensors lie in one piece of the file's size; copies lie apart."""
    checkpoint = loaded(saved(tmp_path / "x.pt", {"model": prefixed("module.", weights)}))
    addresses = [tensor.data_ptr() for tensor in checkpoint.state_dict.values()]
    assert max(addresses) - min(addresses) < (tmp_path / "x.pt").stat().st_size


# Presets


def test_preset_for_a_small_network(cli: Cli, tmp_path: Path, weights: Weights) -> None:
    path = saved(tmp_path / "x.pt", weights)
    message = refusal(cli("export", path, "--preset", "imagenet64", "--dry-run", "-o", tmp_path / "x.bundle"))
    assert message.startswith(
        f"{path}: the tensors say model_channels = {TINY.model_channels}, --preset imagenet64 says 192; "
    )
    message = refusal(
        cli("export", "digits", "--preset", "imagenet64", "--dry-run", "-o", tmp_path / "x.bundle")
    )
    assert "the file says image_size = 8, --preset imagenet64 says 64. " in message
