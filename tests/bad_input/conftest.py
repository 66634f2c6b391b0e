"""The shipped weights in several file formats, and commands that must refuse their input."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import DIGITS_FIELDS
from fixture_types import Cli, Refusal
from refusals import refusal
from torch import Tensor

from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """The shipped model's tensors, float32."""
    return load_checkpoint(shipped_checkpoint()).state_dict


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the tests of one file share."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def fields_file(scratch: Path) -> Path:
    """A configuration with the fields that the tensors of the digits model do not show."""
    (scratch / "fields.json").write_text(json.dumps(DIGITS_FIELDS))
    return scratch / "fields.json"


@pytest.fixture(scope="module")
def official(scratch: Path, weights: dict[str, Tensor]) -> Path:
    """The digits model as the authors' trainer saves it: an OrderedDict of tensors that require gradients."""
    torch.save(
        OrderedDict((name, tensor.clone().requires_grad_()) for name, tensor in weights.items()),
        scratch / "official.pt",
    )
    return scratch / "official.pt"


@pytest.fixture
def save_pt(tmp_path: Path) -> Callable[[Any], Path]:
    """Save a value with torch.save, and return the path of the file."""

    def save(value: Any) -> Path:
        torch.save(value, tmp_path / "weights.pt")
        return tmp_path / "weights.pt"

    return save


@pytest.fixture
def refuse_export(cli: Cli, tmp_path: Path, fields_file: Path) -> Refusal:
    """Run `export CHECKPOINT`, which must refuse and leave no file behind; return its message."""

    def run(checkpoint: Path, *options: object) -> str:
        arguments = (*(options or ("--config", fields_file)), "-o", tmp_path / "out" / "x.bundle")
        message = refusal(cli("export", checkpoint, *arguments))
        assert not (tmp_path / "out").exists()
        return message

    return run


@pytest.fixture
def refuse_generate(cli: Cli, digits_bundle: Path, tmp_path: Path) -> Refusal:
    """Run `generate`, which must refuse its options and leave no file behind; return its message."""

    def run(*options: object, lines: int = 1) -> str:
        arguments = ("--backend", "null", *options, "-o", tmp_path / "refused.png")
        message = refusal(cli("generate", digits_bundle, *arguments), lines)
        assert [file.name for file in tmp_path.iterdir() if "refused" in file.name] == []
        return message

    return run
