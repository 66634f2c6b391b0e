"""engine.json: the record of a build, which states where its plans run and which files they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..storage.manifest import DIRECTIONS, PRECISIONS, FileFacts

FACTS = "engine.json"
SCHEMA = 3
UNREAD = "not reported"  # the type of a convolution that TensorRT's inspector does not report

Profile = tuple[int, int, int]  # the smallest batch, the batch that TensorRT optimises for, the largest


class OutdatedFactsError(ValueError):
    """An engine.json that an older version of this package wrote."""


@dataclass(frozen=True)
class BuildOptions:
    """The options of `bcm-edge build`."""

    precision: str = "fp16"
    # The optimisation profiles of every plan, in the order of their indices.
    profiles: tuple[Profile, ...] = ((1, 4, 16),)
    # Bytes of scratch memory that one layer may use. None: the limit of TensorRT, which is all memory of
    # the GPU; on a GPU that shares the memory of the processor, a share of what is free when the build
    # begins (`workspace_limit`).
    workspace: int | None = None
    # TensorRT's builder optimization level, from 0 (quick build) to 5.
    opt_level: int = 3
    # Whether plans contain no weights, which are then read from the graphs when the plans are loaded.
    stripped: bool = False
    # Whether the inverse graph alone is compiled, and serves both directions.
    single: bool = False

    @property
    def directions(self) -> tuple[str, ...]:
        """The graphs that are compiled: both directions, or "inverse" alone."""
        return ("inverse",) if self.single else DIRECTIONS

    @property
    def helpers(self) -> tuple[str, ...]:
        """The small graphs that are compiled besides. The inverse graph adds noise itself."""
        return ("to_uint8",) if self.single else ("add_noise", "to_uint8")

    @property
    def plans(self) -> tuple[str, ...]:
        """The names of all plans."""
        return (*self.directions, *self.helpers)

    @property
    def largest(self) -> int:
        """The largest batch of all profiles."""
        return max(largest for _, _, largest in self.profiles)

    @property
    def profiles_text(self) -> str:
        """The profiles in the words of `--batch`: "1:1:1 2:16:32"."""
        return " ".join(":".join(map(str, profile)) for profile in self.profiles)


@dataclass(frozen=True)
class EngineFacts:
    """The content of engine.json. The verdicts on the plans are in the manifest of the bundle."""

    tensorrt: str  # the version that built the plans
    gpu: str  # the name of the GPU
    capability: str  # its compute capability, "8.7"
    multiprocessors: int
    system: str  # "Linux aarch64"
    graphs: dict[str, str]  # file name → sha256 of the graphs and weights
    options: BuildOptions
    files: dict[str, FileFacts]  # plan → size and sha256
    types: dict[str, dict[str, int]]  # direction → type → number of convolutions that compute in it
    # direction → convolution → its type, for convolutions whose type has more bits than in the graph
    wider: dict[str, dict[str, str]]
    scratch: int  # bytes of device memory that all plans share
    seconds: float  # time that compiling took
    built: str  # time of the build, ISO 8601 in UTC
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the text of engine.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, values: Any) -> EngineFacts:
        """Check and convert the values of engine.json.

        Raises KeyError, TypeError, ValueError or AttributeError if they are malformed or of another schema.
        """
        _check_schema(values["schema"])
        _check_printable([str(values[name]) for name in ("tensorrt", "gpu", "capability", "system")])
        files, options = values["files"], _options(values["options"])
        return cls(
            tensorrt=str(values["tensorrt"]),
            gpu=str(values["gpu"]),
            capability=str(values["capability"]),
            multiprocessors=int(values["multiprocessors"]),
            system=str(values["system"]),
            graphs={str(name): str(digest) for name, digest in values["graphs"].items()},
            options=options,
            files={
                name: FileFacts(int(files[name]["size"]), str(files[name]["sha256"]))
                for name in options.plans
            },
            types={
                str(direction): {str(kind): int(count) for kind, count in types.items()}
                for direction, types in values["types"].items()
            },
            wider=_wider_types(values),
            scratch=int(values["scratch"]),
            seconds=float(values["seconds"]),
            built=str(values["built"]),
        )


def _check_schema(schema: object) -> None:
    """Raise ValueError if engine.json has another schema than this package reads."""
    if isinstance(schema, int) and 1 <= schema < SCHEMA:
        raise OutdatedFactsError("built by an older version of bcm-edge; run bcm-edge build again")
    if schema != SCHEMA:
        raise ValueError(f"schema {schema}, this package reads {SCHEMA}")


def _options(values: Any) -> BuildOptions:
    """Check and convert the build options in engine.json. Raises like `EngineFacts.from_json`."""
    profiles = tuple(_profile(sizes) for sizes in values["profiles"])
    if values["precision"] not in PRECISIONS or not profiles:
        raise ValueError("invalid build options")
    return BuildOptions(
        precision=values["precision"],
        profiles=profiles,
        workspace=None if values["workspace"] is None else int(values["workspace"]),
        opt_level=int(values["opt_level"]),
        stripped=bool(values["stripped"]),
        single=bool(values["single"]),
    )


def _profile(sizes: Any) -> Profile:
    smallest, common, largest = (int(size) for size in sizes)
    if not 1 <= smallest <= common <= largest:
        raise ValueError("invalid build options")
    return smallest, common, largest


def _wider_types(values: Any) -> dict[str, dict[str, str]]:
    """Check and convert `wider` of engine.json. Raises like `EngineFacts.from_json`."""
    wider: dict[str, dict[str, str]] = {}
    for direction, convolutions in values["wider"].items():
        types = {str(name): str(kind) for name, kind in convolutions.items()}
        _check_printable([*types.keys(), *types.values()])
        wider[str(direction)] = types
    if not wider.keys() <= values["types"].keys():
        raise ValueError("`wider` has a direction that `types` does not have")
    return wider


def _check_printable(names: Iterable[str]) -> None:
    """Raise ValueError for names with control characters: they are printed on terminals."""
    if not all(name.isprintable() for name in names):
        raise ValueError("a name with unprintable characters")
