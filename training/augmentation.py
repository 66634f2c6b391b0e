"""Augmentation: random changes after which an image still belongs to its class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFT = 1  # pixels; the largest shift in each direction
KINDS = ("mirror", "shift")


def augmented(images: Tensor, kinds: Sequence[str], generator: torch.Generator) -> Tensor:
    """Return changed copies of images [N, C, H, W] on the CPU, of the same shape.

    kinds: "mirror" exchanges left and right of each image with probability 1/2; "shift" moves each image by
    -SHIFT to SHIFT pixels in both directions, all with equal probability, and repeats the pixels of the edge.
    """
    if "mirror" in kinds:
        chosen = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(chosen[:, None, None, None], images.flip(3), images)
    if "shift" in kinds:
        images = _shifted(images, torch.randint(2 * SHIFT + 1, (2, len(images)), generator=generator))
    return images


def _shifted(images: Tensor, corners: Tensor) -> Tensor:
    """Cut images out of their padded copies. corners: the first row and column of each image [2, N]."""
    _, _, height, width = images.shape
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    rows = corners[0][:, None] + torch.arange(height)
    columns = corners[1][:, None] + torch.arange(width)
    samples = torch.arange(len(images))[:, None, None]
    # Indexing moves the channels to the end: [N, H, W, C].
    return padded.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
