"""The engines of a bundle: BUNDLE/engines/KEY/ with bare plans and an engine.json that says what they are and where they run.

    forward.plan  inverse.plan   the two directions, as TensorRT serialised them: trtexec and Triton load them untouched
    add_noise.plan               x + noise, for an injection before a move towards the image
    to_uint8.plan                float32 in [-1, 1] → pixels
    engine.json                  this module's `EngineFacts`

KEY names the GPU, the TensorRT version, the graphs and the build options, so engines of several machines lie side by side. A plan is
handed to TensorRT only after engine.json fits this machine and the plan has the sha256 that stands there.
"""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import BackendError, OutputError
from ..machine.cache_folder import cache_directory
from ..machine.gpu import Gpu
from ..storage.bundle import Bundle
from ..storage.files import write_atomically
from ..storage.hashes import sha256
from ..storage.manifest import DIRECTIONS, PRECISIONS, FileFacts

ENGINES = "engines"  # the folder in a bundle
FACTS = "engine.json"
HELPERS = ("add_noise", "to_uint8")
PLANS = (*DIRECTIONS, *HELPERS)
SCHEMA = 2
WORKSPACE_SHARE = 0.5
UNREAD = "not reported"  # the type of a convolution that TensorRT's inspector does not report
_FACTS_LIMIT = 16 << 20  # bytes; an engine.json has some thousand


@dataclass(frozen=True)
class BuildOptions:
    """What the user chose.

    batch: (smallest, most common, largest)
    workspace: bytes of scratch memory that one layer may take; None: TensorRT's own limit, all memory of the GPU, and on a GPU that
        shares the processor's memory WORKSPACE_SHARE of what is free when the build begins
    opt_level: TensorRT's 0 (quick build) to 5
    stripped: plans without weights, which the graph's file supplies when they are loaded
    """

    precision: str = "fp16"
    batch: tuple[int, int, int] = (1, 4, 16)
    workspace: int | None = None
    opt_level: int = 3
    stripped: bool = False


@dataclass(frozen=True)
class EngineFacts:
    """engine.json. What playing the plans showed stands in the bundle's manifest, with their sha256.

    system: "Linux aarch64"
    graphs: file name → sha256 of graphs and weights
    files: plan → size and sha256
    types: direction → type → how many convolutions compute in it
    wider: direction → convolution → its type, where that has more bits than the graph asks for
    scratch: bytes of device memory that all plans share
    seconds: of compiling
    built: when, ISO 8601 in UTC
    """

    tensorrt: str
    gpu: str
    capability: str
    multiprocessors: int
    system: str
    graphs: dict[str, str]
    options: BuildOptions
    files: dict[str, FileFacts]
    types: dict[str, dict[str, int]]
    wider: dict[str, dict[str, str]]
    scratch: int
    seconds: float
    built: str
    schema: int = SCHEMA

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, values: Any) -> EngineFacts:
        """Raises KeyError, TypeError, ValueError or AttributeError for anything malformed, or newer than this package."""
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']}, this package reads {SCHEMA}")
        options = values["options"]
        smallest, common, largest = (int(n) for n in options["batch"])
        if options["precision"] not in PRECISIONS or not 1 <= smallest <= common <= largest:
            raise ValueError("invalid build options")
        if not all(str(values[name]).isprintable() for name in ("tensorrt", "gpu", "capability", "system")):
            raise ValueError("a name with unprintable characters")  # it would be shown to people
        wider = {
            str(d): {str(name): str(kind) for name, kind in each.items()}
            for d, each in values["wider"].items()
        }
        if not all(f"{name}{kind}".isprintable() for each in wider.values() for name, kind in each.items()):
            raise ValueError("the name of a convolution with unprintable characters")
        if not wider.keys() <= values["types"].keys():
            raise ValueError("convolutions of a direction that has no types")
        return cls(
            str(values["tensorrt"]),
            str(values["gpu"]),
            str(values["capability"]),
            int(values["multiprocessors"]),
            str(values["system"]),
            {str(name): str(digest) for name, digest in values["graphs"].items()},
            BuildOptions(
                options["precision"],
                (smallest, common, largest),
                None if options["workspace"] is None else int(options["workspace"]),
                int(options["opt_level"]),
                bool(options["stripped"]),
            ),
            {
                name: FileFacts(int(values["files"][name]["size"]), str(values["files"][name]["sha256"]))
                for name in PLANS
            },
            {
                str(d): {str(kind): int(n) for kind, n in types.items()}
                for d, types in values["types"].items()
            },
            wider,
            int(values["scratch"]),
            float(values["seconds"]),
            str(values["built"]),
        )


@dataclass(frozen=True)
class Engine:
    """Engines of one build, as they lie in a folder. facts: None where engine.json is none; then `problem` says why."""

    folder: Path
    facts: EngineFacts | None
    problem: str = ""

    @property
    def name(self) -> str:
        """Of the folder, as a person may see it."""
        return self.folder.name if self.folder.name.isprintable() else ascii(self.folder.name)

    def plan(self, name: str) -> Path:
        return self.folder / f"{name}.plan"

    def __str__(self) -> str:
        if self.facts is None:
            return f"{self.name}: {self.problem}"
        o = self.facts.options
        return f"{self.name}: {o.precision}, batch {':'.join(map(str, o.batch))}, TensorRT {self.facts.tensorrt}, {self.facts.gpu}"


def workspace_limit(chosen: int | None, gpu: Gpu, free: int | None) -> int | None:
    """Bytes of scratch memory that one layer may take; None leaves TensorRT's own limit, which is all memory of the GPU.

    chosen: by the user; free: bytes that are free, where that is known. On a GPU that shares the processor's memory TensorRT's limit
    would let the system run out, so the limit is WORKSPACE_SHARE of what is free.
    """
    if chosen is None and gpu.integrated:
        return int(WORKSPACE_SHARE * (gpu.memory if free is None else free))
    return chosen


def engine_key(bundle: Bundle, gpu: Gpu, tensorrt: str, options: BuildOptions) -> str:
    """The folder's name: what a person looks for first, then a hash of everything."""
    facts = [
        SCHEMA,
        gpu.name,
        gpu.capability,
        gpu.multiprocessors,
        tensorrt,
        system(),
        bundle.hashes(options.precision),
        asdict(options),
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
    return f"{options.precision}-sm{gpu.capability.replace('.', '')}-trt{tensorrt}-{digest}"


def system() -> str:
    """What a plan's host code is for: "Linux aarch64"."""
    return f"{platform.system()} {platform.machine()}"


def engines(bundle: Bundle) -> list[Engine]:
    """All engines of a bundle, the newest first; plans unread."""
    return engines_in(bundle.path)


def engines_in(path: Path) -> list[Engine]:
    """All engines in a bundle's folder, or in what may be one."""
    folder = path / ENGINES
    if not folder.is_dir() or not folder.resolve().is_relative_to(path.resolve()):
        return []
    found = [
        read_engine(path)
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda engine: engine.facts.built if engine.facts else "", reverse=True)


def read_engine(folder: Path) -> Engine:
    """The engines in one folder; what is wrong with its engine.json stands in `problem`."""
    file = folder / FACTS
    try:
        if file.is_symlink() or folder.is_symlink():
            raise ValueError("a link")
        if file.exists() and not file.is_file():
            raise ValueError("no file")
        if file.stat().st_size > _FACTS_LIMIT:
            raise ValueError("too large")
        return Engine(folder, EngineFacts.from_json(json.loads(file.read_text())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return Engine(folder, None, f"its {FACTS} cannot be used ({type(error).__name__}: {error})")


def misfit(engine: Engine, bundle: Bundle, gpu: Gpu, tensorrt: str) -> str | None:
    """Why an engine does not run here, in one line; None if it fits. Plans are not read."""
    facts = engine.facts
    if facts is None:
        return engine.problem
    if facts.tensorrt != tensorrt:
        return f"built by TensorRT {facts.tensorrt}, here is {tensorrt}"
    if facts.capability != gpu.capability:
        return f"built for compute capability {facts.capability} ({facts.gpu}), this GPU ({gpu.name}) has {gpu.capability}"
    if (facts.gpu, facts.multiprocessors) != (gpu.name, gpu.multiprocessors):
        ours = f"{gpu.name} with {gpu.multiprocessors} multiprocessors"
        return f"built on {facts.gpu} with {facts.multiprocessors} multiprocessors, this is {ours}"
    if facts.system != system():
        return f"built on {facts.system}, this is {system()}"
    precision = facts.options.precision
    if precision not in bundle.precisions or facts.graphs != bundle.hashes(precision):
        return "built from graphs that the bundle no longer holds"
    for name in PLANS:
        plan, known = engine.plan(name), facts.files[name]
        if plan.is_symlink() or not plan.is_file() or plan.stat().st_size != known.size:
            return f"its {plan.name} is missing, or not the file that was built"
    return None


def check_plans(engine: Engine) -> None:
    """Raise BackendError if a plan is not the file that engine.json is about. To be called before TensorRT reads any."""
    assert engine.facts
    for name, known in engine.facts.files.items():
        plan = engine.plan(name)
        try:
            same = (
                not plan.is_symlink() and plan.stat().st_size == known.size and sha256(plan) == known.sha256
            )
        except OSError as error:
            raise BackendError(f"{plan}: cannot be read ({error.strerror})") from error
        if not same:
            raise BackendError(
                f"{plan}: not the file that was built (its sha256 differs from {FACTS}'s); run bcm-edge build again"
            )


def remember(engine: Engine) -> None:
    """Note in the cache that this machine built these plans."""
    assert engine.facts
    with suppress(
        OSError, OutputError
    ):  # a cache that cannot be written: the engine has to be asked for by name
        for known in engine.facts.files.values():
            write_atomically(_built_here(known.sha256), "")


def is_remembered(engine: Engine) -> bool:
    """Whether this machine built these plans. A plan holds code, and its sha256 stands beside it in a folder that came from anywhere."""
    with suppress(OSError, OutputError):  # no cache, or one that cannot be read
        return engine.facts is not None and all(
            _built_here(known.sha256).is_file() for known in engine.facts.files.values()
        )
    return False


def _built_here(digest: str) -> Path:
    return cache_directory() / "tensorrt" / "built" / hashlib.sha256(digest.encode()).hexdigest()


def plan_hashes(key: str, facts: EngineFacts) -> dict[str, str]:
    """Plan → sha256, by its name in the bundle when it lies in engines/KEY."""
    return {f"{ENGINES}/{key}/{name}.plan": known.sha256 for name, known in facts.files.items()}


def find_engine(
    bundle: Bundle, gpu: Gpu, tensorrt: str, precision: str | None, built_here: bool = False
) -> Engine:
    """The newest engine that fits this machine; precision: None takes any, the newest first; built_here: pass over those that came along.

    Raises BackendError with every other engine and its reason, and the command that builds one.
    """
    reasons = []
    for engine in engines(bundle):
        reason = misfit(engine, bundle, gpu, tensorrt)
        if reason is None and engine.facts and precision not in (None, engine.facts.options.precision):
            reason = f"is {engine.facts.options.precision}"
        if reason is None and built_here and not is_remembered(engine):
            reason = "not built here; --backend tensorrt plays it all the same"
        if reason is None:
            return engine
        reasons.append(f"{engine.name}: {reason}")
    what = f"{bundle.path}: no engine{f' in {precision}' if precision else ''} for this GPU ({gpu.name}, TensorRT {tensorrt})"
    command = f"bcm-edge build {bundle.path}{f' --precision {precision}' if precision else ''}"
    raise BackendError(f"{what}; build one: {command}" + "".join(f"\n  {reason}" for reason in reasons))
