"""bundle → engines for the GPU of this machine: compiled in a child process, read back, played against the recording, then published.

Needs TensorRT and neither torch nor onnx, so that it runs on the device.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from ... import errors
from ...errors import BackendError, BuildError, OutputError, ParityError
from ...runtime.backends.tensorrt import TensorRtBackend
from ...runtime.bundle import GOLDEN, Bundle, FileFacts
from ...runtime.cache import cache_directory, sha256
from ...runtime.engines.gpu import Gpu, is_out_of_memory, probe
from ...runtime.engines.installed import missing_cuda_core, missing_tensorrt, tensorrt_version
from ...runtime.engines.store import (
    ENGINES,
    FACTS,
    PLANS,
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
from ...runtime.files import replacing
from ...runtime.parity import BOUNDS, MoveError, compare, load_recording, verdict_on
from ...runtime.processes import python_command
from ...runtime.rewriting import update_manifest
from ...runtime.verdicts import Verdict

Report = Callable[[str], None]  # gets one line per stage
Progress = Callable[[str, str, int, int], None]  # (plan, phase, steps done, steps in all)

CHILD = "from bcm_edge.export.engines.compiler import main\nmain()\n"


@dataclass(frozen=True)
class BuildPlan:
    """What a build will do."""

    bundle: Bundle
    gpu: Gpu
    tensorrt: str
    options: BuildOptions

    @property
    def folder(self) -> Path:
        return self.bundle.path / ENGINES / engine_key(self.bundle, self.gpu, self.tensorrt, self.options)

    @property
    def batches(self) -> list[int]:
        """What is verified: both ends of the profile, and a batch between."""
        smallest, common, largest = self.options.batch
        return sorted({smallest, common if smallest < common < largest else (smallest + largest) // 2, largest})

    @property
    def timing_cache(self) -> Path:
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{self.gpu.name}-sm{self.gpu.capability}-trt{self.tensorrt}")
        return cache_directory() / "tensorrt" / f"{name}.timing"

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
        ours = [e for e in engines(self.bundle) if e.facts is None or e.facts.options.precision == self.options.precision]
        return [(e, why) for e in ours if (why := misfit(e, self.bundle, self.gpu, self.tensorrt) or _damage(e))]

    def replaces(self, engine: Engine) -> bool:
        """Whether a stale engine was built with these options on this very GPU, so that nobody else can run it."""
        facts = engine.facts
        if facts is None:
            return engine.folder == self.folder
        ours = (self.gpu.name, self.gpu.capability, self.gpu.multiprocessors, system(), self.options)
        return (facts.gpu, facts.capability, facts.multiprocessors, facts.system, facts.options) == ours


def plan_build(bundle: Bundle, options: BuildOptions, device: int = 0) -> BuildPlan:
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
    return BuildPlan(bundle, gpu, version, options)


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
            {name: FileFacts((folder / f"{name}.plan").stat().st_size, sha256(folder / f"{name}.plan")) for name in PLANS},
            compiled["types"],
            compiled["scratch"],
            compiled["seconds"],
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        (folder / FACTS).write_text(facts.to_json())
        for direction, asked in compiled["requested"].items():
            report(f"{direction}: convolutions asked for in {_counts(asked)}, found in {_counts(facts.types[direction])}")
        verdict, measured = _verified(plan, Engine(folder, facts), report)
    remember(Engine(plan.folder, facts))
    if verdict:
        update_manifest(plan.bundle, lambda manifest: manifest.with_verdict(verdict))
    _remove_superseded(plan, report)
    return facts, measured


def report_dla(plan: BuildPlan, report: Report) -> dict[str, Any]:
    """Direction → what a DLA could take of its graph (plans.OnDla). Nothing is built. Raises BackendError where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        return compile_in_child(plan, Path(folder), report, lambda *_: None, dla=True)


def compile_in_child(plan: BuildPlan, folder: Path, report: Report, progress: Progress, dla: bool = False) -> dict[str, Any]:
    """Write the plans to a folder; returns compiler.Compiled, or what `dla` asks for, as JSON has it.

    Raises what the child raised, or BuildError for its death.
    """
    request = {
        "graphs": {direction: str(path) for direction, path in plan.bundle.graphs(plan.options.precision).items()},
        "folder": str(folder),
        "sample_shape": plan.bundle.manifest.model.sample_shape,
        "options": asdict(plan.options),
        "device": plan.gpu.index,
        "timing_cache": str(plan.timing_cache),
        "dla": dla,
    }
    free: int | None = None
    with tempfile.TemporaryFile("w+") as said, _child(said) as child:
        assert child.stdin and child.stdout
        with suppress(BrokenPipeError):  # of a process that ended at once; why is known below
            child.stdin.write(json.dumps(request))
            child.stdin.close()
        for line in child.stdout:
            event = json.loads(line)
            match event.pop("event"):
                case "done":
                    child.wait()
                    return event
                case "error":
                    child.wait()
                    raise _error(event, plan, free)
                case "memory":
                    free = event["free"]
                case "line":
                    report(event["text"])
                case "progress":
                    progress(event["plan"], event["phase"], event["done"], event["steps"])
        code = child.wait()
        said.seek(0)
        raise _death(code, said.read(), plan, free)


@contextmanager
def _child(said: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The compiling process; it does not outlive the block."""
    with subprocess.Popen(python_command(CHILD), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _error(event: dict[str, Any], plan: BuildPlan, free: int | None) -> Exception:
    """What the child raised, raised again here."""
    kind, text = event["kind"], event["text"]
    if kind == "OutOfMemory":
        return BuildError(f"{_memory(plan, free)} TensorRT says: {text}")
    return getattr(errors, kind, BuildError)(text)


def _death(code: int, said: str, plan: BuildPlan, free: int | None) -> BuildError:
    """The child's end without a word: killed by the system for its memory, or crashed."""
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL) or is_out_of_memory(said):
        return BuildError(_memory(plan, free))
    last = said.strip().splitlines()[-1:] or ["it left no message"]
    end = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return BuildError(f"the compiling process ended with {end}: {last[0]}")


def _memory(plan: BuildPlan, free: int | None) -> str:
    known = "" if free is None else f": {free / 1e9:.1f} GB of {plan.gpu.memory / 1e9:.1f} were free when it began"
    smaller = max(plan.options.workspace >> 21, 1)
    where = "; on a Jetson close the desktop and add swap" if plan.gpu.integrated else ""
    return f"the build ran out of memory{known}. Try --workspace {smaller}M, --opt-level 1 or a smaller --batch{where}."


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
    verdict = replace(verdict, files=plan.bundle.hashes(plan.options.precision) | plan_hashes(plan.folder.name, facts))  # its final name
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
