"""Whether the graphs of one precision keep to their bound, and the verdict for the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..errors import BackendError, ParityError
from ..runtime.checks.parity import MoveError, Recording, check_precision
from ..runtime.storage.bundle import Bundle
from ..runtime.storage.manifest import Manifest


def verified(
    bundle: Bundle,
    precision: str,
    recording: Recording,
    batches: Sequence[int],
    bound: float,
    allowed: bool,
    report: Callable[[str], None],
) -> tuple[Manifest, list[MoveError]]:
    """(the manifest with the verdicts, what was measured on the first backend). Nothing is measured, and that is reported, where no
    backend here can compute it.

    Raises ParityError if a move strays further than the bound (relative L2), unless `allowed`.
    """
    manifest, measured = bundle.manifest, []
    started = time.perf_counter()
    try:
        for verdict, errors, candidate in check_precision(
            bundle, precision, recording, batches, bound, "torch"
        ):
            report(f"{verdict} ({len(errors)} moves in {time.perf_counter() - started:.1f} s)")
            if not verdict.ok and not allowed:
                raise _disagreement(errors, precision, candidate.name, bound)
            manifest, measured = manifest.with_verdict(verdict), measured or errors
            started = time.perf_counter()
    except BackendError as error:
        report(f"{precision}: NOT VERIFIED: {error}")
    return manifest, measured


def _disagreement(errors: Sequence[MoveError], precision: str, backend: str, bound: float) -> ParityError:
    bad = [e for e in errors if not e.ok]
    worst = max(bad, key=lambda e: e.relative_l2)
    if worst.relative_l2 == float("inf"):
        hint = (
            " Its numbers end at 65504: export bf16, which has float32's range."
            if precision == "fp16"
            else ""
        )
        return ParityError(
            f"{precision}: in {worst.schedule!r}, {worst.move}. Nothing was written.{hint}", errors
        )
    return ParityError(
        f"{precision} on {backend} strays from torch in {len(bad)} of {len(errors)} moves; worst is {worst.move} of {worst.schedule!r} "
        f"at batch {worst.batch}: relative L2 {worst.relative_l2:.1e}, bound {bound:.0e}. Nothing was written.",
        errors,
    )
