"""engine.json: the record of a build, which states where its plans run and which files they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..storage.manifest import DIRECTIONS, PRECISIONS, FileFacts

FACTS = "engine.json"
HELPERS = ("add_noise", "to_uint8")
PLANS = (*DIRECTIONS, *HELPERS)
SCHEMA = 2
UNREAD = "not reported"  # the type of a convolution that TensorRT's inspector does not report


@dataclass(frozen=True)
class BuildOptions:
    """The options of `bcm-edge build`."""

    precision: str = "fp16"
    # The smallest, the most common and the largest batch.
    batch: tuple[int, int, int] = (1, 4, 16)
    # Bytes of scratch memory that one layer may use. None: the limit of TensorRT, which is all memory of
    # the GPU; on a GPU that shares the memory of the processor, a share of what is free when the build
    # begins (`workspace_limit`).
    workspace: int | None = None
    # TensorRT's builder optimization level, from 0 (quick build) to 5.
    opt_level: int = 3
    # Whether plans contain no weights, which are then read from the graphs when the plans are loaded.
    stripped: bool = False


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

        Raises KeyError, TypeError, ValueError or AttributeError if they are malformed or of a newer schema.
        """
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']}, this package reads {SCHEMA}")
        _check_printable([str(values[name]) for name in ("tensorrt", "gpu", "capability", "system")])
        files = values["files"]
        return cls(
            tensorrt=str(values["tensorrt"]),
            gpu=str(values["gpu"]),
            capability=str(values["capability"]),
            multiprocessors=int(values["multiprocessors"]),
            system=str(values["system"]),
            graphs={str(name): str(digest) for name, digest in values["graphs"].items()},
            options=_options(values["options"]),
            files={name: FileFacts(int(files[name]["size"]), str(files[name]["sha256"])) for name in PLANS},
            types={
                str(direction): {str(kind): int(count) for kind, count in types.items()}
                for direction, types in values["types"].items()
            },
            wider=_wider_types(values),
            scratch=int(values["scratch"]),
            seconds=float(values["seconds"]),
            built=str(values["built"]),
        )


def _options(values: Any) -> BuildOptions:
    """Check and convert the build options in engine.json. Raises like `EngineFacts.from_json`."""
    smallest, common, largest = (int(size) for size in values["batch"])
    if values["precision"] not in PRECISIONS or not 1 <= smallest <= common <= largest:
        raise ValueError("invalid build options")
    return BuildOptions(
        precision=values["precision"],
        batch=(smallest, common, largest),
        workspace=None if values["workspace"] is None else int(values["workspace"]),
        opt_level=int(values["opt_level"]),
        stripped=bool(values["stripped"]),
    )


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
