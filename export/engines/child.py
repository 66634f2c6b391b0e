"""The compiling process, seen from the process that starts it: what it is asked, what it reports, and what its end means."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ... import errors
from ...errors import BuildError
from ...runtime.engines.store import workspace_limit
from ...runtime.machine.gpu import is_out_of_memory
from ...runtime.machine.processes import python_command
from ...runtime.machine.temporary import temporary_text
from .plan import BuildPlan

Report = Callable[[str], None]  # gets one line per stage
Progress = Callable[[str, str, int, int], None]  # (plan, phase, steps done, steps in all)

CHILD = "from bcm_edge.export.engines.compiler import main\nmain()\n"


def compile_in_child(
    plan: BuildPlan, folder: Path, report: Report, progress: Progress, dla: bool = False
) -> dict[str, Any]:
    """Write the plans to a folder; returns compiler.Compiled, or what `dla` asks for, as JSON has it.

    Raises what the child raised, or BuildError for its death.
    """
    request = {
        "graphs": {
            direction: str(path) for direction, path in plan.bundle.graphs(plan.options.precision).items()
        },
        "folder": str(folder),
        "sample_shape": plan.bundle.manifest.model.sample_shape,
        "options": asdict(plan.options),
        "device": plan.gpu.index,
        "timing_cache": str(plan.timing_cache) if plan.timing_cache else None,
        "dla": dla,
    }
    free: int | None = None
    with temporary_text() as said, _child(said) as child:
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
    with subprocess.Popen(
        python_command(CHILD), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _error(event: dict[str, Any], plan: BuildPlan, free: int | None) -> Exception:
    """What the child raised, raised again here."""
    kind, text = event["kind"], event["text"]
    if kind == "OutOfMemory":
        return BuildError(f"{_memory(plan, free, text)} TensorRT says: {text}")
    return getattr(errors, kind, BuildError)(text)


def _death(code: int, said: str, plan: BuildPlan, free: int | None) -> BuildError:
    """The child's end without a word: killed by the system for its memory, or crashed."""
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL) or is_out_of_memory(said):
        return BuildError(_memory(plan, free, said))
    last = said.strip().splitlines()[-1:] or ["it left no message"]
    end = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return BuildError(f"the compiling process ended with {end}: {last[0]}")


def _memory(plan: BuildPlan, free: int | None, said: str) -> str:
    """What to do about a build that ran out of memory. said: TensorRT's or the system's words."""
    known = (
        ""
        if free is None
        else f": {free / 1e9:.1f} GB of {plan.gpu.memory / 1e9:.1f} were free when it began"
    )
    limit = workspace_limit(plan.options.workspace, plan.gpu, free)
    where = "; on a Jetson close the desktop and add swap" if plan.gpu.integrated else ""
    if limit is None:
        advice = "Close other programs that use the GPU, or try --opt-level 1 or a smaller --batch"
    elif "could not find any implementation" in said.lower():
        advice = f"No kernel fits into the workspace of {limit >> 20}M: try a larger --workspace or a smaller --batch"
    else:
        advice = f"The workspace was {limit >> 20}M: try --workspace {max(limit >> 21, 1)}M, --opt-level 1 or a smaller --batch"
    return f"the build ran out of memory{known}. {advice}{where}."
