"""bcm-edge verify: run a bundle and compare it with a reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BackendError, BcmError, OutputError
from ..runtime.accuracy import BOUNDS
from ..runtime.backends import open_backend
from ..runtime.checks.doctor import require_extra
from ..runtime.checks.parity import MoveError, check_precision
from ..runtime.checks.recording import Recording, batches_to_check, load_recording, programs_to_check, record
from ..runtime.machine.placement import Placement
from ..runtime.storage.bundle import Bundle, open_bundle
from ..runtime.storage.manifest import Manifest
from ..runtime.storage.rewriting import update_manifest
from ..runtime.storage.shipped import shipped_name
from ..runtime.storage.verdicts import Verdict
from .console import message, note, progress, result
from .options import (
    backend_option,
    bundle_argument,
    device_option,
    json_option,
    parse_precisions,
    precisions_option,
    threads_option,
)
from .tables import table

if TYPE_CHECKING:
    from ..export.bisect import StrayLayer


@click.command(
    short_help="Run a bundle and compare it with a reference.",
    epilog="Example:  bcm-edge verify digits --precision all",
)
@bundle_argument
@precisions_option("all", "Precisions to check: a list such as fp32,int8, or all in the bundle.")
@backend_option
@threads_option
@device_option
@click.option(
    "--against",
    default="golden",
    show_default=True,
    type=click.Choice(["golden", "fp32", "torch"]),
    help="The reference: golden, what torch computed at export; fp32, the bundle's fp32 graphs in ONNX "
    "Runtime; torch, what torch computes now with the bundle's weights.",
)
@click.option(
    "--bound",
    metavar="X",
    type=click.FloatRange(0, min_open=True),
    help="Largest relative L2 error of a move (default: that of the precision, see above).",
)
@click.option(
    "--bisect",
    is_flag=True,
    help="If a precision exceeds its bound, name the first layer that does (needs polygraphy).",
)
@click.pass_context
@json_option
def verify(
    context: click.Context,
    bundle: Path,
    precisions: str,
    backend: str,
    threads: int | None,
    device: str | None,
    against: str,
    bound: float | None,
    bisect: bool,
    as_json: bool,
) -> None:
    """Run whole schedules on the graphs of BUNDLE and compare every state with a reference.

    The exit code is 1 if a precision exceeds its bound. The bounds are relative L2 errors after every move:
    1e-4 (fp32), 5e-3 (fp16), 2e-2 (bf16), 6e-2 (int8, int8-fp16, fp8). The verdicts are stored in the
    bundle's manifest together with the sha256 of the files that were checked; `inspect` shows them.
    """
    if bisect:
        require_extra("debug")
    if bound is not None and not math.isfinite(bound):
        raise click.BadParameter(f"{bound} is not a finite number", param_hint="--bound")
    opened, placement = open_bundle(bundle), Placement(threads, device)
    recording = _reference(opened, against, placement)
    names = opened.precisions if precisions == "all" else list(parse_precisions(precisions))
    if against == "fp32" and len(names) > 1:
        names.remove("fp32")  # it is the reference itself
    check = _Check(opened, recording, backend, placement, against, bound, skip=precisions == "all")
    reports = [report for precision in names for report in check.reports(precision)]
    if not reports:
        where = "on this machine" if backend == "auto" else f"on {backend} on this machine"
        if device:
            where += f" with the device {device}"
        raise BackendError(
            f"{bundle}: no precision of the bundle can run {where}; bcm-edge doctor {bundle} shows why"
        )
    _store(opened, [report.verdict for report in reports if report.verdict.backend != "null"])
    ok = all(report.verdict.ok for report in reports)
    values = {"bundle": str(bundle), "ok": ok, "precisions": [report.to_json() for report in reports]}
    texts = [report.text() for report in reports]
    if bisect:
        failed = [report.verdict for report in reports if not report.verdict.ok]
        strays = {verdict.precision: _stray(opened, recording, verdict) for verdict in failed}
        values["strays"] = {
            precision: stray if isinstance(stray, str) else stray.to_json()
            for precision, stray in strays.items()
        }
        texts += [str(stray) for stray in strays.values()]
    result(as_json, values, "\n\n".join(texts))
    context.exit(0 if ok else 1)


@dataclass(frozen=True)
class _Report:
    """The result of one precision on one backend."""

    verdict: Verdict
    # One per move of every schedule at every batch size.
    errors: list[MoveError]
    # The processor or GPU that computed.
    device: str

    def text(self) -> str:
        """Return the verdict, below a table of the moves at the largest batch and of all failed ones."""
        rows = [
            (
                error.schedule,
                error.batch,
                error.move,
                f"{error.max_abs:.1e}",
                f"{error.relative_l2:.1e}",
                f"{error.psnr:.0f} dB",
                "✓" if error.ok else "✗",
            )
            for error in self.errors
            if error.batch == self.verdict.batches[-1] or not error.ok
        ]
        shown = table(("schedule", "batch", "move", "max |Δ|", "rel. L2", "PSNR", ""), rows)
        within = sum(error.ok for error in self.errors)
        batches = ", ".join(map(str, self.verdict.batches))
        agreed = f"{within} of {len(self.errors)} moves within the bound, at batch {batches}"
        return f"{shown}\n{self.verdict} ({agreed}; {self.device})"

    def to_json(self) -> dict[str, Any]:
        """Return the verdict, the device and all moves for --json."""
        moves = [vars(error) for error in self.errors]
        return {**self.verdict.to_json(), "device": self.device, "moves": moves}


@dataclass(frozen=True)
class _Check:
    """The inputs and options of the check, the same for all precisions."""

    bundle: Bundle
    recording: Recording
    # A name of runtime/backends, or "auto".
    backend: str
    placement: Placement
    # The value of --against.
    against: str
    # The value of --bound; None for the bound of each precision.
    bound: float | None
    # Whether a precision that cannot run here is reported and left out instead of raising BackendError.
    skip: bool

    def reports(self, precision: str) -> Iterator[_Report]:
        """Yield a report for each backend that the precision is checked on. Raises BackendError."""
        bound = self.bound or BOUNDS[precision]
        most = len(self.recording.seeds)
        batches = batches_to_check(self.bundle.manifest.model.parameters)
        sizes = sorted({most, *(size for size in batches if size < most)})
        truth = "fp32" if self.against == "fp32" else "torch"
        progress(f"checking {precision}")
        try:
            for verdict, errors, backend in check_precision(
                self.bundle, precision, self.recording, sizes, bound, truth, self.backend, self.placement
            ):
                yield _Report(verdict, errors, backend.device)
        except BackendError as error:
            if not self.skip:
                raise
            message(f"{precision}: NOT VERIFIED: {error}")


def _reference(bundle: Bundle, against: str, placement: Placement) -> Recording:
    """Return the states to compare with: those in the bundle, or new ones of another implementation."""
    if against == "golden":
        return load_recording(bundle)
    model = bundle.manifest.model
    programs = programs_to_check(bundle.manifest.schedules, model.parameters)
    if against == "fp32":
        reference = open_backend("onnxruntime", bundle, "fp32", Placement(placement.threads))
    else:
        require_extra("export")
        from ..export.restore import restored_model
        from ..model.player import TorchBackend

        reference = TorchBackend(restored_model(bundle))
    progress(f"reference: {len(programs)} schedules in {reference.precision} on {reference.name}")
    return record(reference, programs, max(batches_to_check(model.parameters)))


def _stray(bundle: Bundle, recording: Recording, verdict: Verdict) -> StrayLayer | str:
    """Return the first layer that exceeds the bound, or a sentence that explains why none can be named."""
    from ..export.bisect import first_stray_layer

    progress(f"{verdict.precision}: searching for the first layer that exceeds the bound")
    try:
        stray = first_stray_layer(bundle, verdict.precision, recording, verdict.bound)
    except BcmError as error:
        return f"{verdict.precision}: the first layer that exceeds the bound cannot be found: {error}"
    if stray is not None:
        return stray
    return (
        f"{verdict.precision}: every schedule is within the bound on ONNX Runtime; "
        f"the error comes from {verdict.backend}"
    )


def _store(bundle: Bundle, verdicts: list[Verdict]) -> None:
    """Add the verdicts to the manifest. Print a note if it cannot be written.

    The manifests of bundles in the package are not changed.
    """

    def add(manifest: Manifest) -> Manifest:
        for verdict in verdicts:
            manifest = manifest.with_verdict(verdict)
        return manifest

    if shipped_name(bundle.path):
        return
    try:
        update_manifest(bundle, add)
    except OutputError as error:
        note(f"the verdicts are not stored in the bundle: {error}")
