"""What a BCM network looks like: the fields of the authors' configuration, as a value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

_COUNTS = (
    "image_size",
    "in_channels",
    "model_channels",
    "out_channels",
    "num_res_blocks",
    "num_head_channels",
    "norm_groups",
    "patch_size",
)  # fields that are positive integers


@dataclass(frozen=True)
class NetworkConfig:
    """An ADM U-Net with two time embeddings (arXiv 2105.05233 with the second embedding of arXiv 2403.18035).

    The field names are those of the authors' JSON files, but for the last two. Level i of the U-Net runs at
    image_size / patch_size / 2**i pixels with model_channels * channel_mult[i] channels; attention_resolutions lists the downsampling
    factors 2**i that have attention.
    """

    image_size: int
    in_channels: int
    model_channels: int
    out_channels: int
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    channel_mult: tuple[int, ...]
    num_classes: int | None
    num_head_channels: int
    resblock_updown: bool
    use_scale_shift_norm: bool
    norm_groups: int = 32  # groups of every GroupNorm; the authors' networks have 32
    patch_size: int = 1  # the first convolution takes patches of so many pixels square, the last one gives them back; the authors' take 1

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise CheckpointError(f"this network cannot be built: {problem}")

    def _problem(self) -> str | None:
        """The first reason why no network has these fields, or None."""
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                return f"{name} must be a positive integer, not {value!r}"
        if self.num_classes is not None and (not isinstance(self.num_classes, int) or self.num_classes < 1):
            return f"num_classes must be null or a positive integer, not {self.num_classes!r}"
        if not self.channel_mult or not all(isinstance(m, int) and m > 0 for m in self.channel_mult):
            return f"channel_mult must list positive integers, not {self.channel_mult!r}"
        if self.model_channels % 2:
            return f"model_channels is also the width of the sinusoidal embedding and must be even, not {self.model_channels}"
        halvings = len(self.channel_mult) - 1
        if self.image_size % (self.patch_size * 2**halvings):
            patches = f"divided by patches of {self.patch_size} and then " if self.patch_size > 1 else ""
            return f"image_size {self.image_size} cannot be {patches}halved {halvings} times"
        if self.in_channels != self.out_channels:
            return f"in_channels {self.in_channels} and out_channels {self.out_channels} differ, but f(x, t, u) has the shape of x"
        for level, mult in enumerate(self.channel_mult):
            channels = mult * self.model_channels
            if channels % self.norm_groups:
                return f"{channels} channels at level {level} do not divide into {self.norm_groups} groups"
            if channels % self.num_head_channels and (
                2**level in self.attention_resolutions or level == len(self.channel_mult) - 1
            ):
                return f"{channels} channels at level {level} do not divide into heads of {self.num_head_channels}"
        return None

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.in_channels, self.image_size, self.image_size

    @property
    def embedding_channels(self) -> int:
        """Width of the conditioning vector: four times model_channels, as in ADM."""
        return 4 * self.model_channels

    @property
    def image_memory(self) -> int:
        """Bytes that one image takes in the network at least: its activations at full resolution, or the largest attention's weights."""
        side = self.image_size // self.patch_size
        levels = [(2**level, mult * self.model_channels) for level, mult in enumerate(self.channel_mult)]
        attention = [
            4 * (channels // self.num_head_channels) * (side // factor) ** 4
            for factor, channels in levels
            if factor in self.attention_resolutions or factor == levels[-1][0]
        ]
        return max(4 * 2 * levels[0][1] * side**2, *attention)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; `from_json` reads them back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any], where: str = "configuration") -> NetworkConfig:
        """Build from JSON values. Raises CheckpointError naming unknown or missing fields."""
        known = {f.name for f in fields(cls)}
        required = known - {"norm_groups", "patch_size"}
        if not isinstance(values, dict):
            raise CheckpointError(f"{where}: expected a JSON object with {', '.join(sorted(required))}")
        if unknown := sorted(set(values) - known):
            raise CheckpointError(
                f"{where}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(known))}"
            )
        if missing := sorted(required - set(values)):
            raise CheckpointError(f"{where}: field {missing[0]!r} is missing")
        sequences = {name: values[name] for name in ("attention_resolutions", "channel_mult")}
        for name, value in sequences.items():
            if not isinstance(value, (list, tuple)):
                raise CheckpointError(f"{where}: {name} must be a list, not {value!r}")
        try:
            return cls(**{**values, **{name: tuple(value) for name, value in sequences.items()}})
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from None


def read_fields(path: Path) -> dict[str, Any]:
    """Some or all configuration fields from a JSON file. Raises CheckpointError."""
    if path.exists() and not path.is_file():  # to open a pipe may wait for ever
        raise CheckpointError(f"{path}: a folder, a device or a pipe; a configuration must be a regular file")
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors write a byte order mark
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a JSON object of configuration fields")
    return values
