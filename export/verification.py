"""Verify the graphs of one precision against a recording of the torch model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from ..errors import BackendError, ParityError
from ..runtime.checks.parity import MoveError, check_precision
from ..runtime.checks.recording import Recording
from ..runtime.storage.bundle import Bundle
from ..runtime.storage.manifest import ON_GPUS, Manifest

NOT_VERIFIED = "NOT VERIFIED"  # in the line that is reported for a precision that no backend can play here


def verified(
    bundle: Bundle,
    precision: str,
    recording: Recording,
    batches: Sequence[int],
    bound: float,
    allowed: bool,
    report: Callable[[str], None],
) -> tuple[Manifest, list[MoveError]]:
    """Return the manifest with the verdicts, and the errors that the first backend showed.

    Where no backend of this machine supports the precision, the list of errors is empty and a line is
    reported. batches: the batch sizes to play. bound: the largest relative L2 error that a move may have.
    allowed: return verdicts that fail, too.

    Raises ParityError if a move exceeds the bound, unless `allowed`.
    """
    manifest = bundle.manifest
    first_errors: list[MoveError] = []
    started = time.perf_counter()
    try:
        for verdict, errors, backend in check_precision(
            bundle, precision, recording, batches, bound, "torch"
        ):
            report(f"{verdict} ({len(errors)} moves in {time.perf_counter() - started:.1f} s)")
            if not verdict.ok and not allowed:
                raise _parity_error(errors, precision, backend.name, bound)
            manifest = manifest.with_verdict(verdict)
            first_errors = first_errors or errors
            started = time.perf_counter()
    except BackendError as error:
        report(f"{precision}: {NOT_VERIFIED}: {error}")
    return manifest, first_errors


def _parity_error(errors: Sequence[MoveError], precision: str, backend: str, bound: float) -> ParityError:
    outside = [error for error in errors if not error.ok]
    worst = max(outside, key=lambda error: error.relative_l2)
    if math.isinf(worst.relative_l2):
        hint = ""
        if precision == "fp16" or precision in ON_GPUS:
            hint = " The largest float16 is 65504; export bf16, which has the range of float32."
        return ParityError(
            f"{precision}: in {worst.schedule!r}, {worst.move}. Nothing was written.{hint}", errors
        )
    return ParityError(
        f"{precision} on {backend} differs from torch in {len(outside)} of {len(errors)} moves "
        f"by more than the bound of {bound:.0e}. The worst is {worst.move} of {worst.schedule!r} "
        f"at batch {worst.batch}: relative L2 {worst.relative_l2:.1e}. Nothing was written.",
        errors,
    )
