"""bcm-edge build: from a bundle to TensorRT engines for the GPU of this machine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BackendError
from ..runtime.backends import backend_module, info, playing
from ..runtime.engines.facts import BuildOptions
from ..runtime.engines.store import WORKSPACE_SHARE
from ..runtime.machine.gpu import parse_device
from ..runtime.storage.bundle import Bundle, open_bundle
from ..runtime.storage.manifest import PRECISIONS
from ..runtime.storage.rewriting import check_changeable
from .console import progress, result, shows_bars
from .options import bundle_argument, json_option

if TYPE_CHECKING:
    from ..export.engines.plan import BuildPlan

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@click.command(
    short_help="Build TensorRT engines from a bundle.",
    epilog="Example:  bcm-edge build digits.bundle --precision fp16 --batch 1:4:16",
)
@bundle_argument
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="The graphs to build from (default: fp16 if the bundle has it, else the most exact).",
)
@click.option(
    "--batch",
    multiple=True,
    default=["1:4:16"],
    show_default=True,
    metavar="MIN:OPT:MAX",
    help="Batch sizes of the engines: smallest, most common, largest; or one number for all three. "
    "Repeat the option for several optimisation profiles, each with its own kernels.",
)
@click.option(
    "--single-engine",
    is_flag=True,
    help="Compile only the inverse graph, for both directions: half the GPU memory for weights.",
)
@click.option(
    "--workspace",
    metavar="SIZE",
    help="Largest scratch memory of a layer, such as 512M or 2G (default: TensorRT's limit; on a Jetson "
    "half of the free memory).",
)
@click.option(
    "--opt-level",
    metavar="N",
    default=3,
    show_default=True,
    type=click.IntRange(0, 5),
    help="TensorRT's optimization level: higher levels search longer for fast kernels.",
)
@click.option("--device", default="cuda:0", show_default=True, metavar="cuda:N", help="The GPU to build for.")
@click.option(
    "--dla",
    type=click.Choice(["report"]),
    help="Report which layers a Jetson's DLA can run, and stop. Run it on the Jetson.",
)
@click.option(
    "--strip",
    is_flag=True,
    help="Build plans without weights; they are read from the bundle when an engine is loaded.",
)
@click.option(
    "--strict-types",
    is_flag=True,
    help="Fail if a convolution computes in more bits than its graph asks for.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be built, and stop. It needs the GPU.")
@click.option("--force", is_flag=True, help="Build again if the engine exists.")
@json_option
def build(
    bundle: Path,
    precision: str | None,
    batch: tuple[str, ...],
    single_engine: bool,
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
    """Build TensorRT engines for the GPU of this machine, and store them in BUNDLE.

    Whole schedules are run on the engines at the smallest, the largest and another batch size of every
    profile. If an image exceeds the bound of the precision, the engine is discarded and the exit code is 1.

    The types in which TensorRT computes are read back. A convolution in more bits than its graph asks for is
    a warning, or an error with --strict-types. Engines in the bundle that were built for another GPU,
    TensorRT version or graph are reported with the reason, and new ones are built. The timings of kernels
    are cached.
    """
    from ..export.engines.build import refuse_wider_types, report_dla

    opened, index = open_bundle(bundle), parse_device(device)
    check_changeable(opened)
    precision = precision or ("fp16" if "fp16" in opened.precisions else opened.precisions[0])
    limit = None if workspace is None else parse_bytes(workspace)
    profiles = tuple(sorted({parse_profile(text) for text in batch}))
    options = BuildOptions(precision, profiles, limit, opt_level, strip, single_engine)
    plan = _plan(opened, options, index, strict_types)
    if dry_run:
        result(as_json, {"dry_run": True, **_summary(plan)}, _dry_run_text(plan))
        return
    if dla:
        layers = report_dla(plan, progress)
        lines = [_dla_line(direction, counts) for direction, counts in layers.items()]
        result(as_json, {**_summary(plan), "dla": layers}, "\n".join(lines))
        return
    if (present := plan.present()) and not force:
        if strict_types:
            refuse_wider_types(present.facts)
        progress(f"up to date: {present}")
        values = {**_summary(plan), "built": False, "engine": asdict(present.facts)}
        result(as_json, values, str(plan.folder))
        return
    _build(plan, as_json)


def _plan(bundle: Bundle, options: BuildOptions, device: int, strict_types: bool) -> BuildPlan:
    """Return the plan of the build. Raises BackendError if this machine cannot build engines."""
    from ..export.engines.plan import plan_build

    try:
        return plan_build(bundle, options, device, strict_types)
    except BackendError as error:
        needs = "build needs an NVIDIA GPU with its driver, TensorRT 8.6 or newer, and cuda-core"
        advice = f"Run build on the machine that will use the engines. {_alternative(bundle)}"
        raise BackendError(f"{needs}: {error}. {advice}") from error


def parse_profile(text: str) -> tuple[int, int, int]:
    """Return the smallest, most common and largest batch of "1:4:16", or of "8", which is all three.

    Raises click.BadParameter.
    """
    words = text.split(":")
    if len(words) in (1, 3) and all(re.fullmatch(r"[0-9]{1,5}", word) for word in words):
        numbers = [int(word) for word in words]
        smallest, common, largest = numbers * 3 if len(numbers) == 1 else numbers
        if 1 <= smallest <= common <= largest:
            return smallest, common, largest
    raise click.BadParameter(
        f"expected MIN:OPT:MAX with 1 ≤ MIN ≤ OPT ≤ MAX ≤ 99999, for example 1:4:16, got {text!r}",
        param_hint="--batch",
    )


def parse_bytes(text: str) -> int:
    """Return the bytes of "2G", "512M" or "1073741824". The units are powers of 1024.

    Raises click.BadParameter.
    """
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    size = int(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not 1 << 20 <= size < 1 << 50:
        raise click.BadParameter(
            f"expected a whole number of bytes of at least 1M, for example 512M or 2G, got {text!r}",
            param_hint="--workspace",
        )
    return size


def _build(plan: BuildPlan, as_json: bool) -> None:
    """Build the engines of a plan and print the result."""
    from ..export.engines.build import build

    progress(f"building {plan.options.precision} for {plan.gpu}, TensorRT {plan.tensorrt}")
    started = time.perf_counter()
    with _builder_progress() as on_progress:
        facts, measured = build(plan, progress, on_progress)
    seconds = time.perf_counter() - started
    size = sum(file.size for file in facts.files.values()) / 1e6
    scratch = f"{facts.scratch / 1e6:.1f} MB of scratch memory"
    progress(f"{plan.folder} ({size:.1f} MB, {scratch}, {seconds:.1f} s)")
    values = {
        **_summary(plan),
        "built": True,
        "engine": asdict(facts),
        "verification": [vars(error) for error in measured],
    }
    result(as_json, values, str(plan.folder))


@contextmanager
def _builder_progress() -> Iterator[Callable[[str, str, int, int], None]]:
    """Yield the callback of TensorRT's progress: plan, phase, steps done, all steps of the phase.

    A terminal shows a bar with the time. Elsewhere a line is printed at the end of each phase.
    """
    if shows_bars():
        with _progress_bar() as on_progress:
            yield on_progress
        return
    started = time.perf_counter()
    printed: set[tuple[str, str]] = set()

    def print_phase(plan: str, phase: str, done: int, steps: int) -> None:
        if done == steps and (plan, phase) not in printed:
            printed.add((plan, phase))
            progress(f"{plan}: {phase} ({time.perf_counter() - started:.1f} s)")

    yield print_phase


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def update(plan: str, phase: str, done: int, steps: int) -> None:
            bar.update(task, description=f"{plan}: {phase}", completed=done, total=max(steps, 1))

        yield update


def _dla_line(direction: str, counts: dict[str, Any]) -> str:
    line = f"{direction}: a DLA can run {counts['able']} of {counts['layers']} layers"
    if not counts["refused"]:
        return line
    refused = [f"{kind.lower()} {number}" for kind, number in counts["refused"].items()]
    return f"{line}; not {', '.join(refused)}"


def _alternative(bundle: Bundle) -> str:
    """Return how the bundle can be used on a machine that cannot build engines."""
    able = [
        name
        for name in playing()
        if info(name).automatic
        and not info(name).plays_engines
        and any(backend_module(name).unavailable(precision) is None for precision in bundle.precisions)
    ]
    if able:
        return f"On this machine, the bundle runs with --backend {' or '.join(able)}"
    return "No other backend can run the bundle on this machine: see bcm-edge doctor"


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


def _dry_run_text(plan: BuildPlan) -> str:
    options, bundle = plan.options, plan.bundle
    used = bundle.hashes(options.precision)
    size = sum(facts.size for name, facts in bundle.manifest.files.items() if name in used) / 1e6
    files = bundle.graphs(options.precision)
    graphs = ", ".join(files[direction].name for direction in options.directions)
    stale = [f"{engine.name}: {reason}" for engine, reason in plan.stale()]
    rows = [
        ("GPU", str(plan.gpu)),
        ("TensorRT", plan.tensorrt),
        ("graphs", f"{graphs} ({size:.1f} MB with weights)"),
        ("batch", f"{options.profiles_text}, verified at {', '.join(map(str, plan.batches))}"),
        ("workspace", _workspace(plan)),
        ("timing cache", str(plan.timing_cache or "none, because there is no cache folder")),
        ("outdated engines", "; ".join(stale) or "none"),
    ]
    return "\n".join([f"would write {plan.folder}", *(f"  {name}: {value}" for name, value in rows)])


def _workspace(plan: BuildPlan) -> str:
    if plan.options.workspace is not None:
        return f"{plan.options.workspace / 2**20:.0f} MiB"
    if plan.gpu.integrated:
        return f"{WORKSPACE_SHARE:.0%} of the memory that is free when the build starts"
    return "TensorRT's limit: all memory of the GPU"
