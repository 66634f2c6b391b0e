"""What a checkpoint is: where each field of its configuration comes from, and which fields are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .config import COSINE, NetworkConfig
from .infer_config import REQUIRED, fitting_presets, infer_config, inferred_fields, is_ict, merged_fields
from .state_dicts import find_network
from .weight_values import check_values
from .weights_files import read_weights

TENSORS, HEADER, OPTIONS, ASSUMED = "its tensors", "its header", "the options", "assumed"
_DEFAULTS = {"norm_groups": 32, "attention": COSINE, "resblock_updown": False}


@dataclass(frozen=True)
class Field:
    """A field of a configuration, and the source of its value."""

    name: str
    # None also for a network without classes.
    value: Any
    # TENSORS, HEADER, OPTIONS, ASSUMED, or "" for a missing field.
    source: str


@dataclass(frozen=True)
class Examination:
    """What a checkpoint says about its network."""

    # "bcm", "ict" for a consistency model with one noise level, or "edm" for a denoiser.
    kind: str
    tensors: int
    parameters: int
    # The types of the tensors, such as "float16"; several are separated by commas.
    stored_as: str
    fields: tuple[Field, ...]
    # The names of the presets that fit.
    presets: tuple[str, ...]
    # The names of the classes; None if the file has none.
    classes: tuple[str, ...] | None
    # Which weights of the file were used.
    notes: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The names of the fields that must be given."""
        return [field.name for field in self.fields if not field.source]


def examine(path: Path, known: Mapping[str, Any]) -> Examination:
    """Return what a checkpoint contains and what is missing to build its network.

    known: fields of the configuration from the user. Raises CheckpointError.
    """
    file = read_weights(path)
    where = str(path)
    tensors, notes = find_network(file.content, where)
    notes += check_values(tensors, where)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    header = file.metadata.get("config", {})
    given = merged_fields(header, known, where)
    inferred = inferred_fields(shapes, where)
    if all(name in given for name in REQUIRED):
        infer_config(shapes, given, where)  # raises an error for a contradiction
    sources = {
        **dict.fromkeys(_DEFAULTS, HEADER if header else ASSUMED),
        **dict.fromkeys(known, OPTIONS),
        **dict.fromkeys(header, HEADER),
        **dict.fromkeys(inferred, TENSORS),
    }
    values = {**_DEFAULTS, **given, **inferred}
    names = [field.name for field in fields(NetworkConfig)]
    objective = file.metadata.get("provenance", {}).get("objective", "bcm")
    classes = file.metadata.get("classes")
    return Examination(
        kind="ict" if is_ict(shapes) else objective,
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        stored_as=", ".join(
            sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
        ),
        fields=tuple(Field(name, values.get(name), sources.get(name, "")) for name in names),
        presets=tuple(fitting_presets(inferred)),
        classes=None if classes is None else tuple(classes),
        notes=tuple(notes),
    )
