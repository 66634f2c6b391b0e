"""A processor on which two forward passes of one network differ by rounding: `pytest --rounding`.

On some processors two passes differ by about 1e-6 (tests/agreement.py explains why), on others they are
equal. With this option they differ on every processor, so a test that demands bit equality fails
everywhere. Every convolution and every linear layer of torch is off by a relative 1e-7, differently in
every call.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


def round_differently(patch: pytest.MonkeyPatch) -> None:
    """Make the layers of torch differ by rounding until the patch is undone."""
    for layer in (nn.Conv1d, nn.Conv2d, nn.Linear):
        patch.setattr(layer, "forward", _off_in_every_call(layer.forward))


def _off_in_every_call(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)  # separate from the generators of the tests

    def rounded(layer: nn.Module, x: Tensor) -> Tensor:
        out = forward(layer, x)
        if out.is_meta or torch.compiler.is_compiling():
            return out
        return out * (1 + 1e-7 * torch.randn(out.shape, generator=generator)).to(out)

    return rounded
