"""What a state dict's names and shapes tell about its network, and how an iCT checkpoint becomes a BCM to fine-tune."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .config import NetworkConfig

Shapes = Mapping[str, tuple[int, ...]]

# The released networks: what their tensors do not tell (image_size, num_head_channels), and what tells that a network is one of them.
# The depth is read off the tensors, since there is a -deep variant.
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
    }
}

_UP_BLOCK = re.compile(r"output_blocks\.\d+\.[12]\.(conv\.weight|in_layers\.2\.weight)$")


def merged_fields(header: Mapping[str, Any], known: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields in a file's header and those that the user gives. Raises CheckpointError on a contradiction."""
    for name in ("image_size", "num_head_channels", "norm_groups"):  # which no tensor tells
        if name in header and name in known and header[name] != known[name]:
            contradiction = f"the file says {name} = {header[name]!r}, {_source(known)} says {known[name]!r}"
            raise CheckpointError(
                f"{where}: {contradiction}. The file brings its configuration; leave out --preset and --config"
            )
    return {**header, **known}


def infer_config(shapes: Shapes, known: Mapping[str, Any], where: str) -> NetworkConfig:
    """The configuration that names and shapes tell, completed by `known` fields. Raises CheckpointError on a contradiction."""
    told = _told_by_tensors(shapes, where)
    for name, value in told.items():
        if name in known and (given := _comparable(name, known[name])) != value:
            message = f"{where}: the tensors say {name} = {value}, {_source(known)} says {given!r}"
            if _preset(known):
                message += "; a preset is for the released networks alone. Pass --config FILE.json with image_size and num_head_channels"
            raise CheckpointError(message)
    if missing := [name for name in ("image_size", "num_head_channels") if name not in known]:
        fitting = [f"--preset {name}, or " for name, fields in PRESETS.items() if _fits(fields, told)]
        advice = f"pass {''.join(fitting)}--config FILE.json with {'this field' if len(missing) == 1 else 'these fields'}"
        raise CheckpointError(f"{where}: its tensors do not tell {' and '.join(missing)}; {advice}")
    return NetworkConfig.from_json({"resblock_updown": False, **known, **told}, where)


def _fits(fields: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether nothing that tensors tell contradicts these fields."""
    return all(
        _comparable(name, value) == told.get(name, _comparable(name, value)) for name, value in fields.items()
    )


def _comparable(name: str, value: Any) -> Any:
    """A field's value as `_told_by_tensors` has it: lists as tuples, attention_resolutions in order."""
    if not isinstance(value, list):
        return value
    in_order = name == "attention_resolutions" and all(isinstance(item, int) for item in value)
    return tuple(sorted(value)) if in_order else tuple(value)


def _preset(known: Mapping[str, Any]) -> str | None:
    """The preset that these fields are."""
    return next((name for name, fields in PRESETS.items() if fields.items() <= known.items()), None)


def _source(known: Mapping[str, Any]) -> str:
    preset = _preset(known)
    return f"--preset {preset}" if preset else "the configuration"


def _told_by_tensors(shapes: Shapes, where: str) -> dict[str, Any]:
    try:
        model_channels, in_channels, stem_size, _ = shapes["input_blocks.0.0.weight"]
        patch_size = stem_size // 3
        depth = 1 + sum(
            bool(_UP_BLOCK.match(name)) for name in shapes
        )  # every level but the first has one block that goes up
        stages = len({name.split(".")[1] for name in shapes if name.startswith("output_blocks.")})
        per_level = (
            stages // depth
        )  # num_res_blocks + 1 in the decoder; in the encoder num_res_blocks and one that goes down
        firsts = [1 + level * per_level for level in range(depth)]
        told: dict[str, Any] = {
            "model_channels": model_channels,
            "in_channels": in_channels,
            "out_channels": shapes["out.2.weight"][0] // patch_size**2,
            "num_res_blocks": per_level - 1,
            "channel_mult": tuple(
                shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0] // model_channels for i in firsts
            ),
            "attention_resolutions": tuple(
                2**level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in shapes
            ),
            "num_classes": shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
            "use_scale_shift_norm": shapes["input_blocks.1.0.emb_layers.1.weight"][0]
            == 2 * shapes["input_blocks.1.0.out_layers.3.weight"][0],
            "patch_size": patch_size,
        }
        if depth > 1:  # one level has nothing to resample
            told["resblock_updown"] = not any(name.endswith(".op.weight") for name in shapes)
        return told
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        first = ", ".join(list(shapes)[:3])
        raise CheckpointError(
            f"{where}: not the state dict of a BCM ({error} not found or misshapen; it begins with {first})"
        ) from error


def is_ict(shapes: Shapes) -> bool:
    """Whether this is an iCT network: a consistency model with one time embedding, f(x, t)."""
    return "time_embed.0.weight" in shapes and not any(
        name.startswith(("time_embed_end.", "time_embed_align.")) for name in shapes
    )


def complete_ict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the second embedding so that the network's output stays what it was for every u: W_align = [I | 0]."""
    added = {
        name.replace("time_embed.", "time_embed_end."): t.clone()
        for name, t in state_dict.items()
        if name.startswith("time_embed.")
    }
    width = state_dict["time_embed.2.weight"].shape[0]
    added["time_embed_align.weight"] = torch.cat([torch.eye(width), torch.zeros(width, width)], dim=1)
    return {**state_dict, **added}
