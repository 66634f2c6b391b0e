"""The plan of a repository: what it will contain, decided before anything is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ... import __version__
from ...errors import BackendError, InputError, ScheduleError
from ...runtime.backends import info, onnxruntime
from ...runtime.engines.facts import Profile
from ...runtime.engines.store import Engine, check_plans, engines
from ...runtime.schedule import Schedule
from ...runtime.storage.bundle import Bundle
from ...runtime.storage.manifest import DIRECTIONS
from ...serving.answers import TASKS
from ..fused import check_fuses
from . import BACKENDS
from .configs import Serving

# The names that a schedule may have to become a model.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class RepositoryPlan:
    """The contents of a repository, planned before anything is written."""

    bundle: Bundle
    # The folder of the repository.
    output: Path
    # What runs the single moves: one of PLATFORMS.
    platform: str
    # The backend of the runtime that the Python models use.
    backend: str
    precision: str
    # The newest engine for every compute capability; () unless the platform is tensorrt.
    engines: tuple[Engine, ...]
    serving: Serving
    # The schedules that become one graph each: name → schedule.
    fused: dict[str, Schedule]
    # Add a model that answers after every network call.
    stream: bool
    # Replace a repository that exists.
    force: bool

    @property
    def directions(self) -> tuple[str, ...]:
        """The single moves: both directions, or "inverse" alone if an engine has no forward plan.

        Triton's TensorRT backend requires every input, so the inverse plan cannot take requests without
        noise.
        """
        if any(engine.facts.options.single for engine in self.engines):
            return ("inverse",)
        return DIRECTIONS


def plan_repository(
    bundle: Bundle,
    output: Path,
    platform: str | None,
    precision: str | None,
    serving: Serving,
    fused: Sequence[str],
    stream: bool,
    force: bool,
    backend: str | None = None,
) -> RepositoryPlan:
    """Check the arguments and return what will be written.

    platform: None takes tensorrt if the bundle has engines, else onnxruntime. precision: None takes that of
    the newest engine for tensorrt, else the most exact. fused: names of the schedules that become one graph
    each. backend: what the Python models compute with, one of BACKENDS; None takes the first, or the engines
    for tensorrt.

    Raises BackendError if the platform is tensorrt and the bundle has no engine that Triton can load, or if
    no backend supports the precision. Raises ScheduleError if a name is unknown or cannot be a model, or
    its schedule cannot become a graph. Raises InputError for schedules with the platform python, and for a
    backend with the platform tensorrt. Raises BundleError if the bundle does not have the precision.
    """
    built = [engine.facts.options.precision for engine in engines(bundle)]
    if platform is None:
        platform = "tensorrt" if built else "onnxruntime"
    if platform == "tensorrt" and backend is not None:
        raise InputError(
            f"with the platform tensorrt, the Python models use the engines; leave out --backend {backend} "
            "or choose --platform onnxruntime or python"
        )
    if precision is None:
        precision = built[0] if built and platform == "tensorrt" else bundle.precisions[0]
    facts = {"bcm_edge": __version__}
    for name, digest in bundle.hashes(precision).items():
        facts[f"sha256 of {name}"] = digest
    schedules = _schedules(bundle, fused, platform)
    usable = _engines(bundle, precision) if platform == "tensorrt" else ()
    if not usable:
        backend = backend or BACKENDS[0]
        if reason := _why_not(backend, precision):
            raise BackendError(f"a server without engines cannot play {precision}: {reason}")
    return RepositoryPlan(
        bundle=bundle,
        output=output,
        platform=platform,
        backend=backend or "tensorrt",
        precision=precision,
        engines=usable,
        serving=replace(serving, facts=facts),
        fused=schedules,
        stream=stream,
        force=force,
    )


def _why_not(backend: str, precision: str) -> str | None:
    """Return why a backend cannot compute a precision on any machine, or None if it can."""
    accepted = info(backend).precisions
    if info(backend).device == "gpu":
        return None if precision in accepted else f"{backend} computes {' and '.join(accepted)}"
    return onnxruntime.unavailable(precision)


def _schedules(bundle: Bundle, names: Sequence[str], platform: str) -> dict[str, Schedule]:
    """Return the schedules that become one graph each. Raises ScheduleError or InputError."""
    for name in names:
        if name not in bundle.manifest.schedules:
            raise ScheduleError(
                f"no schedule {name!r} in this bundle; it has {', '.join(bundle.manifest.schedules)}"
            )
    for name in names:
        if not NAME.fullmatch(name):
            raise ScheduleError(
                f"schedule {name!r} cannot name a model: only letters, digits, '.', '_' and '-' are allowed"
            )
        if name in (*TASKS, *DIRECTIONS):
            raise ScheduleError(f"schedule {name!r} cannot name a model: another model has this name")
    if names and platform == "python":
        raise InputError(
            "graphs of whole schedules are played by Triton's ONNX Runtime backend; "
            "leave out --schedules, or choose another --platform"
        )
    schedules = {name: bundle.schedule(name) for name in names}
    for schedule in schedules.values():
        check_fuses(schedule)
    return schedules


def _engines(bundle: Bundle, precision: str) -> tuple[Engine, ...]:
    """Return the newest engine for every compute capability, with the hashes of their plans checked.

    Raises BackendError if there is none, or Triton cannot load one of them.
    """
    newest: dict[str, Engine] = {}
    for engine in engines(bundle):
        facts = engine.facts
        if facts.options.precision == precision and facts.graphs == bundle.hashes(precision):
            newest.setdefault(facts.capability, engine)
    if not newest:
        raise BackendError(
            f"{bundle.source}: has no engines of its {precision} graphs; "
            "build them with bcm-edge build on the GPU, or choose --platform onnxruntime or python"
        )
    for engine in newest.values():
        check_plans(engine)
        options = engine.facts.options
        if absent := _first_gap(options.profiles):
            raise BackendError(
                f"{engine.name}: its profiles ({options.profiles_text}) do not contain a batch of {absent}, "
                "which a request may have; build it with profiles that begin at 1 and have no gaps"
            )
        if options.stripped:
            raise BackendError(
                f"{engine.name}: its plans have no weights, and Triton cannot load such plans; "
                "build it without --strip"
            )
    if len({len(engine.facts.options.profiles) for engine in newest.values()}) > 1:
        names = ", ".join(engine.name for engine in newest.values())
        raise BackendError(
            f"{names}: they have different numbers of profiles, but Triton uses the same for all GPUs; "
            "build them with the same --batch options"
        )
    return tuple(newest.values())


def _first_gap(profiles: Sequence[Profile]) -> int | None:
    """Return the smallest batch size, up to the largest of all profiles, that no profile contains."""
    covered = 0
    for smallest, _, largest in sorted(profiles):
        if smallest > covered + 1:
            return covered + 1
        covered = max(covered, largest)
    return None
