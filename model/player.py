"""The torch network as a backend: the reference for every exported graph."""

from __future__ import annotations

import numpy as np
import torch

from ..runtime.schedule import Move
from .preconditioning import ConsistencyModel


class TorchBackend:
    """A backend (see runtime/backends/base.py) that runs a ConsistencyModel in float32 on the CPU."""

    name = "torch"
    precision = "fp32"
    device = "CPU"

    def __init__(self, model: ConsistencyModel) -> None:
        self.model = model.eval()
        self.sample_shape = model.config.sample_shape
        self.num_classes = model.config.num_classes

    @torch.inference_mode()
    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        """Return f(x + noise, move.t, move.u, labels), float32 [N, C, H, W]."""
        state = torch.from_numpy(x if noise is None else x + noise)
        t = torch.full((len(x),), move.t, dtype=torch.float32)
        u = torch.full((len(x),), move.u, dtype=torch.float32)
        label = None if labels is None else torch.from_numpy(labels)
        return self.model(state, t, u, label).numpy()

    def close(self) -> None:
        """Do nothing: the model belongs to the caller."""
