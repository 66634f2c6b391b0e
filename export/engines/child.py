"""Start the compiling process, pass its events on, and turn its end into a result or an error.

The process runs compiler.py. If it crashes or runs out of memory, this module raises an error.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
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
from .plan import BuildPlan, Progress, Report

CHILD = "from bcm_edge.export.engines.compiler import main\nmain()\n"


def compile_in_child(
    plan: BuildPlan, folder: Path, report: Report, progress: Progress, dla: bool = False
) -> dict[str, Any]:
    """Write the plans to a folder; return the fields of compiler.Compiled.

    dla: build nothing, and return direction → plan_writer.DlaSupport.

    Raises the error that the process reports, or BuildError if it ends without one.
    """
    free: int | None = None  # bytes of GPU memory when the build began, once the process reports them
    with temporary_text() as stderr, _child(stderr) as child:
        assert child.stdin and child.stdout
        with suppress(BrokenPipeError):  # the process has ended already; the reason is found below
            child.stdin.write(json.dumps(_request(plan, folder, dla)))
            child.stdin.close()
        for line in child.stdout:
            event = json.loads(line)
            match event.pop("event"):
                case "done":
                    child.wait()
                    return event
                case "error":
                    child.wait()
                    raise _reported_error(event, plan, free)
                case "memory":
                    free = event["free"]
                case "line":
                    report(event["text"])
                case "progress":
                    progress(event["plan"], event["phase"], event["done"], event["steps"])
        exit_code = child.wait()
        stderr.seek(0)
        raise _unreported_error(exit_code, stderr.read(), plan, free)


def _request(plan: BuildPlan, folder: Path, dla: bool) -> dict[str, Any]:
    """The fields of compiler.Request, as JSON values."""
    graphs = plan.bundle.graphs(plan.options.precision)
    return {
        "graphs": {direction: str(graphs[direction]) for direction in plan.options.directions},
        "folder": str(folder),
        "sample_shape": plan.bundle.manifest.model.sample_shape,
        "options": asdict(plan.options),
        "device": plan.gpu.index,
        "timing_cache": str(plan.timing_cache) if plan.timing_cache else None,
        "dla": dla,
    }


@contextmanager
def _child(stderr: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The compiling process, which is killed at the end of the block if it still runs."""
    with subprocess.Popen(
        python_command(CHILD), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _reported_error(event: dict[str, Any], plan: BuildPlan, free: int | None) -> Exception:
    """The error of an "error" event."""
    error_class, text = event["kind"], event["text"]
    if error_class == "OutOfMemory":
        return BuildError(f"{_memory_message(plan, free, text)} TensorRT reports: {text}")
    return getattr(errors, error_class, BuildError)(text)


def _unreported_error(exit_code: int, stderr: str, plan: BuildPlan, free: int | None) -> BuildError:
    """The error of a process that ended without an event: it ran out of memory, or it crashed."""
    killed = exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    if killed or is_out_of_memory(stderr):
        return BuildError(_memory_message(plan, free, stderr))
    lines = stderr.strip().splitlines()
    last_line = lines[-1] if lines else "it left no message"
    end = f"exit code {exit_code}"
    if exit_code < 0:
        end = f"signal {signal.Signals(-exit_code).name}"
    return BuildError(f"the compiling process ended with {end}: {last_line}")


def _memory_message(plan: BuildPlan, free: int | None, output: str) -> str:
    """Return the message for a build that ran out of memory: what happened and what to do.

    output: the messages of TensorRT or the system.
    """
    memory = ""
    if free is not None:
        memory = f": {free / 1e9:.1f} GB of {plan.gpu.memory / 1e9:.1f} were free when it began"
    limit = workspace_limit(plan.options.workspace, plan.gpu, free)
    if limit is None:
        advice = "Close other programs that use the GPU, or try --opt-level 1 or a smaller --batch"
    elif "could not find any implementation" in output.lower():
        advice = (
            f"No kernel fits into the workspace of {limit >> 20}M: "
            "try a larger --workspace or a smaller --batch"
        )
    else:
        half = max(limit >> 21, 1)
        advice = (
            f"The workspace was {limit >> 20}M: try --workspace {half}M, --opt-level 1 or a smaller --batch"
        )
    on_jetson = "; on a Jetson close the desktop and add swap" if plan.gpu.integrated else ""
    return f"the build ran out of memory{memory}. {advice}{on_jetson}."
