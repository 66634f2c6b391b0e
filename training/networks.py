"""The networks that training starts from: a new one for the data, or that of a checkpoint.

A BCM can start from an EDM denoiser D(x, t), as in consistency tuning (ECT, arXiv 2406.14548). The second
embedding of its network F is made constant. Then F does not depend on u, and

    f(x, t, u) = c_skip(t, u) x + c_out(t, u) F(c_in(t) x, τ(t)) = x + (u - t) (x - D(x, t)) / t

for all t and u. So the model starts as one step of Euler's method along the probability flow, in both
directions, which is accurate for neighbouring levels. Training extends it to distant levels.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.checkpoint import Checkpoint
from ..model.config import NetworkConfig
from ..model.preconditioning import Denoiser, Preconditioned, warp
from ..runtime.machine.resources import check_memory
from ..runtime.schedule import SIGMA_MIN
from .dataset import Dataset

Model = TypeVar("Model", bound=Preconditioned)

PATCHED = 24  # pixels; smaller images are not divided into patches
# Tensors of the size of the first level that a training step holds at least; 200 to 290 were measured.
HELD = 100


def network_for(dataset: Dataset, channels: int, levels: int | None = None) -> NetworkConfig:
    """Return a small U-Net for these images.

    levels: the number of resolutions, each half of the one before; None halves them until 4 to 7 pixels a
    side are left. The first level has `channels` channels, and the others have twice as many. Images with an
    even side of at least PATCHED pixels are divided into patches of 2×2 pixels, which makes the first level
    four times cheaper. Raises CheckpointError for a side that cannot be halved so often.
    """
    _, image_channels, side, _ = dataset.images.shape
    patch_size = 2 if side >= PATCHED and side % 2 == 0 else 1
    if levels is None:
        levels, size = 1, side // patch_size
        while size % 2 == 0 and size >= 8:
            levels, size = levels + 1, size // 2
    return NetworkConfig(
        image_size=side,
        in_channels=image_channels,
        model_channels=channels,
        out_channels=image_channels,
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
    """Return the configuration of a network to fine-tune. Raises InputError if it does not fit the data."""
    image_shape = tuple(dataset.images.shape[1:])
    if image_shape != config.sample_shape:
        raise InputError(
            f"{dataset.name}: its images are {_times(image_shape)}, the network takes "
            f"{_times(config.sample_shape)}"
        )
    one_has_none = (dataset.num_classes is None) != (config.num_classes is None)
    if one_has_none or (dataset.num_classes or 0) > (config.num_classes or 0):
        raise InputError(
            f"{dataset.name}: it has {dataset.num_classes or 'no'} classes, "
            f"the network has {config.num_classes or 'none'}"
        )
    return config


def check_step(batch: int, channels: int, image_size: int, patch_size: int = 2) -> None:
    """Raise InputError if a training step of such a network does not fit into memory.

    batch: images per step. channels: the channels of the first level.
    """
    check_memory(
        4 * HELD * batch * channels * (image_size // patch_size) ** 2,
        f"a training step of {batch} images of {image_size}×{image_size} pixels with {channels} channels",
        "give a smaller --image-size, --batch or --channels",
    )


def new_model(kind: type[Model], config: NetworkConfig, seed: int) -> Model:
    """Return a model to train, with random weights. Every residual branch and F itself start as zero."""
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


def initial_weights(checkpoint: Checkpoint, objective: str) -> dict[str, Tensor]:
    """Return the weights to start from, by the names of the U-Net's parameters.

    A BCM may start from a denoiser, which is made independent of u. Otherwise, the checkpoint must have the
    objective of the training. Raises CheckpointError if it does not.
    """
    if objective == "bcm" and checkpoint.objective == "edm":
        return _independent_of_u(checkpoint)
    checkpoint.require(objective)
    return checkpoint.state_dict


def teacher_of(checkpoint: Checkpoint, dataset: Dataset) -> Denoiser:
    """Return the denoiser of a checkpoint, with constant parameters. Its network may be another one.

    Raises CheckpointError for another objective, InputError if images or classes are not those of the data.
    """
    checkpoint.require("edm")
    fitting(checkpoint.config, dataset)
    if checkpoint.classes is not None and checkpoint.classes != dataset.classes:
        raise InputError(
            f"{checkpoint.name}: its classes are {', '.join(checkpoint.classes)}, in this order; "
            f"those of {dataset.name} differ, so the teacher would get other class numbers"
        )
    return checkpoint.denoiser().requires_grad_(False)


def _independent_of_u(denoiser: Checkpoint) -> dict[str, Tensor]:
    """Return the weights of a denoiser with a constant second embedding: that of the level 0.002.

    A denoiser was trained with this level only. The last layer of the embedding gets weights of zero, which
    have a gradient, and the constant as its bias.
    """
    network = denoiser.denoiser().network
    lowest = warp(torch.tensor([SIGMA_MIN]))
    constant = network.time_embed_end(network.embedding(lowest))[0]
    weight = denoiser.state_dict["time_embed_end.2.weight"]
    return {
        **denoiser.state_dict,
        "time_embed_end.2.weight": torch.zeros_like(weight),
        "time_embed_end.2.bias": constant,
    }


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
