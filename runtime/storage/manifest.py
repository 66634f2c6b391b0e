"""The content of manifest.json, which describes a bundle (docs/bundle.md lists every field)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import BundleError, ScheduleError
from ..classes import class_names
from ..schedule import parse_schedule
from .verdicts import Verdict

SCHEMA = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
DIRECTIONS = ("forward", "inverse")
ON_CPUS = ("fp32", "fp16", "bf16", "int8")  # the most exact first
ON_GPUS = ("int8-fp16", "fp8")  # no library for CPUs is faster with these than with int8
# The first of them that a bundle has is its default, which therefore runs on every machine where possible.
PRECISIONS = (*ON_CPUS, *ON_GPUS)
CALIBRATED = ("int8", "int8-fp16", "fp8")  # with 8-bit values, whose ranges are measured on data
# Precision → those of the graphs from which `calibrate` makes its graphs.
MADE_FROM = {"int8": ("fp32",), "int8-fp16": ("fp32", "fp16"), "fp8": ("fp32", "fp16")}

# What Manifest.from_json raises for a malformed manifest.
_MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    ScheduleError,
)


@dataclass(frozen=True)
class ModelFacts:
    """The facts about the network that a runtime needs."""

    name: str
    # (C, H, W) of one image.
    sample_shape: tuple[int, int, int]
    # None for an unconditional model.
    num_classes: int | None
    # The number of weights.
    parameters: int
    # The fields of NetworkConfig (model/config.py).
    config: dict[str, Any]
    # The names of the classes, num_classes of them. None if the classes have no names.
    classes: tuple[str, ...] | None = None

    @classmethod
    def from_json(cls, values: Any) -> ModelFacts:
        """Return the facts with these JSON values. Raises KeyError, TypeError or ValueError if malformed."""
        channels, height, width = (_integer(size, 1, 1 << 16) for size in values["sample_shape"])
        num_classes = None if values["num_classes"] is None else _integer(values["num_classes"], 1)
        names = values.get("classes")
        classes = None if names is None else class_names(names)
        if classes is not None and len(classes) != num_classes:
            raise ValueError(f"{len(classes)} class names for {num_classes} classes")
        return cls(
            name=str(values["name"]),
            sample_shape=(channels, height, width),
            num_classes=num_classes,
            parameters=_integer(values["parameters"], 0),
            config=dict(values["config"]),
            classes=classes,
        )


@dataclass(frozen=True)
class FileFacts:
    """The size of a file in bytes, and its sha256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json."""

    model: ModelFacts
    # Precision → direction → file name.
    graphs: dict[str, dict[str, str]]
    # Name → text.
    schedules: dict[str, str]
    # File name → size and sha256, for every file but the manifest.
    files: dict[str, FileFacts]
    # What the bundle was made from, and with which versions and options.
    provenance: dict[str, Any] = field(default_factory=dict)
    # Schedule name → measure ("fréchet_ratio", "mse", …) → value.
    quality: dict[str, dict[str, Any]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    schema: int = SCHEMA

    def with_verdict(self, verdict: Verdict) -> Manifest:
        """Return the manifest with this verdict, which replaces an older one on the same subject."""
        others = [other for other in self.verdicts if other.subject != verdict.subject]
        return replace(self, verdicts=[*others, verdict])

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, values: Any) -> Manifest:
        """Return the manifest with these JSON values.

        Raises BundleError for a newer schema, KeyError, TypeError, ValueError or ScheduleError if malformed.
        """
        schema = _integer(values["schema"], 1)
        if schema > SCHEMA:
            versions = f"bundle schema {schema}, this version reads up to {SCHEMA}"
            raise BundleError(f"made by a newer bcm-edge ({versions}); upgrade bcm-edge")
        model = ModelFacts.from_json(values["model"])
        files = _files(values["files"])
        graphs = _graphs(values["graphs"], files)
        schedules = {str(name): str(parse_schedule(text)) for name, text in values["schedules"].items()}
        quality = {str(name): dict(measures) for name, measures in values.get("quality", {}).items()}
        verdicts = [Verdict.from_json(verdict) for verdict in values.get("verdicts", [])]
        return cls(model, graphs, schedules, files, dict(values["provenance"]), quality, verdicts, schema)


def parse_manifest(text: bytes, bundle: Path, file: str) -> Manifest:
    """Return the manifest with this content. Raises BundleError.

    bundle, file: the names of the bundle and of the file in messages.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{file}: not valid JSON ({error}); copy the bundle again or export it again"
        ) from error
    try:
        return Manifest.from_json(values)
    except BundleError as error:
        raise BundleError(f"{bundle}: {error}") from None
    except _MALFORMED as error:
        reason = f"{type(error).__name__}: {error}"
        raise BundleError(f"{file}: not a valid manifest ({reason})") from error


def _files(values: Any) -> dict[str, FileFacts]:
    files = {}
    for name, facts in values.items():
        files[str(name)] = FileFacts(_integer(facts["size"], 0), str(facts["sha256"]))
    return files


def _graphs(values: Any, files: dict[str, FileFacts]) -> dict[str, dict[str, str]]:
    graphs = {}
    for precision, pair in values.items():
        graphs[str(precision)] = {direction: str(pair[direction]) for direction in DIRECTIONS}
    if not set(graphs) & set(PRECISIONS):
        raise ValueError("it lists no graphs")
    names = {name for pair in graphs.values() for name in pair.values()}
    if absent := names - set(files):
        raise ValueError(f"graph {min(absent)} is not among the files")
    return graphs


def _integer(value: Any, low: int, high: int = 1 << 62) -> int:
    """Return the value. Raises ValueError unless it is an integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{value!r} is not an integer of at least {low}")
    return value
