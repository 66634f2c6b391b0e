"""bcm-edge demo: everything once, on the model inside this package, with pictures to look at."""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from ..runtime.loading import load
from ..runtime.pictures.animation import save_animation
from ..runtime.pictures.writing import save_images
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, mean_squared_error
from ..runtime.storage.arrays import save_npz
from ..runtime.storage.files import replacing
from .console import force_option, json_option, progress, require_extra, result, table
from .paths import OutputPath
from .run import pairs

GENERATIONS = ("one-step", "ancestral-2", "zigzag-3", "mixture-4")
INVERSIONS = ("invert-1", "invert-2")
PER_CLASS = 8
RECONSTRUCTED = 60  # test digits
QUALITY = 10  # of the JPEG compression that is undone


@click.command(short_help="Everything once, with pictures.", epilog="Example:  bcm-edge demo -o demo")
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
    """Export the digits model, generate, invert, reconstruct, fill in, restore and interpolate; write pictures, the bundle and a table to a
    folder, and digits to try the other commands on: digits.npz, damaged.npz, small.npz, three.png, five.png, hole.png."""
    require_extra("export")
    require_extra("train")
    from ..export.exporter import ExportPlan, export
    from ..model.checkpoint import load_checkpoint, shipped_checkpoint
    from ..runtime.storage.hashes import sha256

    with replacing(output, force, marker="digits.bundle") as folder:
        folder.mkdir()
        checkpoint = shipped_checkpoint()
        plan = ExportPlan(load_checkpoint(checkpoint), folder / "digits.bundle")
        # the folder has its temporary name until it is whole; people are told the one it will have
        export(plan, sha256(checkpoint), lambda line: progress(line.replace(str(folder), str(output))))
        with load(folder / "digits.bundle", batch=PER_CLASS * 10, value_range=SIGNED) as bcm:
            rows = [*_generate(bcm, folder), *_invert(bcm, folder)]
            _tasks(bcm, folder)
        text = table(("what", "NFE", "seconds per image", "reconstruction MSE"), rows)
        (folder / "table.txt").write_text(text + "\n")
    files = {
        name: str(output / name)
        for name in ("digits.bundle", "generated.png", "reconstructed.png", "latents.npz", "table.txt")
    }
    pictures = [output / f"{name}.png" for name in (*GENERATIONS, "filled", "restored")] + [
        output / "way.gif"
    ]
    listing = "\n".join(f"  {path}" for path in [*files.values(), *pictures])
    result(as_json, {"output": str(output), **files, "rows": rows}, f"{text}\n\nlook at:\n{listing}")


def _generate(bcm: BCM, folder: Path) -> list[tuple[object, ...]]:
    """One picture per schedule, a row per class; `generated.png` shows the schedules side by side from the same seeds."""
    rows: list[tuple[object, ...]] = []
    compared = []
    labels = np.repeat(np.arange(10), PER_CLASS)
    bcm.generate(1, labels=0)  # opening the session is not part of the time per image
    for name in GENERATIONS:
        started = time.perf_counter()
        images = bcm.generate(len(labels), schedule=name, labels=labels)
        seconds = (time.perf_counter() - started) / len(labels)
        save_images(images, folder / f"{name}.png", columns=PER_CLASS)
        compared.append(images[::PER_CLASS])
        rows.append((f"generate {name}", bcm.bundle.schedule(name).nfe, f"{seconds:.4f}", ""))
    save_images(np.concatenate(compared), folder / "generated.png", columns=10)
    return rows


def _invert(bcm: BCM, folder: Path) -> list[tuple[object, ...]]:
    """Real digits that the model has not seen, to the noise and back."""
    from ..training.data import load_digits

    test = load_digits("test")
    assert test.labels is not None
    images, labels = test.images.numpy()[:RECONSTRUCTED], test.labels.numpy()[:RECONSTRUCTED]
    bcm.invert(images[:1], labels=labels[:1])
    rows: list[tuple[object, ...]] = []
    latents = back = images
    for name in INVERSIONS:
        started = time.perf_counter()
        latents = bcm.invert(images, schedule=name, labels=labels)
        back = bcm.generate(latents=latents, labels=labels)
        seconds = (time.perf_counter() - started) / len(images)
        rows.append(
            (
                f"{name}, then one-step",
                bcm.bundle.schedule(name).nfe + 1,
                f"{seconds:.4f}",
                f"{mean_squared_error(images, back).mean():.5f}",
            )
        )
    save_npz(folder / "latents.npz", {"latents": latents, "labels": labels, "seeds": np.arange(len(labels))})
    save_images(pairs(images[:20], back[:20], 10), folder / "reconstructed.png", columns=10)
    return rows


def _tasks(bcm: BCM, folder: Path) -> None:
    """Ten test digits, one per class: whole, damaged, shrunk, and what three tasks make of them."""
    from ..evaluation.degradations import jpeg
    from ..training.data import load_digits

    test = load_digits("test")
    assert test.labels is not None
    labels = np.arange(10)
    images = test.images.numpy()[[int(np.flatnonzero(test.labels.numpy() == k)[0]) for k in labels]]
    damaged = jpeg(images, QUALITY)
    hole = np.zeros((8, 8), bool)
    hole[4:] = True
    for name, values in (
        ("digits", images),
        ("damaged", damaged),
        ("small", images.reshape(10, 1, 4, 2, 4, 2).mean(axis=(3, 5))),
    ):
        save_npz(folder / f"{name}.npz", {"images": values, "labels": labels})
    for name, picture in (("three", images[3]), ("five", images[5]), ("hole", np.where(hole, 1, -1)[None])):
        save_images(picture[None], folder / f"{name}.png")
    filled = bcm.inpaint(images, hole, labels=labels)
    save_images(pairs(np.where(hole, np.float32(0), images), filled, 10), folder / "filled.png", columns=10)
    save_images(pairs(damaged, bcm.restore(damaged, labels=labels), 10), folder / "restored.png", columns=10)
    way = bcm.interpolate(images, np.roll(images, -1, axis=0), labels=labels, labels_b=np.roll(labels, -1))
    save_animation(way.swapaxes(0, 1), folder / "way.gif")
