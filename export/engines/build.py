"""Build engines for the GPU of this machine: compile, read the types back, verify, publish.

Needs TensorRT, but no torch and no onnx, so that it can run on the device.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...errors import DowngradeError, ParityError
from ...runtime.accuracy import BOUNDS
from ...runtime.backends.tensorrt import TensorRtBackend
from ...runtime.checks.parity import MoveError, compare, verdict_on
from ...runtime.checks.recording import load_recording
from ...runtime.engines.facts import FACTS, UNREAD, EngineFacts
from ...runtime.engines.store import Engine, plan_hashes, remember, system
from ...runtime.machine.temporary import temporary_folder
from ...runtime.storage.files import replacing
from ...runtime.storage.hashes import sha256
from ...runtime.storage.manifest import CALIBRATED, GOLDEN, FileFacts
from ...runtime.storage.rewriting import update_manifest
from ...runtime.storage.verdicts import Verdict
from .child import compile_in_child
from .plan import BuildPlan, Progress, Report

_SINGLE = (
    " A single engine uses the 8-bit ranges of the other direction for moves towards the image; build "
    "without --single-engine, or with --precision fp16"
)
NAMED = 5  # how many convolutions a warning names


def build(plan: BuildPlan, report: Report, progress: Progress) -> tuple[EngineFacts, list[MoveError]]:
    """Compile the engines, verify them and publish them in the bundle.

    Returns the facts of the engines and the errors that verification measured, which are [] if the bundle
    has no recording. The bundle does not change before everything is done, nor after any error.

    Raises BuildError, DowngradeError, ParityError, BackendError or OutputError.
    """
    for engine, reason in plan.stale():
        consequence = "rebuilt from the bundle's graphs" if plan.replaces(engine) else "left as it is"
        report(f"stale: {engine.name}: {reason}; {consequence}")
    with replacing(plan.folder, force=True, marker=FACTS) as folder:
        folder.mkdir()
        compiled = compile_in_child(plan, folder, report, progress)
        facts = _facts(plan, folder, compiled)
        (folder / FACTS).write_text(facts.to_json())
        for direction, requested in compiled["requested"].items():
            report(
                f"{direction}: convolutions requested in {_counts(requested)}, "
                f"computed in {_counts(facts.types[direction])}"
            )
        if plan.strict_types:
            refuse_wider_types(facts)
        verdict, errors = _verify(plan, Engine(folder, facts), report)
        for line in [*_wider_lines(facts), *_unread_lines(facts)]:
            report(f"warning: {line}")
    remember(Engine(plan.folder, facts))
    if verdict:
        update_manifest(plan.bundle, lambda manifest: manifest.with_verdict(verdict))
    _remove_superseded(plan, report)
    return facts, errors


def refuse_wider_types(facts: EngineFacts) -> None:
    """Raise DowngradeError if an engine computes convolutions in more bits than its graph asks for."""
    if any(facts.wider.values()):
        lines = "; ".join(_wider_lines(facts))
        raise DowngradeError(
            f"{lines}. --strict-types refuses such an engine; "
            "without it, the engine is kept if its images are correct."
        )


def report_dla(plan: BuildPlan, report: Report) -> dict[str, Any]:
    """Return direction → how much of its graph a DLA supports (plan_writer.DlaSupport). Nothing is built.

    Raises BackendError if the GPU has no DLA.
    """
    with temporary_folder() as folder:
        return compile_in_child(plan, folder, report, lambda *_: None, dla=True)


def _facts(plan: BuildPlan, folder: Path, compiled: Mapping[str, Any]) -> EngineFacts:
    """The facts of the plans in a folder. compiled: the fields of compiler.Compiled."""
    files = {name: folder / f"{name}.plan" for name in plan.options.plans}
    return EngineFacts(
        tensorrt=plan.tensorrt,
        gpu=plan.gpu.name,
        capability=plan.gpu.capability,
        multiprocessors=plan.gpu.multiprocessors,
        system=system(),
        graphs=plan.bundle.hashes(plan.options.precision),
        options=plan.options,
        files={name: FileFacts(file.stat().st_size, sha256(file)) for name, file in files.items()},
        types=compiled["types"],
        wider=compiled["wider"],
        scratch=compiled["scratch"],
        seconds=compiled["seconds"],
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _unread_lines(facts: EngineFacts) -> list[str]:
    """Return a line for each direction for which TensorRT reports no types."""
    return [
        f"{direction}: TensorRT does not report the type of any convolution, so the types were not checked"
        for direction, types in facts.types.items()
        if set(types) == {UNREAD}
    ]


def _wider_lines(facts: EngineFacts) -> list[str]:
    """Return a line for each direction with convolutions in more bits than requested, and their names."""
    lines = []
    for direction, wider in facts.wider.items():
        if not wider:
            continue
        total = sum(facts.types[direction].values())
        names = ", ".join(f"{name} in {type_}" for name, type_ in list(wider.items())[:NAMED])
        if len(wider) > NAMED:
            names += f" and {len(wider) - NAMED} more ({FACTS} lists them)"
        lines.append(
            f"{direction}: {len(wider)} of {total} convolutions compute in more bits "
            f"than {facts.options.precision} asks for: {names}"
        )
    return lines


def _verify(plan: BuildPlan, engine: Engine, report: Report) -> tuple[Verdict | None, list[MoveError]]:
    """Play whole schedules on the plans at all of the plan's batch sizes, and compare with the recording.

    Returns (None, []) if the bundle has no recording. Raises ParityError if a move exceeds the bound.
    """
    if GOLDEN not in plan.bundle.manifest.files:
        report(f"NOT VERIFIED: the bundle has no {GOLDEN}")
        return None, []
    precision = plan.options.precision
    bound = BOUNDS[precision]
    started = time.perf_counter()
    backend = TensorRtBackend(plan.bundle, engine, plan.gpu)
    try:
        errors = compare(backend, load_recording(plan.bundle), plan.batches, bound)
        device = backend.device
    finally:
        backend.close()
    verdict = verdict_on(errors, plan.bundle, backend, "torch", bound)
    # The plans are still in a temporary folder; the verdict names them as they will be published.
    published = plan_hashes(plan.folder.name, engine.facts)
    verdict = replace(verdict, files=plan.bundle.hashes(precision) | published)
    report(f"{verdict} ({len(errors)} moves in {time.perf_counter() - started:.1f} s; {device})")
    if not verdict.ok:
        worst = max(errors, key=lambda error: error.relative_l2)
        raise ParityError(
            f"the engine differs from torch by more than the bound of {bound:.0e}. "
            f"The worst is {worst.move} of {worst.schedule!r} at batch {worst.batch}: "
            f"relative L2 {worst.relative_l2:.1e}. No engine was kept."
            f"{_SINGLE if plan.options.single and precision in CALIBRATED else ''}",
            errors,
        )
    return verdict, errors


def _counts(types: Mapping[str, int]) -> str:
    return ", ".join(f"{type_} {count}" for type_, count in types.items())


def _remove_superseded(plan: BuildPlan, report: Report) -> None:
    """Remove the stale engines that this build replaces: of older graphs or of another TensorRT."""
    for engine, reason in plan.stale():
        if plan.replaces(engine):
            shutil.rmtree(engine.folder, ignore_errors=True)
            report(f"removed: {engine.name} ({reason})")
