"""bcm-edge demo: every task once, with the digits model in this package, and pictures of the results."""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from ..runtime.checks.doctor import require_extra
from ..runtime.loading import load
from ..runtime.pictures.animation import save_animation
from ..runtime.pictures.grids import Grid, rows_of
from ..runtime.pictures.writing import save_images
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, mean_squared_error
from ..runtime.storage.arrays import save_npz
from ..runtime.storage.files import replacing
from ..runtime.wording import counted
from .captions import pairs_grid, title
from .console import progress, result
from .options import force_option, json_option
from .paths import OutputPath
from .tables import table

GENERATIONS = ("one-step", "ancestral-2", "zigzag-3", "mixture-4")
INVERSIONS = ("invert-1", "invert-2")
PER_CLASS = 8  # generated images
RECONSTRUCTED = 60  # test digits that are inverted
QUALITY = 10  # JPEG quality of the damaged digits


@click.command(
    short_help="Run every task once, and write pictures.", epilog="Example:  bcm-edge demo -o demo"
)
@click.option(
    "-o",
    "--output",
    default="demo",
    show_default=True,
    type=OutputPath("folder"),
    help="The folder to write.",
)
@force_option
@json_option
def demo(output: Path, force: bool, as_json: bool) -> None:
    """Run every task once with the digits model: export, generate, invert, reconstruct, inpaint and so on.

    The folder gets the bundle, pictures, a table, and inputs to try the other commands on: digits.npz,
    damaged.npz, small.npz, three.png, five.png, hole.png.
    """
    require_extra("export")
    require_extra("train")
    from ..export.exporter import ExportPlan, export
    from ..model.checkpoint import load_checkpoint, shipped_checkpoint
    from ..runtime.storage.hashes import sha256

    with replacing(output, force, marker="digits.bundle") as folder:
        folder.mkdir()
        checkpoint = shipped_checkpoint()
        plan = ExportPlan(load_checkpoint(checkpoint), folder / "digits.bundle")

        def report(line: str) -> None:
            progress(line.replace(str(folder), str(output)))  # the folder has a temporary name until the end

        export(plan, sha256(checkpoint), report)
        with load(folder / "digits.bundle", batch=PER_CLASS * 10, value_range=SIGNED) as bcm:
            rows = [*_generate(bcm, folder), *_invert(bcm, folder)]
            _tasks(bcm, folder)
        text = table(("what", "NFE", "seconds per image", "reconstruction MSE"), rows)
        (folder / "table.txt").write_text(text + "\n")
    names = ("digits.bundle", "generated.png", "reconstructed.png", "latents.npz", "table.txt")
    files = {name: str(output / name) for name in names}
    pictures = [f"{name}.png" for name in (*GENERATIONS, "filled", "restored")]
    others = [str(output / name) for name in (*pictures, "way.gif")]
    listing = "\n".join(f"  {path}" for path in [*files.values(), *others])
    result(as_json, {"output": str(output), **files, "rows": rows}, f"{text}\n\nresults:\n{listing}")


def _generate(bcm: BCM, folder: Path) -> list[tuple[object, ...]]:
    """Write a picture per schedule with a row per class, and generated.png with a row per schedule.

    Returns the rows of the table.
    """
    rows: list[tuple[object, ...]] = []
    compared = []
    labels = np.repeat(np.arange(10), PER_CLASS)
    bcm.generate(1, labels=0)  # opens the session, which is not part of the time per image
    for name in GENERATIONS:
        started = time.perf_counter()
        images = bcm.generate(len(labels), schedule=name, labels=labels)
        seconds = (time.perf_counter() - started) / len(labels)
        line = title([name], bcm.bundle.schedule(name).nfe)
        grid = Grid(rows_of(images, PER_CLASS), line, [f"class {label}" for label in range(10)])
        save_images(images, folder / f"{name}.png", grid=grid)
        compared.append(images[::PER_CLASS])
        rows.append((f"generate {name}", bcm.bundle.schedule(name).nfe, f"{seconds:.4f}", ""))
    names = [f"{name}, {counted(bcm.bundle.schedule(name).nfe, 'call')}" for name in GENERATIONS]
    grid = Grid(compared, "", names, [f"class {label}" for label in range(10)])
    save_images(compared[0], folder / "generated.png", grid=grid)
    return rows


def _invert(bcm: BCM, folder: Path) -> list[tuple[object, ...]]:
    """Invert and reconstruct real digits that the model was not trained on. Returns the rows of the table."""
    from ..training.data import load_digits

    test = load_digits("test")
    assert test.labels is not None
    images, labels = test.images.numpy()[:RECONSTRUCTED], test.labels.numpy()[:RECONSTRUCTED]
    bcm.invert(images[:1], labels=labels[:1])
    rows: list[tuple[object, ...]] = []
    nfe, latents, reconstructions = 0, images, images
    for name in INVERSIONS:
        started = time.perf_counter()
        latents = bcm.invert(images, inversion=name, labels=labels)
        reconstructions = bcm.generate(latents=latents, labels=labels)
        seconds = (time.perf_counter() - started) / len(images)
        nfe = bcm.bundle.schedule(name).nfe + 1
        error = mean_squared_error(images, reconstructions).mean()
        rows.append((f"{name}, then one-step", nfe, f"{seconds:.4f}", f"{error:.5f}"))
    seeds = np.arange(len(labels))
    save_npz(folder / "latents.npz", {"latents": latents, "labels": labels, "seeds": seeds})
    line = title([INVERSIONS[-1], "one-step"], nfe)
    _save_pairs(images[:20], reconstructions[:20], line, folder / "reconstructed.png")
    return rows


def _tasks(bcm: BCM, folder: Path) -> None:
    """Write ten test digits as inputs for other commands, and the results of three tasks."""
    from ..evaluation.degradations import jpeg
    from ..training.data import load_digits

    test = load_digits("test")
    assert test.labels is not None
    labels = np.arange(10)
    first_of_class = [int(np.flatnonzero(test.labels.numpy() == label)[0]) for label in labels]
    images = test.images.numpy()[first_of_class]
    damaged = jpeg(images, QUALITY)
    hole = np.zeros((8, 8), bool)
    hole[4:] = True
    small = images.reshape(10, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    for name, values in (("digits", images), ("damaged", damaged), ("small", small)):
        save_npz(folder / f"{name}.npz", {"images": values, "labels": labels})
    mask = np.where(hole, 1, -1)[None]
    for name, picture in (("three", images[3]), ("five", images[5]), ("hole", mask)):
        save_images(picture[None], folder / f"{name}.png")
    filled = bcm.inpaint(images, hole, labels=labels)
    with_hole = np.where(hole, np.float32(0), images)
    _save_pairs(with_hole, filled, "inpaint", folder / "filled.png")
    restored = bcm.restore(damaged, labels=labels)
    _save_pairs(damaged, restored, f"restore: JPEG of quality {QUALITY}", folder / "restored.png")
    next_images, next_labels = np.roll(images, -1, axis=0), np.roll(labels, -1)
    way = bcm.interpolate(images, next_images, labels=labels, labels_b=next_labels)
    save_animation(way.swapaxes(0, 1), folder / "way.gif")


def _save_pairs(before: np.ndarray, after: np.ndarray, line: str, file: Path) -> None:
    """Write inputs [N, C, H, W] above their outputs. line: the title."""
    save_images(after, file, grid=pairs_grid(before, after, [], line, columns=10))
