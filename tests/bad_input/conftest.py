"""What tests of bad input share: the shipped weights in the forms a user may bring them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from refusals import refusal
from torch import Tensor

from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint

DIGITS_FIELDS = {
    "image_size": 8,
    "num_head_channels": 32,
    "norm_groups": 8,
}  # what the digits' tensors do not tell

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """The shipped model's tensors, float32."""
    return load_checkpoint(shipped_checkpoint()).state_dict


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def fields_file(scratch: Path) -> Path:
    (scratch / "fields.json").write_text(json.dumps(DIGITS_FIELDS))
    return scratch / "fields.json"


@pytest.fixture(scope="module")
def official(scratch: Path, weights: dict[str, Tensor]) -> Path:
    """The digits model as the authors' trainer saves one: an OrderedDict of float32 tensors that require gradients."""
    torch.save(
        OrderedDict((name, tensor.clone().requires_grad_()) for name, tensor in weights.items()),
        scratch / "official.pt",
    )
    return scratch / "official.pt"


@pytest.fixture
def save_pt(tmp_path: Path) -> Callable[[Any], Path]:
    def save(value: Any) -> Path:
        torch.save(value, tmp_path / "weights.pt")
        return tmp_path / "weights.pt"

    return save


@pytest.fixture
def refuse_export(cli: Cli, tmp_path: Path, fields_file: Path) -> Callable[..., str]:
    """The message with which `export CHECKPOINT` refuses; afterwards no bundle is there, and no part of one."""

    def run(checkpoint: Path, *options: object) -> str:
        message = refusal(
            cli(
                "export",
                checkpoint,
                *(options or ("--config", fields_file)),
                "-o",
                tmp_path / "out" / "x.bundle",
            )
        )
        assert not (tmp_path / "out").exists()
        return message

    return run


@pytest.fixture
def refuse_generate(cli: Cli, digits_bundle: Path, tmp_path: Path) -> Callable[..., str]:
    """The message with which `generate` refuses its options; afterwards no picture is there."""

    def run(*options: object, lines: int = 1) -> str:
        message = refusal(
            cli("generate", digits_bundle, "--backend", "null", *options, "-o", tmp_path / "refused.png"),
            lines,
        )
        assert [file.name for file in tmp_path.iterdir() if "refused" in file.name] == []
        return message

    return run
