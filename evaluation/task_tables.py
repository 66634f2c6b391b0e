"""Tables and curves of restoration, purification and restyling, from the numbers of their measures."""

from __future__ import annotations

from collections.abc import Sequence

from .exhibits import NOTHING, Curves, Point, Table
from .task_measures import PURIFYING, QUERIES, STRENGTHS, Purified, Restored
from .task_restyling import CHOOSING, LEVELS, Pairs, Restyled

CURVED = 0.2  # the strength of the restorations in the curves


def restoration_table(restored: Sequence[Restored], run_note: str) -> Table:
    """Return PSNR, SSIM and Fréchet distance of each degradation, number of network calls and strength.

    run_note: sentences for the end of the note.
    """
    figures = ("PSNR", "SSIM", "Fréchet distance")
    measured = [f"{figure}, strength {strength:g}" for figure in figures for strength in STRENGTHS]
    rows = []
    for name in dict.fromkeys(each.degradation for each in restored):
        own = [each for each in restored if each.degradation == name]
        for nfe in sorted({each.nfe for each in own}):
            cells = _by_strength([each for each in own if each.nfe == nfe])
            rows.append([name, nfe or NOTHING, *cells])
    schedules = {each.nfe: str(each.schedule) for each in restored if each.strength == CURVED}
    listed = "; ".join(f"{nfe}: {schedule}" for nfe, schedule in schedules.items())
    note = f"Rows without calls: the degraded images. Schedules at strength {CURVED:g}: {listed}. {run_note}"
    return Table("Restoration", ["degradation", "network calls", *measured], rows, note)


def restoration_curves(restored: Sequence[Restored]) -> Curves:
    """Return the Fréchet distance of restored JPEG images over network calls, at the strength CURVED."""
    lines: dict[str, list[Point]] = {}
    for each in restored:
        if each.degradation.startswith("JPEG") and each.strength in (None, CURVED):
            point = Point(each.nfe, rounded(each.frechet, 3))
            lines.setdefault(each.degradation, []).append(point)
    return Curves(
        "Restoration of JPEG: distance over network calls",
        "network calls",
        "Fréchet distance",
        lines,
        log_y=True,
        note=f"0 calls: the compressed images. Strength {CURVED:g}; the schedules are those of the table.",
    )


def _by_strength(restored: Sequence[Restored]) -> list[float]:
    """Return PSNR, SSIM and distance at each strength, as the cells of a row.

    The degraded images have no strength; their figures are repeated.
    """
    by_strength = {each.strength: each for each in restored}
    rows = [by_strength[None] if None in by_strength else by_strength[strength] for strength in STRENGTHS]
    return [
        *(rounded(row.psnr, 2) for row in rows),
        *(rounded(row.ssim, 3) for row in rows),
        *(rounded(row.frechet, 2) for row in rows),
    ]


def purification_table(title: str, purified: Sequence[Purified], n: int) -> Table:
    """Return the shares of right answers at each budget. n: the number of images."""
    conditional = purified[0].guessed is not None
    columns = ["L∞ budget", "attacked"]
    if conditional:
        columns.append("label guessed by the model")
    columns += [f"purified, strength {strength:g}" for strength in PURIFYING]
    if conditional:
        columns += [f"true label given, {strength:g}" for strength in PURIFYING]
    rows = []
    for each in purified:
        row = [each.budget, rounded(each.attacked, 3)]
        if each.guessed is not None:
            row.append(rounded(each.guessed, 3))
        row += [rounded(each.purified[strength], 3) for strength in PURIFYING]
        if each.purified_true_labels is not None:
            row += [rounded(each.purified_true_labels[strength], 3) for strength in PURIFYING]
        rows.append(row)
    note = (
        f"Share of {n} images that the classifier labels correctly after a Square attack of {QUERIES}"
        " queries. Budgets are in units of [-1, 1]; 0 means that clean images are purified. The attack does"
        " not take the purification into account."
    )
    if conditional:
        note += (
            " For the purification, the model guesses the labels from the attacked images; a wrong label can"
            " change the class of an image. The columns with the true label show the result of right guesses;"
            " they are not a defence, because the label is the answer."
        )
    return Table(title, columns, rows, note)


def restyling_table(restyled: Sequence[Restyled], pairs: Pairs) -> Table:
    """Return the figures of each method. pairs: those that were measured."""
    conditional = restyled[0].agreement is not None
    columns = ["method", "network calls", "levels", "MSE to the true image", "± standard error"]
    columns += ["feature distance", "nearer than the input"]
    if conditional:
        columns.append("classifier sees the new class")
    rows = []
    for each in restyled:
        calls, levels = (
            (NOTHING, NOTHING) if each.schedule is None else (each.schedule.nfe, str(each.schedule))
        )
        row = [each.method, calls, levels, rounded(each.error, 4), rounded(each.spread, 4)]
        row += [rounded(each.distance, 2), rounded(each.nearer, 3)]
        if each.agreement is not None:
            row.append(rounded(each.agreement, 3))
        rows.append(row)
    note = (
        f"Of {len(pairs)} pairs of images of one thing in two classes ({len(set(pairs.names))} things), the"
        " first is restyled to the class of the second, the true image. Standard errors are over the things."
        " Restyling inverts under the first class and generates under the second. Re-noising (SDEdit) adds"
        f" noise to the input and removes it under the second class, at {len(LEVELS)} levels and in two"
        f" forms. Its rows are the best on every {CHOOSING}th thing, which is not measured: of all, and of"
        " those that the classifier puts into the new class as often as the restyled images."
    )
    return Table("Restyling", columns, rows, note)


def rounded(value: float, digits: int) -> float:
    """Return a Python float with at most this many decimal digits."""
    return round(float(value), digits)
