"""bcm-edge build: from a bundle to TensorRT engines for the GPU of this machine."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BackendError
from ..runtime.backends import backend_module, info, playing
from ..runtime.engines.store import WORKSPACE_SHARE
from ..runtime.machine.gpu import parse_device
from ..runtime.storage.bundle import Bundle, open_bundle
from ..runtime.storage.manifest import PRECISIONS
from .console import bundle_argument, json_option, progress, result

if TYPE_CHECKING:
    from ..export.engines.plan import BuildPlan

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@click.command(
    short_help="A bundle to TensorRT engines.",
    epilog="Example:  bcm-edge build digits.bundle --precision fp16 --batch 1:4:16",
)
@bundle_argument
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Which graphs to compile (default: fp16 if the bundle has it, else the most exact).",
)
@click.option(
    "--batch",
    default="1:4:16",
    show_default=True,
    metavar="MIN:OPT:MAX",
    help="Batch sizes the engines take, or one number.",
)
@click.option(
    "--workspace",
    metavar="SIZE",
    help="Scratch memory that one layer may take, as in 512M (default: TensorRT's limit; on a Jetson half of what is free).",
)
@click.option(
    "--opt-level",
    default=3,
    show_default=True,
    type=click.IntRange(0, 5),
    help="How long to look for fast kernels.",
)
@click.option("--device", default="cuda:0", show_default=True, metavar="cuda:N", help="The GPU to build for.")
@click.option(
    "--dla",
    type=click.Choice(["report"]),
    help="Say what a Jetson's DLA could take of it, and stop (on the Jetson).",
)
@click.option(
    "--strip",
    is_flag=True,
    help="Plans without weights, which are taken from the bundle when they are loaded.",
)
@click.option(
    "--strict-types",
    is_flag=True,
    help="Fail if a convolution computes in more bits than the graph asks for.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be built here, and stop (on the GPU).")
@click.option("--force", is_flag=True, help="Build again what is there already.")
@json_option
def build(
    bundle: Path,
    precision: str | None,
    batch: str,
    workspace: str | None,
    opt_level: int,
    device: str,
    dla: str | None,
    strip: bool,
    strict_types: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Compile a bundle's graphs to TensorRT engines for this machine's GPU, and keep them in the bundle.

    Whole schedules are played on the engines at both ends of the profile and between; exit code 1, and no engine, if an image is
    outside the precision's bound. The types that TensorRT computes in are read back; a convolution in more bits than the graph asks
    for is named in a warning, or refused with --strict-types. An engine made for another GPU, TensorRT version or graph is named with
    the reason, and a new one is built. Timings of kernels are cached.
    """
    from ..export.engines.build import refuse_wider_types, report_dla
    from ..export.engines.plan import plan_build
    from ..runtime.engines.facts import BuildOptions

    opened, index = open_bundle(bundle), parse_device(device)
    precision = precision or ("fp16" if "fp16" in opened.precisions else opened.precisions[0])
    limit = None if workspace is None else parse_bytes(workspace)
    options = BuildOptions(precision, parse_profile(batch), limit, opt_level, strip)
    try:
        plan = plan_build(opened, options, index, strict_types)
    except BackendError as error:
        needs = "build needs an NVIDIA GPU with its driver, TensorRT 8.6 or newer, and cuda-core"
        raise BackendError(
            f"{needs}: {error}. Run it on the machine that will play the engines. {_still_works(opened)}"
        ) from error
    if dry_run:
        result(as_json, {"dry_run": True, **_summary(plan)}, _dry(plan))
        return
    if dla:
        layers = report_dla(plan, progress)
        result(
            as_json,
            {**_summary(plan), "dla": layers},
            "\n".join(_dla_line(direction, of) for direction, of in layers.items()),
        )
        return
    if (present := plan.present()) and not force:
        if strict_types:
            refuse_wider_types(present.facts)
        progress(f"up to date: {present}")
        result(as_json, {**_summary(plan), "built": False, "engine": asdict(present.facts)}, str(plan.folder))
        return
    _run(plan, as_json)


def parse_profile(text: str) -> tuple[int, int, int]:
    """(smallest, most common, largest) batch from "1:4:16", or from "8", which is all three."""
    words = text.split(":")
    if len(words) in (1, 3) and all(re.fullmatch(r"[0-9]{1,5}", word) for word in words):
        smallest, common, largest = (int(word) for word in (words * 3 if len(words) == 1 else words))
        if 1 <= smallest <= common <= largest:
            return smallest, common, largest
    raise click.BadParameter(
        f"{text!r} is no MIN:OPT:MAX with 1 ≤ MIN ≤ OPT ≤ MAX ≤ 99999, such as 1:4:16", param_hint="--batch"
    )


def parse_bytes(text: str) -> int:
    """Bytes from "2G", "512M" or "1073741824"; the units are powers of 1024."""
    found = re.fullmatch(r"([0-9]{1,12})([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    amount = int(found[1]) * _UNITS[found[2].upper()] if found else 0
    if not 1 << 20 <= amount < 1 << 50:
        raise click.BadParameter(
            f"{text!r} is no whole amount of memory from 1M on, such as 512M or 2G", param_hint="--workspace"
        )
    return amount


def _run(plan: BuildPlan, as_json: bool) -> None:
    from ..export.engines.build import build

    progress(f"{plan.options.precision} for {plan.gpu}, TensorRT {plan.tensorrt}")
    started = time.perf_counter()
    with _builder_progress() as on_progress:
        facts, measured = build(plan, progress, on_progress)
    size = sum(file.size for file in facts.files.values()) / 1e6
    progress(
        f"{plan.folder} ({size:.1f} MB, {facts.scratch / 1e6:.1f} MB of scratch, {time.perf_counter() - started:.1f} s)"
    )
    values = {**_summary(plan), "built": True, "engine": asdict(facts)}
    result(as_json, {**values, "verification": [vars(error) for error in measured]}, str(plan.folder))


@contextmanager
def _builder_progress() -> Iterator[Callable[[str, str, int, int], None]]:
    """Where a person watches, a bar with the time so far; elsewhere one line at the end of each of the builder's phases."""
    started = time.perf_counter()
    if not sys.stderr.isatty():
        told: set[tuple[str, str]] = set()

        def line(plan: str, phase: str, done: int, steps: int) -> None:
            if done == steps and (plan, phase) not in told:
                told.add((plan, phase))
                progress(f"{plan}: {phase} ({time.perf_counter() - started:.1f} s)")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda plan, phase, done, steps: bar.update(
            task, description=f"{plan}: {phase}", completed=done, total=max(steps, 1)
        )


def _dla_line(direction: str, of: dict[str, Any]) -> str:
    refused = ", ".join(f"{kind.lower()} {n}" for kind, n in of["refused"].items())
    return f"{direction}: a DLA could take {of['able']} of {of['layers']} layers" + (
        f"; not {refused}" if refused else ""
    )


def _still_works(bundle: Bundle) -> str:
    others = [name for name in playing() if info(name).device != "gpu"]
    able = [
        name for name in others if any(backend_module(name).unavailable(p) is None for p in bundle.precisions)
    ]
    return (
        f"Here this bundle plays with --backend {' or '.join(able)}"
        if able
        else "Nothing else plays it here: see bcm-edge doctor"
    )


def _summary(plan: BuildPlan) -> dict[str, Any]:
    return {
        "folder": str(plan.folder),
        "gpu": asdict(plan.gpu),
        "tensorrt": plan.tensorrt,
        "options": asdict(plan.options),
        "to_verify": plan.batches,
        "timing_cache": str(plan.timing_cache) if plan.timing_cache else None,
        "stale": {engine.name: reason for engine, reason in plan.stale()},
    }


def _workspace(plan: BuildPlan) -> str:
    if plan.options.workspace is not None:
        return f"{plan.options.workspace / 2**20:.0f} MiB"
    if plan.gpu.integrated:
        return f"{WORKSPACE_SHARE:.0%} of the memory that is free when the build begins"
    return "TensorRT's own limit, all memory of the GPU"


def _dry(plan: BuildPlan) -> str:
    o = plan.options
    weights = (
        sum(
            facts.size
            for name, facts in plan.bundle.manifest.files.items()
            if name in plan.bundle.hashes(o.precision)
        )
        / 1e6
    )
    rows = [
        ("GPU", str(plan.gpu)),
        ("TensorRT", plan.tensorrt),
        (
            "graphs",
            f"{', '.join(path.name for path in plan.bundle.graphs(o.precision).values())} ({weights:.1f} MB with weights)",
        ),
        ("batch", f"{':'.join(map(str, o.batch))}, verified at {', '.join(map(str, plan.batches))}"),
        ("workspace", _workspace(plan)),
        ("timing cache", str(plan.timing_cache or "none: there is no cache folder")),
        ("stale", "; ".join(f"{engine.name}: {reason}" for engine, reason in plan.stale()) or "nothing"),
    ]
    return "\n".join([f"would write {plan.folder}", *(f"  {what}: {value}" for what, value in rows)])
