"""The torch network as a backend: what every exported graph is compared with."""

from __future__ import annotations

import numpy as np
import torch

from ..runtime.schedule import Move
from .preconditioning import ConsistencyModel


class TorchBackend:
    """Plays moves with a ConsistencyModel on the CPU, in float32 (the contract of runtime/backends/base.py)."""

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
        state = torch.from_numpy(x if noise is None else x + noise)
        t, u = (torch.full((len(x),), level, dtype=torch.float32) for level in (move.t, move.u))
        return self.model(state, t, u, None if labels is None else torch.from_numpy(labels)).numpy()

    def close(self) -> None:
        """Nothing to free: the model belongs to the caller."""
