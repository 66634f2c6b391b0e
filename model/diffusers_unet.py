"""Read the U-Net of a ConsistencyModelPipeline of diffusers: its configuration, and the names of its tensors.

UNet2DModel with residual blocks is the ADM U-Net of this package under other names. Three things differ:

- Attention has separate matrices for queries, keys and values, in the order in which `qkv` joins them.
- The network has one time embedding, so it is a consistency model f(x, t), as iCT is.
- Its time input is that of `warp`: 250 ln t.

The pipeline makes f(x, t) from the network with the c_in and c_out of this package for u = 0.002. Its c_skip
is 0.25 / ((t - 0.002)² + 0.25), and differs: on x of standard deviation √(t² + 0.25), by at most 0.002.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..runtime.schedule import SIGMA_DATA, SIGMA_MAX, SIGMA_MIN
from ..runtime.storage.not_bundles import PIPELINE_FILE, UNET_WEIGHTS
from ..runtime.wording import listed
from .config import DOT_PRODUCT, read_fields

PIPELINE, NETWORK = "ConsistencyModelPipeline", "UNet2DModel"

# Field of UNet2DModel → (its default, the values that the network of this package can express).
# block_out_channels, the block types and num_class_embeds also follow from the tensors.
_FIELDS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "center_input_sample": (False, (False,)),
    "time_embedding_type": ("positional", ("positional",)),
    "freq_shift": (0, (0,)),
    "flip_sin_to_cos": (True, (True,)),
    "mid_block_type": ("UNetMidBlock2D", ("UNetMidBlock2D",)),
    "mid_block_scale_factor": (1, (1,)),
    "add_attention": (True, (True,)),
    "downsample_padding": (1, (1,)),
    "downsample_type": ("conv", ("conv", "resnet")),
    "upsample_type": ("conv", ("conv", "resnet")),
    "act_fn": ("silu", ("silu", "swish")),
    "norm_eps": (1e-5, (1e-5,)),
    "resnet_time_scale_shift": ("default", ("default", "scale_shift")),
    "class_embed_type": (None, (None,)),
    "num_train_timesteps": (None, (None,)),
}
_DOWN_BLOCKS = ("DownBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D")
_UP_BLOCKS = ("UpBlock2D", "ResnetUpsampleBlock2D", "AttnUpBlock2D")
_SCHEDULER = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX, "sigma_data": SIGMA_DATA}

_OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "label_emb",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_IN_ATTENTION = {"group_norm": "norm", "to_out.0": "proj_out"}
_BLOCK = re.compile(
    r"(?P<part>down_blocks|mid_block|up_blocks)(?:\.(?P<level>\d+))?"
    r"\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<index>\d+)\.(?P<inner>.+)"
)
_QKV = ("to_q", "to_k", "to_v")


def unet_folder(path: Path) -> Path | None:
    """Return the folder of the U-Net in a pipeline of diffusers.

    path: the pipeline, the folder of the U-Net or its weights file. None for other paths. Raises
    CheckpointError for another pipeline, another network, and noise levels other than those of a BCM.
    """
    if path.name.startswith(UNET_WEIGHTS) and path.is_file():
        path = path.parent
    index, config = path / PIPELINE_FILE, path / "config.json"
    if index.is_file():
        kind = read_fields(index).get("_class_name")
        if kind != PIPELINE:
            raise CheckpointError(f"{path}: a {kind} of diffusers; only a {PIPELINE} can be read")
        _check_scheduler(path / "scheduler" / "scheduler_config.json")
        path = path / "unet"
        config = path / "config.json"
        if not config.is_file():
            raise CheckpointError(f"{config}: missing; download the folder unet of the pipeline as well")
    elif not config.is_file() or "_diffusers_version" not in read_fields(config):
        return None
    kind = read_fields(config).get("_class_name")
    if kind != NETWORK:
        raise CheckpointError(f"{config}: a {kind} of diffusers; only a {NETWORK} can be read")
    return path


def network_fields(unet: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a network that its tensors do not show, from the configuration of a UNet2DModel.

    Raises CheckpointError if the network of this package cannot express the configuration.
    """
    for name, (default, accepted) in _FIELDS.items():
        value = unet.get(name, default)
        if value not in accepted:
            raise _cannot_express(name, value, f"only {listed([repr(each) for each in accepted])}", where)
    for name, accepted in (("down_block_types", _DOWN_BLOCKS), ("up_block_types", _UP_BLOCKS)):
        blocks = unet.get(name, ())
        if not isinstance(blocks, (list, tuple)):
            raise _cannot_express(name, blocks, f"a list of {listed(accepted)}", where)
        if other := [block for block in blocks if block not in accepted]:
            raise _cannot_express(name, other[0], f"only {listed(accepted)}", where)
    groups, attention_groups = unet.get("norm_num_groups", 32), unet.get("attn_norm_num_groups")
    if attention_groups is None and unet.get("resnet_time_scale_shift") == "scale_shift":
        raise _cannot_express("attn_norm_num_groups", None, "no attention without normalisation", where)
    if attention_groups not in (None, groups):
        raise _cannot_express("attn_norm_num_groups", attention_groups, f"only {groups}", where)
    return {
        "image_size": unet.get("sample_size"),
        "num_head_channels": unet.get("attention_head_dim", 8),
        "norm_groups": groups,
        "attention": DOT_PRODUCT,
    }


def renamed(tensors: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Return the tensors by the names of this package. Raises CheckpointError for an unknown name."""
    levels = [re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name) for name in tensors]
    blocks = len({match[1] for match in levels if match})  # residual blocks per level
    with_attention = {name.partition(".attentions.")[0] for name in tensors if ".attentions." in name}
    result: dict[str, Tensor] = {}
    try:
        for name, tensor in tensors.items():
            owner, _, kind = name.rpartition(".")  # kind: weight or bias
            if owner.endswith(_QKV):
                if not owner.endswith("to_q"):
                    continue
                parts = [tensors[f"{owner.removesuffix('to_q')}{part}.{kind}"] for part in _QKV]
                owner, tensor = owner.removesuffix("to_q") + "qkv", torch.cat(parts)
            new = f"{_renamed(owner, blocks, with_attention)}.{kind}"
            is_matrix = new.endswith((".qkv.weight", ".proj_out.weight"))
            result[new] = tensor[:, :, None, None] if is_matrix else tensor  # a 1×1 convolution
    except (KeyError, AttributeError, TypeError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{where}: not the weights of a {NETWORK} of diffusers ({error})") from error
    return result


def _renamed(owner: str, blocks: int, with_attention: set[str]) -> str:
    """Return the name of a module. blocks: residual blocks per level. Raises KeyError."""
    if owner in _OUTER:
        return _OUTER[owner]
    match = _BLOCK.fullmatch(owner)
    if match is None:
        raise KeyError(owner)
    part, kind, inner, index = match["part"], match["kind"], match["inner"], int(match["index"])
    level = int(match["level"] or 0)
    if part == "mid_block":
        stage = f"middle_block.{2 * index if kind == 'resnets' else 1}"
    elif kind in ("downsamplers", "upsamplers"):
        stage = _resampling_stage(part, level, blocks, f"up_blocks.{level}" in with_attention)
    else:
        first = 1 + level * (blocks + 1) if part == "down_blocks" else level * (blocks + 1)
        side = "input_blocks" if part == "down_blocks" else "output_blocks"
        stage = f"{side}.{first + index}.{1 if kind == 'attentions' else 0}"
    if kind == "attentions":
        return f"{stage}.{'qkv' if inner == 'qkv' else _IN_ATTENTION[inner]}"
    if inner == "conv" and kind in ("downsamplers", "upsamplers"):
        return f"{stage}.{'op' if kind == 'downsamplers' else 'conv'}"
    return f"{stage}.{_IN_RESNET[inner]}"


def _resampling_stage(part: str, level: int, blocks: int, after_attention: bool) -> str:
    """Return the block that changes the resolution at the end of a level."""
    last = level * (blocks + 1) + blocks
    if part == "down_blocks":
        return f"input_blocks.{last + 1}.0"
    return f"output_blocks.{last}.{2 if after_attention else 1}"


def _check_scheduler(config: Path) -> None:
    """Raise CheckpointError unless a scheduler has the noise levels of a BCM. It may be missing."""
    if not config.is_file():
        return
    fields = read_fields(config)
    for name, expected in _SCHEDULER.items():
        if fields.get(name, expected) != expected:
            raise CheckpointError(
                f"{config}: {name} is {fields[name]!r}; a BCM has {expected:g}, and its network cannot start "
                "from a network that was trained with another value"
            )


def _cannot_express(name: str, value: Any, accepted: str, where: str) -> CheckpointError:
    return CheckpointError(f"{where}: {name} is {value!r}; the network of a BCM can have {accepted}")
