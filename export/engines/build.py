"""bundle → engines for the GPU of this machine: compiled in a child process, read back, played against the recording, then published.

Needs TensorRT and neither torch nor onnx, so that it runs on the device.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from ...errors import DowngradeError, ParityError
from ...runtime.accuracy import BOUNDS
from ...runtime.backends.tensorrt import TensorRtBackend
from ...runtime.checks.parity import MoveError, compare, verdict_on
from ...runtime.checks.recording import load_recording
from ...runtime.engines.facts import FACTS, PLANS, UNREAD, EngineFacts
from ...runtime.engines.store import Engine, plan_hashes, remember, system
from ...runtime.machine.temporary import temporary_folder
from ...runtime.storage.files import replacing
from ...runtime.storage.hashes import sha256
from ...runtime.storage.manifest import GOLDEN, FileFacts
from ...runtime.storage.rewriting import update_manifest
from ...runtime.storage.verdicts import Verdict
from .child import Progress, Report, compile_in_child
from .plan import BuildPlan

NAMED = 5  # convolutions that a warning names


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


def _remove_superseded(plan: BuildPlan, report: Report) -> None:
    """Remove engines of these options that this very GPU can no longer run: of graphs, or a TensorRT, that are gone."""
    for engine, reason in plan.stale():
        if plan.replaces(engine):
            shutil.rmtree(engine.folder, ignore_errors=True)
            report(f"removed: {engine.name} ({reason})")
