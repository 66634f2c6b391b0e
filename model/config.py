"""The configuration of a BCM network, with the fields of the authors' JSON files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

# Fields that are positive integers.
_COUNTS = (
    "image_size",
    "in_channels",
    "model_channels",
    "out_channels",
    "num_res_blocks",
    "num_head_channels",
    "norm_groups",
    "patch_size",
)
_OPTIONAL = {"norm_groups", "patch_size", "attention"}
COSINE, DOT_PRODUCT = ATTENTIONS = ("cosine", "dot_product")
_SEQUENCES = ("attention_resolutions", "channel_mult")


@dataclass(frozen=True)
class NetworkConfig:
    """An ADM U-Net (arXiv 2105.05233) with a second embedding of a noise level (arXiv 2403.18035).

    Level i of the U-Net works on image_size / patch_size / 2**i pixels a side, with
    model_channels * channel_mult[i] channels. Only the last three fields are not in the authors' JSON files.
    """

    # Pixels a side.
    image_size: int
    in_channels: int
    # Channels of the first level are this times channel_mult[0]; also the width of the sinusoidal embedding.
    model_channels: int
    out_channels: int
    # Residual blocks per level of the encoder.
    num_res_blocks: int
    # Downsampling factors 2**i of the levels with attention.
    attention_resolutions: tuple[int, ...]
    # Channels of each level, as a multiple of model_channels.
    channel_mult: tuple[int, ...]
    # None for an unconditional model.
    num_classes: int | None
    # Channels per attention head.
    num_head_channels: int
    # Whether residual blocks change the resolution; otherwise convolutions do.
    resblock_updown: bool
    # Whether the embedding scales and shifts features; otherwise it is added to them.
    use_scale_shift_norm: bool
    # Groups of every GroupNorm. The authors' networks have 32.
    norm_groups: int = 32
    # The first convolution reads patches of this many pixels a side, and the last one writes them. The
    # authors' networks have 1.
    patch_size: int = 1
    # "cosine": queries, keys and values are normalised, as in the authors' networks. "dot_product": they are
    # not, as in OpenAI's consistency models.
    attention: str = COSINE

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise CheckpointError(f"this network cannot be built: {problem}")

    def _problem(self) -> str | None:
        """Return the first reason why these fields are not valid, or None."""
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                return f"{name} must be a positive integer, not {value!r}"
        if self.num_classes is not None and (not isinstance(self.num_classes, int) or self.num_classes < 1):
            return f"num_classes must be null or a positive integer, not {self.num_classes!r}"
        if self.attention not in ATTENTIONS:
            return f"attention must be one of {', '.join(ATTENTIONS)}, not {self.attention!r}"
        if not self.channel_mult or not all(isinstance(m, int) and m > 0 for m in self.channel_mult):
            return f"channel_mult must list positive integers, not {self.channel_mult!r}"
        if self.model_channels % 2:
            return (
                "model_channels is also the width of the sinusoidal embedding and must be even, "
                f"not {self.model_channels}"
            )
        halvings = len(self.channel_mult) - 1
        if self.image_size % (self.patch_size * 2**halvings):
            patches = f"divided by patches of {self.patch_size} and then " if self.patch_size > 1 else ""
            return f"image_size {self.image_size} cannot be {patches}halved {halvings} times"
        if self.in_channels != self.out_channels:
            return (
                f"in_channels {self.in_channels} and out_channels {self.out_channels} differ, "
                "but f(x, t, u) has the shape of x"
            )
        return self._channel_problem()

    def _channel_problem(self) -> str | None:
        """Return the first level whose channels do not divide into groups or heads, or None."""
        for level, mult in enumerate(self.channel_mult):
            channels = mult * self.model_channels
            if channels % self.norm_groups:
                return f"{channels} channels at level {level} do not divide into {self.norm_groups} groups"
            if self._has_attention(level) and channels % self.num_head_channels:
                heads = f"heads of {self.num_head_channels}"
                return f"{channels} channels at level {level} do not divide into {heads}"
        return None

    def _has_attention(self, level: int) -> bool:
        """Return whether a level has attention. The block in the middle, after the last level, always has."""
        return 2**level in self.attention_resolutions or level == len(self.channel_mult) - 1

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        return self.in_channels, self.image_size, self.image_size

    @property
    def embedding_channels(self) -> int:
        """Width of the conditioning vector: four times model_channels, as in ADM."""
        return 4 * self.model_channels

    @property
    def image_memory(self) -> int:
        """The smallest number of bytes that one image needs in the network.

        This is the size of two activations at full resolution, or of the weights of the largest attention.
        """
        side = self.image_size // self.patch_size
        sizes = [4 * 2 * self.channel_mult[0] * self.model_channels * side**2]
        for level, mult in enumerate(self.channel_mult):
            if self._has_attention(level):
                heads = mult * self.model_channels // self.num_head_channels
                sizes.append(4 * heads * (side // 2**level) ** 4)
        return max(sizes)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; `from_json` reads them back.

        Cosine attention is left out, so that versions without this field read the bundles of most networks.
        """
        values = asdict(self)
        if self.attention == COSINE:
            del values["attention"]
        for name in _SEQUENCES:
            values[name] = list(values[name])
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any], where: str = "configuration") -> NetworkConfig:
        """Return the configuration with these JSON values.

        where: their source in error messages. Raises CheckpointError for unknown, missing or invalid fields.
        """
        known = {field.name for field in fields(cls)}
        required = known - _OPTIONAL
        if not isinstance(values, dict):
            raise CheckpointError(f"{where}: expected a JSON object with {', '.join(sorted(required))}")
        if unknown := sorted(set(values) - known):
            raise CheckpointError(
                f"{where}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(known))}"
            )
        if missing := sorted(required - set(values)):
            raise CheckpointError(f"{where}: field {missing[0]!r} is missing")
        sequences = {}
        for name in _SEQUENCES:
            value = values[name]
            if not isinstance(value, (list, tuple)):
                raise CheckpointError(f"{where}: {name} must be a list, not {value!r}")
            sequences[name] = tuple(value)
        try:
            return cls(**{**values, **sequences})
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from None


def read_fields(path: Path) -> dict[str, Any]:
    """Return some or all fields of a configuration from a JSON file. Raises CheckpointError."""
    if path.exists() and not path.is_file():  # opening a pipe could block forever
        raise CheckpointError(f"{path}: a folder, a device or a pipe; a configuration must be a regular file")
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors write a byte order mark
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a JSON object of configuration fields")
    return values
