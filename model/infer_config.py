"""Infer the configuration of a network from its tensors, and complete an iCT checkpoint to a BCM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .config import DOT_PRODUCT, NetworkConfig

Shapes = Mapping[str, tuple[int, ...]]
Fields = Mapping[str, Any]

# The released networks. image_size and num_head_channels cannot be inferred from tensors; the other fields
# identify the network. imagenet64 has no num_res_blocks, because there is a deeper variant.
PRESETS: dict[str, dict[str, Any]] = {
    "imagenet64": {
        "image_size": 64,
        "in_channels": 3,
        "model_channels": 192,
        "out_channels": 3,
        "attention_resolutions": [4, 8],
        "channel_mult": [1, 2, 3, 4],
        "num_classes": 1000,
        "num_head_channels": 64,
        "resblock_updown": True,
        "use_scale_shift_norm": False,
        "norm_groups": 32,
        "patch_size": 1,
    },
    # The LSUN models of openai/consistency_models: scripts/launch.sh, cm/script_util.py.
    "lsun256": {
        "image_size": 256,
        "in_channels": 3,
        "model_channels": 256,
        "out_channels": 3,
        "num_res_blocks": 2,
        "attention_resolutions": [8, 16, 32],
        "channel_mult": [1, 1, 2, 2, 4, 4],
        "num_classes": None,
        "num_head_channels": 64,
        "resblock_updown": True,
        "use_scale_shift_norm": False,
        "norm_groups": 32,
        "patch_size": 1,
        "attention": DOT_PRODUCT,
    },
}
# Name of a preset that cannot exist → why.
NO_PRESETS = {
    "cifar10": "no weights of a BCM of CIFAR-10 are published, and the networks of iCT and of OpenAI's "
    "consistency models for CIFAR-10 are NCSN++ networks. This package implements the ADM U-Net only. For an "
    "ADM U-Net of 32×32 pixels give --config FILE.json"
}

# Fields that the user or the file must provide.
REQUIRED = ("image_size", "num_head_channels")
_NOT_IN_TENSORS = (
    "image_size",
    "num_head_channels",
    "norm_groups",
    "attention",
)  # fields that cannot be inferred
_UP_BLOCK = re.compile(r"output_blocks\.\d+\.[12]\.(conv\.weight|in_layers\.2\.weight)$")


def merged_fields(header: Fields, known: Fields, where: str) -> dict[str, Any]:
    """Return the fields in the header of a file together with those that the user gave.

    where: the file, for messages. Raises CheckpointError if they contradict each other.
    """
    for name in _NOT_IN_TENSORS:
        if name in header and name in known and header[name] != known[name]:
            raise CheckpointError(
                f"{where}: the file has {name} = {header[name]!r}, but {_source(known)} has {known[name]!r}. "
                "The file contains its configuration; leave out --preset and --config"
            )
    return {**header, **known}


def infer_config(shapes: Shapes, known: Fields, where: str) -> NetworkConfig:
    """Return the configuration of a network.

    shapes: name → shape of its tensors. known: fields from the file or the user; they complete the inferred
    fields. where: the file, for messages. Raises CheckpointError if they contradict the tensors.
    """
    inferred = inferred_fields(shapes, where)
    for name, value in inferred.items():
        if name in known and _comparable(name, known[name]) != value:
            raise CheckpointError(_contradiction(name, value, known, where))
    missing = [name for name in REQUIRED if name not in known]
    if missing:
        options = "".join(f"--preset {name}, or " for name in fitting_presets(inferred))
        these = "this field" if len(missing) == 1 else "these fields"
        raise CheckpointError(
            f"{where}: {' and '.join(missing)} cannot be inferred from its tensors; "
            f"pass {options}--config FILE.json with {these}"
        )
    return NetworkConfig.from_json({"resblock_updown": False, **known, **inferred}, where)


def fitting_presets(inferred: Fields) -> list[str]:
    """Return the names of the presets that no inferred field contradicts."""
    return [name for name, fields in PRESETS.items() if _fits(fields, inferred)]


def is_ict(shapes: Shapes) -> bool:
    """Return whether this is an iCT network: a consistency model f(x, t) with one time embedding."""
    if "time_embed.0.weight" not in shapes:
        return False
    return not any(name.startswith(("time_embed_end.", "time_embed_align.")) for name in shapes)


def complete_ict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add a second time embedding that does not change the output of the network, whatever u is.

    The weights that combine both embeddings are W_align = [I | 0].
    """
    completed = dict(state_dict)
    for name, tensor in state_dict.items():
        if name.startswith("time_embed."):
            completed[name.replace("time_embed.", "time_embed_end.")] = tensor.clone()
    width = state_dict["time_embed.2.weight"].shape[0]
    completed["time_embed_align.weight"] = torch.cat([torch.eye(width), torch.zeros(width, width)], dim=1)
    return completed


def _contradiction(name: str, inferred: Any, known: Fields, where: str) -> str:
    value = _comparable(name, known[name])
    message = f"{where}: the tensors have {name} = {inferred}, but {_source(known)} has {value!r}"
    if _preset(known):
        message += (
            "; a preset is for the released networks only. "
            "Pass --config FILE.json with image_size and num_head_channels"
        )
    return message


def _fits(fields: Fields, inferred: Fields) -> bool:
    """Return whether no inferred field contradicts these fields."""
    for name, value in fields.items():
        comparable = _comparable(name, value)
        if inferred.get(name, comparable) != comparable:
            return False
    return True


def _comparable(name: str, value: Any) -> Any:
    """Return a value in the form of `inferred_fields`: lists as tuples, attention_resolutions sorted."""
    if not isinstance(value, list):
        return value
    is_sorted = name == "attention_resolutions" and all(isinstance(item, int) for item in value)
    return tuple(sorted(value)) if is_sorted else tuple(value)


def _preset(known: Fields) -> str | None:
    """Return the name of the preset with these fields, or None."""
    return next((name for name, fields in PRESETS.items() if fields.items() <= known.items()), None)


def _source(known: Fields) -> str:
    preset = _preset(known)
    return f"--preset {preset}" if preset else "the configuration"


def inferred_fields(shapes: Shapes, where: str) -> dict[str, Any]:
    """Return the fields that follow from names and shapes of tensors. Raises CheckpointError."""
    try:
        return _fields_of(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        first = ", ".join(list(shapes)[:3])
        raise CheckpointError(
            f"{where}: not the state dict of a BCM ({error} is missing or has the wrong shape; "
            f"the first tensors are {first})"
        ) from error


def _fields_of(shapes: Shapes) -> dict[str, Any]:
    model_channels, in_channels, stem_size, _ = shapes["input_blocks.0.0.weight"]
    patch_size = stem_size // 3
    # Every level but the first has one block that increases the resolution.
    depth = 1 + sum(bool(_UP_BLOCK.match(name)) for name in shapes)
    stages = len({name.split(".")[1] for name in shapes if name.startswith("output_blocks.")})
    # The decoder has num_res_blocks + 1 stages per level. The encoder has num_res_blocks, and one that
    # reduces the resolution. Stage 0 of the encoder is the first convolution.
    per_level = stages // depth
    first_stages = [1 + level * per_level for level in range(depth)]
    channels = [shapes[f"input_blocks.{stage}.0.out_layers.3.weight"][0] for stage in first_stages]
    attention = [f"input_blocks.{stage}.1.qkv.weight" in shapes for stage in first_stages]
    first_block = "input_blocks.1.0"
    embedding_outputs = shapes[f"{first_block}.emb_layers.1.weight"][0]
    fields: dict[str, Any] = {
        "model_channels": model_channels,
        "in_channels": in_channels,
        "out_channels": shapes["out.2.weight"][0] // patch_size**2,
        "num_res_blocks": per_level - 1,
        "channel_mult": tuple(count // model_channels for count in channels),
        "attention_resolutions": tuple(2**level for level in range(depth) if attention[level]),
        "num_classes": shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
        "use_scale_shift_norm": embedding_outputs == 2 * shapes[f"{first_block}.out_layers.3.weight"][0],
        "patch_size": patch_size,
    }
    if depth > 1:  # a network with one level never changes the resolution
        fields["resblock_updown"] = not any(name.endswith(".op.weight") for name in shapes)
    return fields
