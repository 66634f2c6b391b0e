"""The engines of a bundle: plans and an engine.json in BUNDLE/engines/KEY/.

    forward.plan  inverse.plan   the two directions; trtexec and Triton can also load these files
    add_noise.plan               x + noise, for an injection before a move towards the image
    (a single engine has inverse.plan alone in place of these three)
    to_uint8.plan                float32 in [-1, 1] → pixels
    engine.json                  `EngineFacts` of facts.py

KEY names the GPU, the TensorRT version, the graphs and the build options, so a bundle can contain engines for
several machines. A plan is passed to TensorRT only if engine.json fits this machine and the plan has the
recorded sha256.
"""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import BackendError, OutputError
from ..machine.cache_folder import cache_directory
from ..machine.gpu import Gpu
from ..storage.bundle import Bundle
from ..storage.files import write_atomically
from ..storage.hashes import sha256
from ..wording import setting
from .facts import FACTS, SCHEMA, BuildOptions, EngineFacts, OutdatedFactsError

ENGINES = "engines"  # the folder in a bundle
WORKSPACE_SHARE = 0.5  # share of free memory; see `workspace_limit`
_FACTS_LIMIT = 16 << 20  # the largest engine.json, in bytes; a usual one has a few thousand


@dataclass(frozen=True)
class _Folder:
    """A folder of one build."""

    folder: Path

    @property
    def name(self) -> str:
        """The name of the folder, with unprintable characters escaped."""
        return self.folder.name if self.folder.name.isprintable() else ascii(self.folder.name)


@dataclass(frozen=True)
class Engine(_Folder):
    """The engines of one build, with a valid engine.json."""

    facts: EngineFacts

    def plan(self, name: str) -> Path:
        """Return the file of a plan: one of `BuildOptions.plans`."""
        return self.folder / f"{name}.plan"

    def __str__(self) -> str:
        options = self.facts.options
        single = ", single engine" if options.single else ""
        machine = f"TensorRT {self.facts.tensorrt}, {self.facts.gpu}"
        return f"{self.name}: {options.precision}, batch {options.profiles_text}{single}, {machine}"


@dataclass(frozen=True)
class BrokenEngine(_Folder):
    """A folder of engines whose engine.json cannot be used."""

    problem: str  # why engine.json cannot be used
    outdated: bool = False  # whether an older version of this package wrote it

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


def workspace_limit(chosen: int | None, gpu: Gpu, free: int | None) -> int | None:
    """Return the bytes of scratch memory that one layer may use, or None for all memory of the GPU.

    chosen: the choice of the user, or None. free: bytes that are free, or None if unknown. On a GPU that
    shares the memory of the processor the system could run out of memory, so the limit is WORKSPACE_SHARE of
    what is free.
    """
    if chosen is None and gpu.integrated:
        return int(WORKSPACE_SHARE * (gpu.memory if free is None else free))
    return chosen


def engine_key(bundle: Bundle, gpu: Gpu, tensorrt: str, options: BuildOptions) -> str:
    """Return the name of an engine folder: precision, GPU and TensorRT version, then a hash of all facts."""
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
    """Return the system that the host code of a plan is compiled for, for example "Linux aarch64"."""
    return f"{platform.system()} {platform.machine()}"


def engines(bundle: Bundle) -> list[Engine]:
    """Return the engines of a bundle with a valid engine.json, the newest first. Plans are not read."""
    whole = [engine for engine in engine_folders(bundle.path) if isinstance(engine, Engine)]
    return sorted(whole, key=lambda engine: engine.facts.built, reverse=True)


def broken_engines(bundle: Bundle) -> list[BrokenEngine]:
    """Return the engine folders of a bundle whose engine.json cannot be used, by name."""
    return [engine for engine in engine_folders(bundle.path) if isinstance(engine, BrokenEngine)]


def engine_folders(path: Path) -> list[Engine | BrokenEngine]:
    """Return all engine folders in the folder of a bundle, by name. The bundle itself may be damaged."""
    parent = path / ENGINES
    if not parent.is_dir() or not parent.resolve().is_relative_to(path.resolve()):
        return []
    folders = [folder for folder in sorted(parent.iterdir()) if folder.is_dir()]
    return [read_engine(folder) for folder in folders if not folder.name.startswith(".")]


def read_engine(folder: Path) -> Engine | BrokenEngine:
    """Read the engine.json of an engine folder."""
    file = folder / FACTS
    try:
        if file.is_symlink() or folder.is_symlink():
            raise ValueError("a link")
        if file.exists() and not file.is_file():
            raise ValueError("not a file")
        if file.stat().st_size > _FACTS_LIMIT:
            raise ValueError("too large")
        return Engine(folder, EngineFacts.from_json(json.loads(file.read_text())))
    except OutdatedFactsError as error:
        return BrokenEngine(folder, str(error), outdated=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return BrokenEngine(folder, f"its {FACTS} cannot be used ({type(error).__name__}: {error})")


def misfit(engine: Engine, bundle: Bundle, gpu: Gpu, tensorrt: str) -> str | None:
    """Return in one line why an engine cannot run here, or None if it can. Plans are not read."""
    facts = engine.facts
    if facts.tensorrt != tensorrt:
        return f"built by TensorRT {facts.tensorrt}, but TensorRT {tensorrt} is installed here"
    if facts.capability != gpu.capability:
        return (
            f"built for compute capability {facts.capability} ({facts.gpu}), but this GPU ({gpu.name}) has "
            f"{gpu.capability}"
        )
    if (facts.gpu, facts.multiprocessors) != (gpu.name, gpu.multiprocessors):
        ours = f"{gpu.name} with {gpu.multiprocessors} multiprocessors"
        return f"built on {facts.gpu} with {facts.multiprocessors} multiprocessors, but this GPU is {ours}"
    if facts.system != system():
        return f"built on {facts.system}, but this system is {system()}"
    precision = facts.options.precision
    if precision not in bundle.precisions or facts.graphs != bundle.hashes(precision):
        return "built from graphs that the bundle does not contain any more"
    for name in facts.options.plans:
        plan, known = engine.plan(name), facts.files[name]
        if plan.is_symlink() or not plan.is_file() or plan.stat().st_size != known.size:
            return f"its {plan.name} is missing or is not the file that was built"
    return None


def check_plans(engine: Engine) -> None:
    """Raise BackendError if a plan is not the file that engine.json records.

    Call this before TensorRT reads a plan.
    """
    for name, recorded in engine.facts.files.items():
        plan = engine.plan(name)
        try:
            same_size = not plan.is_symlink() and plan.stat().st_size == recorded.size
            same = same_size and sha256(plan) == recorded.sha256
        except OSError as error:
            raise BackendError(f"{plan}: cannot be read ({error.strerror})") from error
        if not same:
            raise BackendError(
                f"{plan}: not the file that was built (its sha256 is not the one in {FACTS}); "
                "run bcm-edge build again"
            )


def remember(engine: Engine) -> None:
    """Record in the cache that this machine built these plans.

    Without a cache that can be written, the backend `tensorrt` has to be chosen by name.
    """
    with suppress(OSError, OutputError):
        for recorded in engine.facts.files.values():
            write_atomically(_built_here(recorded.sha256), "")


def is_remembered(engine: Engine) -> bool:
    """Whether the cache records that this machine built these plans.

    A plan contains code. Its sha256 in engine.json does not make it trusted, because a bundle brings both
    files.
    """
    with suppress(OSError, OutputError):
        return all(_built_here(recorded.sha256).is_file() for recorded in engine.facts.files.values())
    return False


def _built_here(digest: str) -> Path:
    """Return the file whose existence records that this machine built the plan with this sha256."""
    return cache_directory() / "tensorrt" / "built" / hashlib.sha256(digest.encode()).hexdigest()


def plan_hashes(key: str, facts: EngineFacts) -> dict[str, str]:
    """Return the sha256 of the plans of the folder engines/KEY, by their names in the bundle."""
    return {f"{ENGINES}/{key}/{name}.plan": recorded.sha256 for name, recorded in facts.files.items()}


def find_engine(
    bundle: Bundle, gpu: Gpu, tensorrt: str, precision: str | None, built_here: bool = False
) -> Engine:
    """Return the newest engine that fits this machine.

    precision: None accepts every precision. built_here: skip engines that this machine did not build.

    Raises BackendError, which lists every engine with the reason, and the command that builds one.
    """
    reasons = []
    for engine in engines(bundle):
        reason = misfit(engine, bundle, gpu, tensorrt)
        if reason is None and precision not in (None, engine.facts.options.precision):
            reason = f"is {engine.facts.options.precision}"
        if reason is None and built_here and not is_remembered(engine):
            reason = f"not built on this machine; {setting('backend', 'tensorrt')} plays it nevertheless"
        if reason is None:
            return engine
        reasons.append(f"{engine.name}: {reason}")
    reasons += map(str, broken_engines(bundle))
    suffix = f" in {precision}" if precision else ""
    command = f"bcm-edge build {bundle.source}{f' --precision {precision}' if precision else ''}"
    if gpu.index:
        command += f" --device cuda:{gpu.index}"
    raise BackendError(
        f"{bundle.source}: no engine{suffix} for this GPU ({gpu.name}, TensorRT {tensorrt}); "
        f"build one: {command}" + "".join(f"\n  {reason}" for reason in reasons)
    )
