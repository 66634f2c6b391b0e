"""bcm-edge verify, inspect, doctor: is this bundle what it says, what is in it, and what can run here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BackendError, BcmError, OutputError
from ..runtime.accuracy import BOUNDS
from ..runtime.backends import open_backend
from ..runtime.checks.parity import MoveError, check_precision
from ..runtime.checks.recording import Recording, batches_to_check, load_recording, programs_to_check, record
from ..runtime.engines.store import broken_engines, engines
from ..runtime.storage.bundle import Bundle, open_bundle
from ..runtime.storage.manifest import Manifest
from ..runtime.storage.rewriting import update_manifest
from ..runtime.storage.verdicts import Verdict
from ..runtime.wording import MOST, listed
from .console import (
    backend_option,
    bundle_argument,
    json_option,
    parse_precisions,
    progress,
    require_extra,
    result,
    table,
)
from .paths import PATH

if TYPE_CHECKING:
    from ..export.bisect import Stray


@click.command(
    short_help="Play a bundle and compare.", epilog="Example:  bcm-edge verify digits.bundle --precision all"
)
@bundle_argument
@click.option(
    "--precision",
    "precisions",
    default="all",
    show_default=True,
    metavar="LIST",
    help="Of fp32,fp16,bf16,int8; all: as held.",
)
@backend_option
@click.option(
    "--against",
    default="golden",
    show_default=True,
    type=click.Choice(["golden", "fp32", "torch"]),
    help="The truth: what torch made at export, the fp32 graphs on onnxruntime, or torch here, with the bundle's weights.",
)
@click.option(
    "--bound",
    type=click.FloatRange(0, min_open=True),
    help="Relative L2 each move may stray (default: by precision).",
)
@click.option(
    "--bisect",
    is_flag=True,
    help="Of a precision that strays, name the first layer that does (needs polygraphy).",
)
@click.pass_context
@json_option
def verify(
    context: click.Context,
    bundle: Path,
    precisions: str,
    backend: str,
    against: str,
    bound: float | None,
    bisect: bool,
    as_json: bool,
) -> None:
    """Play whole schedules on the bundle's graphs and compare every state with the truth; exit code 1 if a precision strays.

    Bounds are 1e-4 (fp32), 5e-3 (fp16), 2e-2 (bf16) and 6e-2 (int8) relative L2 after every move. The verdicts go to the bundle's
    manifest with the sha256 of the files they are about; `inspect` shows them.
    """
    if bisect:
        require_extra("debug")
    if bound is not None and not math.isfinite(bound):
        raise click.BadParameter("the bound must be a number", param_hint="--bound")
    opened = open_bundle(bundle)
    recording = _truth(opened, against)
    wanted = opened.precisions if precisions == "all" else list(parse_precisions(precisions))
    if against == "fp32" and len(wanted) > 1:
        wanted.remove("fp32")  # against itself it says nothing
    reports = [
        r
        for precision in wanted
        for r in _verify(opened, recording, precision, backend, against, bound, precisions == "all")
    ]
    if not reports:
        raise BackendError(f"{bundle}: no precision of it could be played here")
    _store(opened, [report.verdict for report in reports if report.verdict.backend != "null"])
    ok = all(report.verdict.ok for report in reports)
    values = {"bundle": str(bundle), "ok": ok, "precisions": [report.to_json() for report in reports]}
    parts = [report.text() for report in reports]
    if bisect:
        strays = {
            r.verdict.precision: _stray(opened, recording, r.verdict) for r in reports if not r.verdict.ok
        }
        values["strays"] = {
            precision: stray.to_json() if not isinstance(stray, str) else stray
            for precision, stray in strays.items()
        }
        parts += [str(stray) for stray in strays.values()]
    result(as_json, values, "\n\n".join(parts))
    context.exit(0 if ok else 1)


@dataclass(frozen=True)
class _Report:
    """One precision's moves and verdict; device: what it was played on."""

    verdict: Verdict
    errors: list[MoveError]
    device: str

    def text(self) -> str:
        rows = [
            (
                e.schedule,
                e.batch,
                e.move,
                f"{e.max_abs:.1e}",
                f"{e.relative_l2:.1e}",
                f"{e.psnr:.0f} dB",
                "✓" if e.ok else "✗",
            )
            for e in self.errors
            if e.batch == self.verdict.batches[-1] or not e.ok
        ]
        shown = table(("schedule", "batch", "move", "max |Δ|", "rel. L2", "PSNR", ""), rows)
        agreed = f"{sum(e.ok for e in self.errors)} of {len(self.errors)} moves within it, at batch {', '.join(map(str, self.verdict.batches))}"
        return f"{shown}\n{self.verdict} ({agreed}; {self.device})"

    def to_json(self) -> dict[str, Any]:
        return {**self.verdict.to_json(), "device": self.device, "moves": [vars(e) for e in self.errors]}


def _truth(bundle: Bundle, against: str) -> Recording:
    """What every backend is compared with: the recording in the bundle, or its schedules played again by another implementation."""
    if against == "golden":
        return load_recording(bundle)
    model = bundle.manifest.model
    programs = programs_to_check(bundle.manifest.schedules, model.parameters)
    if against == "fp32":
        reference = open_backend("onnxruntime", bundle, "fp32")
    else:
        require_extra("export")
        from ..export.restore import restored_model
        from ..model.player import TorchBackend

        reference = TorchBackend(restored_model(bundle))
    progress(f"playing {len(programs)} schedules with {reference.name} in {reference.precision}")
    return record(reference, programs, max(batches_to_check(model.parameters)))


def _verify(
    bundle: Bundle,
    recording: Recording,
    precision: str,
    backend: str,
    against: str,
    bound: float | None,
    skip: bool,
) -> Iterator[_Report]:
    """One report per backend that the precision is checked on. skip: whether one that cannot run here is passed over, and that reported."""
    bound = bound or BOUNDS[precision]
    sizes = {n for n in batches_to_check(bundle.manifest.model.parameters) if n < len(recording.seeds)} | {
        len(recording.seeds)
    }
    truth = "fp32" if against == "fp32" else "torch"
    progress(f"playing {precision}")
    try:
        for verdict, errors, candidate in check_precision(
            bundle, precision, recording, sorted(sizes), bound, truth, backend
        ):
            yield _Report(verdict, errors, candidate.device)
    except BackendError as error:
        if not skip:
            raise
        progress(f"{precision}: NOT VERIFIED: {error}")


def _stray(bundle: Bundle, recording: Recording, verdict: Verdict) -> Stray | str:
    """The first layer that strays, or why none can be named."""
    from ..export.bisect import first_stray_layer

    progress(f"looking for the first layer of {verdict.precision} that strays")
    try:
        stray = first_stray_layer(bundle, verdict.precision, recording, verdict.bound)
    except BcmError as error:
        return f"{verdict.precision}: no layer can be named: {error}"
    return (
        stray
        or f"{verdict.precision}: on ONNX Runtime every schedule keeps to the bound; what strays is {verdict.backend}"
    )


def _store(bundle: Bundle, verdicts: list[Verdict]) -> None:
    def change(manifest: Manifest) -> Manifest:
        for verdict in verdicts:
            manifest = manifest.with_verdict(verdict)
        return manifest

    try:
        update_manifest(bundle, change)
    except OutputError as error:
        progress(f"the verdicts are not kept: {error}")


@click.command(short_help="What a bundle holds.", epilog="Example:  bcm-edge inspect digits.bundle")
@bundle_argument
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what a bundle holds: the model, its schedules, its files, its engines and where it comes from."""
    opened = open_bundle(bundle)
    manifest = opened.manifest
    model, whole, broken = manifest.model, engines(opened), broken_engines(opened)
    classes = f"{model.num_classes} classes" if model.num_classes else "no classes"
    named = [f"{label} {name}" for label, name in enumerate(model.classes or ())]
    c, h, w = model.sample_shape
    parts = [
        f"{model.name}: {c}×{h}×{w}, {classes}, {model.parameters / 1e6:.2f} M parameters",
        *(
            [f"classes: {listed(named)}{' (--json lists all)' if len(named) > MOST + 1 else ''}"]
            if named
            else []
        ),
        table(
            ("schedule", "NFE", "program", "quality"),
            [
                (name, opened.schedule(name).nfe, text, _quality(manifest.quality.get(name)))
                for name, text in manifest.schedules.items()
            ],
        ),
        table(
            ("file", "bytes", "sha256"), [(name, f.size, f.sha256[:12]) for name, f in manifest.files.items()]
        ),
        "\n".join(
            [
                f"precisions: {', '.join(opened.precisions)}",
                *(f"  {verdict}" for verdict in opened.verdicts()),
            ]
        ),
        "\n".join(
            [
                f"engines: {len(whole) + len(broken) or 'none'}",
                *(f"  {engine}" for engine in (*whole, *broken)),
            ]
        ),
        "\n".join(f"{key}: {json.dumps(value)}" for key, value in manifest.provenance.items()),
    ]
    values: dict[str, Any] = {
        "bundle": str(bundle),
        "model": vars(model),
        "schedules": manifest.schedules,
        "graphs": manifest.graphs,
    }
    values |= {
        "files": {name: vars(f) for name, f in manifest.files.items()},
        "provenance": manifest.provenance,
        "schema": manifest.schema,
    }
    values["engines"] = {
        **{engine.name: asdict(engine.facts) for engine in whole},
        **{engine.name: {"problem": engine.problem} for engine in broken},
    }
    values |= {
        "precisions": opened.precisions,
        "quality": manifest.quality,
        "verdicts": [v.to_json() for v in opened.verdicts()],
    }
    result(as_json, values, "\n\n".join(parts))


def _quality(measured: dict[str, Any] | None) -> str:
    """What a schedule search measured, in words."""
    if not measured:
        return "not measured"
    names = {"frechet_ratio": "Fréchet ratio", "reconstruction_mse": "MSE"}
    shown = ", ".join(f"{names[key]} {value:.4g}" for key, value in measured.items() if key in names)
    return f"{shown} on {measured.get('data')}"


@click.command(
    short_help="What runs here, what does not, the fix.", epilog="Example:  bcm-edge doctor digits.bundle"
)
@click.argument("bundle", required=False, type=PATH)
@click.option(
    "--report",
    "with_report",
    is_flag=True,
    help="Print versions and settings before it: attach both to a report of a problem.",
)
@click.pass_context
@json_option
def doctor(context: click.Context, bundle: Path | None, with_report: bool, as_json: bool) -> None:
    """Say what runs here, what does not, and the one line that fixes it. Exit code 1 if nothing can run a bundle."""
    from ..runtime.checks.doctor import examine
    from ..runtime.checks.report import report
    from ..runtime.log import without_home

    findings = examine(bundle)
    lines = [
        f"{'✓' if f.ok else '✗'} {f.subject}: {f.detail}" + (f"\n    fix: {f.fix}" if f.fix else "")
        for f in findings
    ]
    ok = not any(f.blocks for f in findings)
    lines.append("bundles can run here" if ok else "bundles cannot run here yet")
    values: dict[str, Any] = {"ok": ok, "findings": [vars(f) for f in findings]}
    if with_report:
        values["report"] = report()
        values["findings"] = [
            {**vars(f), "detail": without_home(f.detail), "fix": without_home(f.fix)} for f in findings
        ]
        lines = [*values["report"], *(without_home(line) for line in lines)]
    result(as_json, values, "\n".join(lines))
    context.exit(0 if ok else 1)
