"""bundle → engines for the GPU of this machine: compiled in a child process, read back, played against the recording, then published.

Needs TensorRT and neither torch nor onnx, so that it runs on the device.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...errors import BackendError, DowngradeError, OutputError, ParityError
from ...runtime.accuracy import BOUNDS
from ...runtime.backends.tensorrt import TensorRtBackend
from ...runtime.checks.parity import MoveError, compare, load_recording, verdict_on
from ...runtime.engines.store import (
    ENGINES,
    FACTS,
    PLANS,
    UNREAD,
    BuildOptions,
    Engine,
    EngineFacts,
    check_plans,
    engine_key,
    engines,
    misfit,
    plan_hashes,
    read_engine,
    remember,
    system,
)
from ...runtime.machine.cache_folder import cache_directory
from ...runtime.machine.gpu import Gpu, probe
from ...runtime.machine.installed import missing_cuda_core, missing_tensorrt, tensorrt_version
from ...runtime.machine.temporary import temporary_folder
from ...runtime.storage.bundle import GOLDEN, Bundle, FileFacts
from ...runtime.storage.files import replacing
from ...runtime.storage.hashes import sha256
from ...runtime.storage.rewriting import update_manifest
from ...runtime.storage.verdicts import Verdict
from .child import Progress, Report, compile_in_child

NAMED = 5  # convolutions that a warning names


@dataclass(frozen=True)
class BuildPlan:
    """What a build will do. strict_types: whether an engine that computes in more bits than its graph asks for is refused."""

    bundle: Bundle
    gpu: Gpu
    tensorrt: str
    options: BuildOptions
    strict_types: bool = False

    @property
    def folder(self) -> Path:
        return self.bundle.path / ENGINES / engine_key(self.bundle, self.gpu, self.tensorrt, self.options)

    @property
    def batches(self) -> list[int]:
        """What is verified: both ends of the profile, and a batch between."""
        smallest, common, largest = self.options.batch
        return sorted(
            {smallest, common if smallest < common < largest else (smallest + largest) // 2, largest}
        )

    @property
    def timing_cache(self) -> Path | None:
        """Where the times of kernels are kept; None without a cache folder."""
        name = "".join(
            letter if letter.isalnum() else "-"
            for letter in f"{self.gpu.name}-sm{self.gpu.capability}-trt{self.tensorrt}"
        )
        with suppress(OutputError):
            return cache_directory() / "tensorrt" / f"{name}.timing"
        return None

    def present(self) -> Engine | None:
        """The engine that this build would make, if it is there and whole."""
        engine = read_engine(self.folder)
        if engine.facts is None or misfit(engine, self.bundle, self.gpu, self.tensorrt):
            return None
        try:
            check_plans(engine)
        except BackendError:
            return None
        return engine

    def stale(self) -> list[tuple[Engine, str]]:
        """Engines of this precision that do not run here, and why; the one that this build replaces among them if it was damaged."""
        ours = [
            e
            for e in engines(self.bundle)
            if e.facts is None or e.facts.options.precision == self.options.precision
        ]
        return [
            (e, why) for e in ours if (why := misfit(e, self.bundle, self.gpu, self.tensorrt) or _damage(e))
        ]

    def replaces(self, engine: Engine) -> bool:
        """Whether a stale engine was built with these options on this very GPU, so that nobody else can run it."""
        facts = engine.facts
        if facts is None:
            return engine.folder == self.folder
        ours = (self.gpu.name, self.gpu.capability, self.gpu.multiprocessors, system(), self.options)
        return (facts.gpu, facts.capability, facts.multiprocessors, facts.system, facts.options) == ours


def plan_build(
    bundle: Bundle, options: BuildOptions, device: int = 0, strict_types: bool = False
) -> BuildPlan:
    """Look at the machine first. Raises BackendError without a GPU or TensorRT, or if this TensorRT cannot do what was asked."""
    bundle.graphs(options.precision)
    gpu = probe(device)
    if reason := missing_tensorrt(gpu) or missing_cuda_core(gpu):
        raise BackendError(reason)
    if (bundle.path / ENGINES).is_symlink():
        raise OutputError(f"{bundle.path / ENGINES} is a link; engines are kept in the bundle itself")
    version = tensorrt_version()
    from ...runtime.engines.adapter import can_strip  # which imports TensorRT

    if options.stripped and not can_strip():
        raise BackendError(f"TensorRT {version} cannot leave weights out of plans; it takes 10.3 or newer")
    return BuildPlan(bundle, gpu, version, options, strict_types)


def build(plan: BuildPlan, report: Report, progress: Progress) -> tuple[EngineFacts, list[MoveError]]:
    """Compile, check and publish. Returns the facts, and what the verification measured ([] without a recording).

    The bundle is as it was until everything is done, and after any error. Raises BuildError, DowngradeError, ParityError, BackendError
    or OutputError.
    """
    for engine, reason in plan.stale():
        what = "built anew from the bundle's graphs" if plan.replaces(engine) else "left as it is"
        report(f"stale: {engine.name}: {reason}; {what}")
    with replacing(plan.folder, force=True, marker=FACTS) as folder:
        folder.mkdir()
        compiled = compile_in_child(plan, folder, report, progress)
        facts = EngineFacts(
            plan.tensorrt,
            plan.gpu.name,
            plan.gpu.capability,
            plan.gpu.multiprocessors,
            system(),
            plan.bundle.hashes(plan.options.precision),
            plan.options,
            {
                name: FileFacts((folder / f"{name}.plan").stat().st_size, sha256(folder / f"{name}.plan"))
                for name in PLANS
            },
            compiled["types"],
            compiled["wider"],
            compiled["scratch"],
            compiled["seconds"],
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        (folder / FACTS).write_text(facts.to_json())
        for direction, asked in compiled["requested"].items():
            report(
                f"{direction}: convolutions asked for in {_counts(asked)}, found in {_counts(facts.types[direction])}"
            )
        if plan.strict_types:
            refuse_wider_types(facts)
        verdict, measured = _verified(plan, Engine(folder, facts), report)
        for line in _type_warnings(facts):
            report(f"warning: {line}")
    remember(Engine(plan.folder, facts))
    if verdict:
        update_manifest(plan.bundle, lambda manifest: manifest.with_verdict(verdict))
    _remove_superseded(plan, report)
    return facts, measured


def refuse_wider_types(facts: EngineFacts) -> None:
    """Raise DowngradeError if an engine computes convolutions in more bits than its graph asks for."""
    if any(facts.wider.values()):
        lines = "; ".join(_wider_lines(facts))
        raise DowngradeError(
            f"{lines}. --strict-types refuses such an engine; without it, the engine is kept if its images are right."
        )


def _type_warnings(facts: EngineFacts) -> list[str]:
    """What a reader of the build's output should know of the types that TensorRT chose."""
    unread = [direction for direction, types in facts.types.items() if set(types) == {UNREAD}]
    return [
        *_wider_lines(facts),
        *(
            f"{direction}: TensorRT does not report the type of any convolution, so the types were not checked"
            for direction in unread
        ),
    ]


def _wider_lines(facts: EngineFacts) -> list[str]:
    """One line per direction with convolutions in more bits than the graph asks for: how many, and the first few by name."""
    lines = []
    for direction, wider in facts.wider.items():
        if wider:
            total = sum(facts.types[direction].values())
            names = ", ".join(f"{name} in {kind}" for name, kind in list(wider.items())[:NAMED])
            more = f" and {len(wider) - NAMED} more ({FACTS} lists them)" if len(wider) > NAMED else ""
            asked = facts.options.precision
            lines.append(
                f"{direction}: {len(wider)} of {total} convolutions compute in more bits than {asked} asks for: {names}{more}"
            )
    return lines


def report_dla(plan: BuildPlan, report: Report) -> dict[str, Any]:
    """Direction → what a DLA could take of its graph (plans.OnDla). Nothing is built. Raises BackendError where there is none."""
    with temporary_folder() as folder:
        return compile_in_child(plan, folder, report, lambda *_: None, dla=True)


def _verified(plan: BuildPlan, engine: Engine, report: Report) -> tuple[Verdict | None, list[MoveError]]:
    """Whole schedules on these plans, at both ends of the profile and between, against the bundle's recording. Raises ParityError."""
    if GOLDEN not in plan.bundle.manifest.files:
        report(f"NOT VERIFIED: the bundle has no {GOLDEN}")
        return None, []
    facts, started, bound = engine.facts, time.perf_counter(), BOUNDS[plan.options.precision]
    assert facts
    backend = TensorRtBackend(plan.bundle, engine, plan.gpu)
    try:
        measured = compare(backend, load_recording(plan.bundle), plan.batches, bound)
        played = backend.device
    finally:
        backend.close()
    verdict = verdict_on(measured, plan.bundle, backend, "torch", bound)
    verdict = replace(
        verdict, files=plan.bundle.hashes(plan.options.precision) | plan_hashes(plan.folder.name, facts)
    )  # its final name
    report(f"{verdict} ({len(measured)} moves in {time.perf_counter() - started:.1f} s; {played})")
    if not verdict.ok:
        worst = max(measured, key=lambda error: error.relative_l2)
        raise ParityError(
            f"the engine strays from torch; worst is {worst.move} of {worst.schedule!r} at batch {worst.batch}: relative L2 "
            f"{worst.relative_l2:.1e}, bound {bound:.0e}. No engine was kept.",
            measured,
        )
    return verdict, measured


def _counts(types: dict[str, int]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in types.items())


def _damage(engine: Engine) -> str | None:
    try:
        check_plans(engine)
    except BackendError as error:
        return str(error).partition("; run")[0]
    return None


def _remove_superseded(plan: BuildPlan, report: Report) -> None:
    """Remove engines of these options that this very GPU can no longer run: of graphs, or a TensorRT, that are gone."""
    for engine, reason in plan.stale():
        if plan.replaces(engine):
            shutil.rmtree(engine.folder, ignore_errors=True)
            report(f"removed: {engine.name} ({reason})")
