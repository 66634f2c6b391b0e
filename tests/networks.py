"""Small networks that several test files export, play and damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bcm_edge.model.checkpoint import Checkpoint
from bcm_edge.model.config import NetworkConfig, read_fields
from bcm_edge.model.preconditioning import ConsistencyModel

DATA = Path(__file__).parent / "data"
TINY = NetworkConfig.from_json(read_fields(DATA / "tiny.json"))


def tiny_model() -> tuple[ConsistencyModel, dict[str, np.ndarray]]:
    """Return the authors' tiny network, and its recorded inputs and outputs.

    Weights and inputs are drawn from one frozen random stream. The outputs were recorded from the authors'
    code.
    """
    stream = np.random.RandomState(1234)
    weights = {}
    for key, shape in json.loads((DATA / "tiny_keys.json").read_text()):
        normal = stream.standard_normal(shape)
        if len(shape) > 1:
            values = normal * 0.9 / np.sqrt(np.prod(shape[1:]))
        else:
            values = 1 + 0.1 * normal if key.endswith("weight") else 0.05 * normal
        weights[key] = torch.from_numpy(values.astype(np.float32))
    recorded = dict(np.load(DATA / "tiny.npz"))
    images = [stream.standard_normal((2, 3, 16, 16)) * max(t, 0.5) for t, _ in recorded["pairs"]]
    recorded["x"] = np.stack([image.astype(np.float32) for image in images])
    model = ConsistencyModel(TINY)
    model.network.load_state_dict(weights)
    return model.eval().requires_grad_(False), recorded


def random_model(config: NetworkConfig = TINY) -> ConsistencyModel:
    """Return a network with random weights, the same in every call."""
    torch.manual_seed(1)
    return ConsistencyModel(config).eval().requires_grad_(False)


def tiny_checkpoint(**more: Any) -> Checkpoint:
    """Return the random network of TINY, as if it was read from a file tiny.pt."""
    return Checkpoint("tiny.pt", TINY, random_model().network.state_dict(), **more)
