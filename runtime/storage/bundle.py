"""The bundle: a folder with graphs, weights, schedules and a self-test, described by manifest.json.

    manifest.json                 schema version, model facts, graphs, schedules, size and sha256 of every file, provenance
    forward.onnx  inverse.onnx    the two graphs       weights.bin   the weights of both, once
    forward.fp16.onnx …           the same in another precision: one pair and one weights file each
    golden.npz                    seeds, labels, schedules and what the torch model makes of them
    calibration.json              the ranges of activations behind the 8-bit graphs

Opening one checks schema, paths, sizes and hashes before any library parses a byte. Files beside those of the manifest (engines,
reports) are allowed and never read through it.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import BundleError, ScheduleError
from ..classes import class_names
from ..schedule import Schedule, parse_schedule
from .external_data import external_files
from .files import is_lfs_pointer
from .hashes import sha256
from .not_bundles import why_no_bundle
from .verdicts import Verdict

SCHEMA = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
DIRECTIONS = ("forward", "inverse")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")  # the most exact first
_MANIFEST_LIMIT = 16 << 20  # bytes; a manifest has a few thousand
_POINTER_LIMIT = 1024  # bytes, by the specification of Git LFS


@dataclass(frozen=True)
class ModelFacts:
    """What a runtime must know of the network. sample_shape: (C, H, W); num_classes: None for an unconditional model.

    classes: the names of the classes, where the model has names; as many as num_classes.
    """

    name: str
    sample_shape: tuple[int, int, int]
    num_classes: int | None
    parameters: int
    config: dict[str, Any]
    classes: tuple[str, ...] | None = None

    @classmethod
    def from_json(cls, values: Any) -> ModelFacts:
        """Raises KeyError, TypeError or ValueError for anything malformed."""
        c, h, w = (_integer(n, 1, 1 << 16) for n in values["sample_shape"])
        num_classes = None if values["num_classes"] is None else _integer(values["num_classes"], 1)
        names = values.get("classes")
        classes = None if names is None else class_names(names)
        if classes is not None and len(classes) != num_classes:
            raise ValueError(f"{len(classes)} class names for {num_classes} classes")
        return cls(
            str(values["name"]),
            (c, h, w),
            num_classes,
            _integer(values["parameters"], 0),
            dict(values["config"]),
            classes,
        )


@dataclass(frozen=True)
class FileFacts:
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """graphs: precision → direction → file name; schedules: name → text; provenance: what made the bundle from what.

    quality: schedule name → what was measured of it, by measure ("fréchet_ratio", "mse", …). verdicts: see runtime/storage/verdicts.py.
    """

    model: ModelFacts
    graphs: dict[str, dict[str, str]]
    schedules: dict[str, str]
    files: dict[str, FileFacts]
    provenance: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, dict[str, Any]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    schema: int = SCHEMA

    def with_verdict(self, verdict: Verdict) -> Manifest:
        """The manifest with this verdict, in place of an older one of the same subject."""
        others = [v for v in self.verdicts if v.subject != verdict.subject]
        return replace(self, verdicts=[*others, verdict])

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, values: Any) -> Manifest:
        """Raises BundleError for a newer schema, KeyError, TypeError or ValueError for anything malformed."""
        schema = _integer(values["schema"], 1)
        if schema > SCHEMA:
            raise BundleError(
                f"made by a newer bcm-edge (bundle schema {schema}, this one reads up to {SCHEMA}); upgrade bcm-edge"
            )
        model = ModelFacts.from_json(values["model"])
        files = {
            str(name): FileFacts(_integer(facts["size"], 0), str(facts["sha256"]))
            for name, facts in values["files"].items()
        }
        graphs = {str(p): {d: str(pair[d]) for d in DIRECTIONS} for p, pair in values["graphs"].items()}
        if not set(graphs) & set(PRECISIONS):
            raise ValueError("it holds no graphs")
        if absent := {name for pair in graphs.values() for name in pair.values()} - set(files):
            raise ValueError(f"graph {min(absent)} is not among the files")
        schedules = {str(name): str(parse_schedule(text)) for name, text in values["schedules"].items()}
        quality = {str(name): dict(measured) for name, measured in values.get("quality", {}).items()}
        verdicts = [Verdict.from_json(verdict) for verdict in values.get("verdicts", [])]
        return cls(model, graphs, schedules, files, dict(values["provenance"]), quality, verdicts, schema)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file of the manifest has been checked. Made by `open_bundle`."""

    path: Path
    manifest: Manifest

    @property
    def precisions(self) -> list[str]:
        """What the bundle holds, the most exact first."""
        return [precision for precision in PRECISIONS if precision in self.manifest.graphs]

    def graphs(self, precision: str) -> dict[str, Path]:
        """Direction → graph file. Raises BundleError for a precision that the bundle does not hold."""
        pair = self.manifest.graphs.get(precision)
        if pair is None:
            held = ",".join(self.precisions)
            raise BundleError(
                f"{self.path}: has no {precision} graphs (it has {held}); export with --precision {held},{precision}"
            )
        return {direction: self.path / name for direction, name in pair.items()}

    def hashes(self, precision: str) -> dict[str, str]:
        """File name → sha256 of all that computes in a precision: its graphs and the weights they take."""
        self.graphs(precision)
        graphs = self.manifest.graphs[precision].values()
        names = set(graphs).union(*(_external_files(self.path, graph) for graph in graphs))
        return {name: self.manifest.files[name].sha256 for name in sorted(names)}

    def verdicts(self) -> list[Verdict]:
        """Those of the manifest's verdicts that are of the files it holds now, engines among them."""
        return [v for v in self.manifest.verdicts if v.precision in self.manifest.graphs and self._holds(v)]

    def _holds(self, verdict: Verdict) -> bool:
        graphs = self.hashes(verdict.precision)
        others = {name: digest for name, digest in verdict.files.items() if name not in graphs}
        if len(graphs) + len(others) != len(verdict.files) or not all(
            verdict.files[name] == digest for name, digest in graphs.items()
        ):
            return False
        return all(self._has(name, digest) for name, digest in others.items())

    def _has(self, name: str, digest: str) -> bool:
        """Whether a file that a verdict names lies in the bundle as it was: of an engine, which the manifest's files do not list."""
        try:
            file = _inside(self.path, name)
            own = file.is_file() and file.resolve() == self.path.resolve() / name
            return own and sha256(file) == digest
        except (OSError, ValueError, BundleError):
            return False

    def schedule(self, name_or_text: str) -> Schedule:
        """A schedule by its name in this bundle, or by its text. Raises ScheduleError."""
        if name_or_text in self.manifest.schedules:
            return parse_schedule(self.manifest.schedules[name_or_text])
        if not any(sign in name_or_text for sign in ">+"):
            names = ", ".join(self.manifest.schedules)
            raise ScheduleError(
                f"no schedule {name_or_text!r} in this bundle; it has {names}, or write one in quotes, as in '80>2.4>0.002'"
            )
        return parse_schedule(name_or_text)


def open_bundle(path: Path | str) -> Bundle:
    """Read and check a bundle. Raises BundleError naming the file and what is wrong with it."""
    path = Path(path)
    manifest = read_manifest(path)
    for name, facts in manifest.files.items():
        try:
            _check_file(path, name, facts)
        except (OSError, ValueError) as error:  # a name no file system takes, a file that cannot be read
            reason = getattr(error, "strerror", None) or error
            raise BundleError(f"{path}: {name!r} cannot be read ({reason})") from error
    for graph in {name for pair in manifest.graphs.values() for name in pair.values()}:
        _check_external_data(path, graph, manifest)
    return Bundle(path, manifest)


def describe_files(folder: Path) -> dict[str, FileFacts]:
    """Size and sha256 of every file in a folder, for the manifest of a new bundle."""
    return {file.name: FileFacts(file.stat().st_size, sha256(file)) for file in sorted(folder.iterdir())}


def _integer(value: Any, low: int, high: int = 1 << 62) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{value!r} is not an integer of at least {low}")
    return value


def read_manifest(path: Path) -> Manifest:
    """The manifest of a bundle, its files unchecked. Raises BundleError."""
    try:
        text = _manifest_text(path)
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return Manifest.from_json(json.loads(text))
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        ScheduleError,
        RecursionError,
    ) as error:
        raise BundleError(
            f"{path / MANIFEST}: not a valid manifest ({type(error).__name__}: {error})"
        ) from error


def _manifest_text(path: Path) -> bytes:
    """Raises BundleError where there is no manifest that can be trusted to be this bundle's, OSError where it cannot be read."""
    file = path / MANIFEST
    if path.is_dir() and not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if not path.is_dir() or not os.path.lexists(file):
        raise BundleError(f"{path}: not a bundle {why_no_bundle(path, MANIFEST)}")
    _check_links(path, MANIFEST)
    if not file.is_file():
        raise BundleError(f"{file}: not a file")
    if file.stat().st_size > _MANIFEST_LIMIT:
        raise BundleError(f"{file}: too large to be a manifest")
    return file.read_bytes()


def _inside(root: Path, name: str) -> Path:
    """The file that a manifest names. Raises BundleError for a name that leads elsewhere."""
    pure = PurePosixPath(name)
    if (
        pure.is_absolute()
        or not pure.parts
        or ".." in pure.parts
        or "\\" in name
        or ":" in name
        or "\0" in name
    ):
        raise BundleError(f"{root}: the manifest names {name!r}, which is not a path inside the bundle")
    return root / pure


def _check_file(root: Path, name: str, facts: FileFacts) -> None:
    file = _inside(root, name)
    _check_links(root, name)
    if not file.exists():
        raise BundleError(f"{root}: {name} is missing; export the bundle again or copy it whole")
    if not file.is_file() or file.stat().st_size != facts.size:
        raise BundleError(
            f"{root}: {name} has {file.stat().st_size} bytes, the manifest says {facts.size}; it was changed or cut off"
        )
    if sha256(file) != facts.sha256:
        raise BundleError(
            f"{root}: {name} is not the file that was exported (its sha256 differs from the manifest's)"
        )


def _check_links(root: Path, name: str) -> None:
    """Raise BundleError for a file that lies outside the bundle behind a link. Links inside it are followed, as Kubernetes makes them."""
    file = Path(os.path.realpath(root / name))
    if not file.is_relative_to(os.path.realpath(root)):
        copy = f"{root.resolve().name.removesuffix('.bundle')}-copy.bundle"
        if not file.exists():
            raise BundleError(
                f"{root}: {name} is a link to {file}, which does not exist; copy the bundle again, with what its links lead to"
            )
        raise BundleError(
            f"{root}: {name} is a link to a file outside the bundle, and such links are not followed (a Hugging Face cache is made of "
            f"them); copy the files into a new bundle with: cp -rL {shlex.quote(str(root))} {shlex.quote(copy)}"
        )
    if file.is_file() and file.stat().st_size < _POINTER_LIMIT and is_lfs_pointer(file.read_bytes()):
        raise BundleError(
            f"{root}: {name} is a Git LFS pointer in place of the file; get the files with: git lfs pull"
        )


def _check_external_data(root: Path, graph: str, manifest: Manifest) -> None:
    """A graph may take weights from files of the manifest and from nowhere else. A location counts from the graph's own folder."""
    try:
        places = _external_files(root, graph)
    except ValueError as error:
        raise BundleError(f"{root}: {graph} is not a graph that this package writes ({error})") from error
    if not places <= set(manifest.files):
        raise BundleError(f"{root}: {graph} takes weights from files that are not of this bundle")


def _external_files(root: Path, graph: str) -> set[str]:
    """What a graph takes weights from, as names in the bundle."""
    return {str(PurePosixPath(graph).parent / place) for place in external_files((root / graph).read_bytes())}
