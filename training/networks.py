"""The networks that training starts from: of a size that suits the data, or given and checked against it."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from ..errors import InputError
from ..model.config import NetworkConfig
from ..model.preconditioning import Preconditioned
from ..runtime.machine.resources import check_memory
from .dataset import Dataset

Model = TypeVar("Model", bound=Preconditioned)

PATCHED = 24  # pixels; what is smaller is cheap enough as it is
HELD = 100  # tensors of the size of the first level that a step holds at least; 200 to 290 were measured


def network_for(dataset: Dataset, channels: int) -> NetworkConfig:
    """A small U-Net for these images: halved until 4 … 7 pixels are left, `channels` at the first level and twice that below.

    Images of PATCHED pixels and more, and of an even side, are taken in patches of 2×2, which makes the first level four times cheaper.
    """
    _, c, height, _ = dataset.images.shape
    patch_size = 2 if height >= PATCHED and height % 2 == 0 else 1
    levels, size = 1, height // patch_size
    while size % 2 == 0 and size >= 8:
        levels, size = levels + 1, size // 2
    return NetworkConfig(
        image_size=height,
        in_channels=c,
        model_channels=channels,
        out_channels=c,
        num_res_blocks=1,
        attention_resolutions=(),
        channel_mult=(1, *[2] * (levels - 1)),
        num_classes=dataset.num_classes,
        num_head_channels=channels,
        resblock_updown=False,
        use_scale_shift_norm=True,
        norm_groups=8,
        patch_size=patch_size,
    )


def fitting(config: NetworkConfig, dataset: Dataset) -> NetworkConfig:
    """The configuration of a network to fine-tune, if this data can be shown to it. Raises InputError."""
    if tuple(dataset.images.shape[1:]) != config.sample_shape:
        theirs, ours = (
            "×".join(map(str, shape)) for shape in (dataset.images.shape[1:], config.sample_shape)
        )
        raise InputError(f"{dataset.name}: its images are {theirs}, the network takes {ours}")
    if (dataset.num_classes is None) != (config.num_classes is None) or (dataset.num_classes or 0) > (
        config.num_classes or 0
    ):
        raise InputError(
            f"{dataset.name}: it has {dataset.num_classes or 'no'} classes, the network {config.num_classes or 'none'}"
        )
    return config


def check_step(batch: int, channels: int, image_size: int, patch_size: int = 2) -> None:
    """Raise InputError if no training step of such a network and batch fits in memory. channels: at the first level."""
    check_memory(
        4 * HELD * batch * channels * (image_size // patch_size) ** 2,
        f"a training step of {batch} images of {image_size}×{image_size} pixels with {channels} channels",
        "give a smaller --image-size, --batch or --channels",
    )


def new_model(kind: type[Model], config: NetworkConfig, seed: int) -> Model:
    """A model to train: random weights, but every residual branch and F itself begin at zero."""
    torch.manual_seed(seed)
    model = kind(config)
    for name, layer in model.network.named_modules():
        if name.endswith(("out_layers.3", "proj_out", "out.2")):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
    for parameter in model.parameters():
        if parameter.ndim == 4:  # convolutions of this size are faster on a CPU with the channels last
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
