"""Weights files of the tiny network, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from networks import DATA
from torch import Tensor

from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint
from bcm_edge.model.config import read_fields

Weights = dict[str, Tensor]
CONFIG = DATA / "tiny.json"


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def loaded(path: Path) -> Checkpoint:
    return load_checkpoint(path, read_fields(CONFIG))


def holds(checkpoint: Checkpoint, expected: Weights) -> bool:
    """Whether a checkpoint has exactly these tensors."""
    held = checkpoint.state_dict
    return held.keys() == expected.keys() and all(
        torch.equal(held[name], tensor) for name, tensor in expected.items()
    )
