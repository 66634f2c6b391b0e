"""Values and types of tensors: which are converted to float32 and which are refused; presets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import Weights, holds, loaded, saved
from fixture_types import Cli, Refusal
from networks import TINY
from refusals import refusal
from safetensors.torch import save_file
from torch import Tensor

QKV = "middle_block.1.qkv.weight"


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
@pytest.mark.filterwarnings("ignore")  # torch warns of prototypes and of deprecated features
def test_tensors_that_cannot_be_weights(
    refuse_checkpoint: Refusal,
    tmp_path: Path,
    weights: Weights,
    convert: Callable[[Tensor], Tensor],
    problem: str,
) -> None:
    message = refuse_checkpoint(saved(tmp_path / "x.pt", {**weights, QKV: convert(weights[QKV])}))
    assert message.startswith(problem)
    assert f" in {QKV}. " in message


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_state_dict_of_integers_is_refused(
    refuse_checkpoint: Refusal, tmp_path: Path, weights: Weights, suffix: str
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


def test_tensors_with_another_memory_layout_are_read(tmp_path: Path, weights: Weights) -> None:
    checkpoint = loaded(
        saved(tmp_path / "x.pt", {**weights, QKV: weights[QKV].transpose(0, 1).contiguous().transpose(0, 1)})
    )
    assert holds(checkpoint, weights)
    assert checkpoint.state_dict[QKV].is_contiguous()


def test_weights_of_a_wrapped_network_are_not_copied(tmp_path: Path, weights: Weights) -> None:
    """Memory-mapped tensors lie within one range of the size of the file; copies do not."""
    checkpoint = loaded(
        saved(tmp_path / "x.pt", {"model": {f"module.{name}": tensor for name, tensor in weights.items()}})
    )
    addresses = [tensor.data_ptr() for tensor in checkpoint.state_dict.values()]
    assert max(addresses) - min(addresses) < (tmp_path / "x.pt").stat().st_size


# Presets


def test_preset_that_contradicts_the_tensors(cli: Cli, tmp_path: Path, weights: Weights) -> None:
    path = saved(tmp_path / "x.pt", weights)
    message = refusal(cli("export", path, "--preset", "imagenet64", "--dry-run", "-o", tmp_path / "x.bundle"))
    assert message.startswith(
        f"{path}: the tensors have model_channels = {TINY.model_channels}, but --preset imagenet64 has 192; "
    )
    message = refusal(
        cli("export", "digits", "--preset", "imagenet64", "--dry-run", "-o", tmp_path / "x.bundle")
    )
    assert "the file has image_size = 8, but --preset imagenet64 has 64. " in message
