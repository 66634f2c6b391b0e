"""Weights files of the tiny network."""

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
DIGITS_FIELDS = {"image_size": 8, "num_head_channels": 32, "norm_groups": 8}  # not visible in the tensors


def saved(path: Path, value: Any) -> Path:
    """Write a value with torch.save. Return the path."""
    torch.save(value, path)
    return path


def loaded(path: Path) -> Checkpoint:
    """Load a weights file with the configuration of the tiny network."""
    return load_checkpoint(path, read_fields(CONFIG))


def holds(checkpoint: Checkpoint, expected: Weights) -> bool:
    """Return whether a checkpoint has exactly these tensors."""
    return same_tensors(checkpoint.state_dict, expected)


def same_tensors(actual: Weights, expected: Weights) -> bool:
    """Return whether two sets of named tensors have the same names and are equal to the bit."""
    if actual.keys() != expected.keys():
        return False
    return all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
