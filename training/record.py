"""The log folder of a training run: its losses as a table and curves, samples, TensorBoard's event files."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError
from ..runtime.pictures.grids import Grid, labelled_grid
from ..runtime.pictures.writing import save_images
from ..runtime.storage.files import check_free, replacing

TABLE = "log.csv"
CURVE = "curve.png"
SHEETS = "samples-*.png"
EVENTS = "events.out.tfevents.*"
ROWS_EVERY = 10  # steps between two rows of the table; a row has the mean losses of these steps
VALIDATION = "validation_"  # prefix of the columns of validation losses


def check_folder(folder: Path, continued: bool, force: bool) -> None:
    """Raise OutputError if a run may not write into a folder, because it is a file, or has other files."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, not a folder for logs; choose another folder with --log-dir")
    check_free(folder, force or continued, TABLE)


class Record:
    """The records of a run, written while it goes on.

    folder: the folder, which is created. Records of the steps after `done` are removed: those of an earlier
    run for done = 0, otherwise those of steps after the state that the run continues from.
    losses: the names of the losses.

    Raises OutputError.
    """

    def __init__(self, folder: Path, losses: list[str], done: int = 0, tensorboard: bool = False) -> None:
        self.folder = folder
        names = ["step", "learning_rate", "intervals", *losses, *(VALIDATION + name for name in losses)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            rows = _clear(folder, done)
            self._file = (folder / TABLE).open("w", newline="", buffering=1, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error.strerror})") from error
        except (KeyError, ValueError) as error:
            raise OutputError(
                f"{folder / TABLE}: not the table of a training run; remove it, or give another --log-dir"
            ) from error
        self._table = csv.DictWriter(self._file, names, restval="", extrasaction="ignore")
        self._table.writeheader()
        self._table.writerows(rows)
        self._recent: list[Mapping[str, float]] = []
        self._events = _events(folder, done) if tensorboard else None

    def step(
        self,
        step: int,
        losses: Mapping[str, float],
        settings: Mapping[str, float],
        validation: Mapping[str, float],
        last: bool,
    ) -> None:
        """Record a step. settings: its learning rate and intervals. validation: losses, if measured."""
        self._recent.append(losses)
        if step % ROWS_EVERY and not validation and not last:
            return
        means = {name: float(np.mean([row[name] for row in self._recent])) for name in losses}
        self._recent.clear()
        measured = {VALIDATION + name: value for name, value in validation.items()}
        row = {"step": step, **settings, **means, **measured}
        self._table.writerow({name: f"{value:.6g}" for name, value in row.items()})
        if self._events:
            scalars = {f"loss/{name}": value for name, value in means.items()}
            scalars |= {f"validation/{name}": value for name, value in validation.items()}
            for name, value in {**scalars, **settings}.items():
                self._events.add_scalar(name, value, step)

    def samples(self, step: int, grid: Grid) -> None:
        """Write a sheet of samples, and the curves up to this step."""
        images = np.concatenate(grid.rows)
        save_images(images, self.folder / SHEETS.replace("*", f"{step:06}"), force=True, grid=grid)
        if self._events:
            self._events.add_image("samples", labelled_grid(grid), step)
        self.save_curve()

    def save_curve(self) -> None:
        """Write the picture of the curves."""
        from .curve import draw_curves  # here, because matplotlib takes half a second

        with replacing(self.folder / CURVE, force=True) as partial:
            draw_curves(read_table(self.folder / TABLE)).savefig(partial, format="png")

    def close(self) -> None:
        """Close the files. Losses since the last row are not written."""
        self._file.close()
        if self._events:
            self._events.close()


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of the table, float64; values that were not measured are NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = rows[0].keys() if rows else ()
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def _clear(folder: Path, done: int) -> list[dict[str, str]]:
    """Remove the records after a step, and return the rows of the table up to it."""
    table = folder / TABLE
    rows: list[dict[str, str]] = []
    if done and table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= done]
    for sheet in folder.glob(SHEETS):
        number = sheet.stem.rpartition("-")[2]
        if number.isdigit() and int(number) > done:
            sheet.unlink()
    if not done:
        for file in folder.glob(EVENTS):
            file.unlink()
    return rows


def _events(folder: Path, done: int) -> Any:
    """Return a writer of event files. TensorBoard ignores the steps after `done` in older ones."""
    from tensorboardX import SummaryWriter  # here, because it is optional

    return SummaryWriter(str(folder), purge_step=done + 1)
