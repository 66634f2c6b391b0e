"""bcm-edge demo: every task once, with the emoji model in this package, and pictures of the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from ..runtime.calls import NetworkCall, OnMove
from ..runtime.loading import load
from ..runtime.pictures.animation import save_animation
from ..runtime.pictures.grids import Grid
from ..runtime.pictures.writing import save_images
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, from_uint8, mean_squared_error
from ..runtime.schedule import SIGMA_DATA
from ..runtime.storage.arrays import read_arrays, save_npz
from ..runtime.storage.files import replacing
from ..runtime.storage.shipped import shipped_bundle, shipped_drawings
from ..runtime.tasks.constrained import LUMA
from .console import progress, result
from .options import force_option, json_option
from .paths import OutputPath
from .tables import table

GENERATIONS = ("one-step", "ancestral-2", "zigzag-3", "mixture-4")
INVERSIONS = ("invert-1", "invert-2")
SEEDS = 8  # generated images per style
NOISE = 0.3  # standard deviation of the noise that is removed
SHOWN = "noto"  # the style of the drawings that are edited

Task = Callable[[OnMove], np.ndarray]  # returns images; reports every network call


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
    """Run every task once with the emoji model: restyle, generate, invert, reconstruct, inpaint and so on.

    The folder gets pictures, a table, and drawings to try the other commands on: emoji.npz, star.png,
    halo.png, hole.png. The model was not trained on these drawings.
    """
    with replacing(output, force, marker="table.txt") as folder:
        folder.mkdir()
        with load(shipped_bundle("emoji"), value_range=SIGNED) as bcm:
            bcm.invert(bcm.generate(1, labels=0), labels=0)  # opens the sessions, which is not timed
            show = _Demo(bcm, _Drawings.read(bcm), folder)
            for step in (show.inputs, show.restyle, show.generate, show.invert, show.edit, show.interpolate):
                progress(f"demo: {step.__name__}")
                step()
        text = table(("what", "NFE", "seconds per image", "MSE to the drawing"), show.rows)
        (folder / "table.txt").write_text(text + "\n")
    files = [str(output / name) for name in (*show.files, "table.txt")]
    listing = "\n".join(f"  {path}" for path in files)
    values = {"output": str(output), "files": files, "rows": show.rows}
    result(as_json, values, f"{text}\n\nresults:\n{listing}")


@dataclass(frozen=True)
class _Drawings:
    """The drawings in the package: the same names in every style."""

    # style → float32 [N, 3, 32, 32] in [-1, 1]
    by_style: Mapping[str, np.ndarray]
    # [N]
    names: Sequence[str]

    @classmethod
    def read(cls, bcm: BCM) -> _Drawings:
        """Read the file in the package."""
        arrays = read_arrays(shipped_drawings(), "images")
        images, labels = from_uint8(arrays["images"]), arrays["labels"]
        by_style = {style: images[labels == number] for number, style in enumerate(bcm.classes or ())}
        return cls(by_style, arrays["names"][labels == 0].tolist())

    @property
    def shown(self) -> np.ndarray:
        """The drawings that are edited."""
        return self.by_style[SHOWN]

    def picture(self, name: str) -> np.ndarray:
        """Return one of the drawings that are edited, [1, 3, 32, 32]."""
        index = self.names.index(name)
        return self.shown[index : index + 1]


class _Demo:
    """The steps of the demo. Each writes files; most add rows to the table."""

    def __init__(self, bcm: BCM, drawings: _Drawings, folder: Path) -> None:
        """folder: where files are written."""
        self.rows: list[tuple[object, ...]] = []
        self.files: list[str] = []
        self._bcm, self._drawings, self._folder = bcm, drawings, folder

    def inputs(self) -> None:
        """Write drawings to try other commands on."""
        images = np.concatenate(list(self._drawings.by_style.values()))
        styles = np.repeat(list(self._drawings.by_style), len(self._drawings.names))
        save_npz(self._folder / "emoji.npz", {"images": images, "labels": styles})
        pictures = {"star": "star-struck", "halo": "smiling-face-with-halo"}
        for file, name in pictures.items():
            save_images(self._drawings.picture(name), self._folder / f"{file}.png", scale=1)
        mask = np.where(self._hole(), 1, -1)[None, None].astype(np.float32)
        save_images(mask, self._folder / "hole.png", scale=1)

    def restyle(self) -> None:
        """Redraw the drawings of one style in the others, above the real drawings in these styles."""
        bcm, images = self._bcm, self._drawings.shown
        rows = {f"{SHOWN}, drawing": images}
        for style, real in self._drawings.by_style.items():
            if style == SHOWN:
                continue

            def redraw(on_move: OnMove, style: str = style) -> np.ndarray:
                return bcm.restyle(images, labels=SHOWN, to=style, on_move=on_move)

            rows[f"restyled to {style}"] = self._timed(f"restyle {SHOWN} to {style}", redraw, real)
            rows[f"{style}, drawing"] = real
        self._picture("restyled.png", rows, self._drawings.names)

    def generate(self) -> None:
        """Generate images with more and more network calls, and the same noise in every style."""
        bcm, rows = self._bcm, {}
        for name in GENERATIONS:

            def generate(on_move: OnMove, name: str = name) -> np.ndarray:
                return bcm.generate(SEEDS, schedule=name, labels=SHOWN, on_move=on_move)

            rows[f"{SHOWN}, {name}"] = self._timed(f"generate {name}", generate)
        seeds, styles = [f"seed {seed}" for seed in range(SEEDS)], self._drawings.by_style
        self._picture("generated.png", rows, seeds)
        rows = {style: bcm.generate(SEEDS, schedule=GENERATIONS[-1], labels=style) for style in styles}
        self._picture("styles.png", rows, seeds)

    def invert(self) -> None:
        """Invert the drawings to noise, and generate them again from it."""
        bcm, images, again = self._bcm, self._drawings.shown, {}
        for name in INVERSIONS:

            def reconstruct(on_move: OnMove, name: str = name) -> np.ndarray:
                return bcm.reconstruct(images, inversion=name, labels=SHOWN, on_move=on_move)

            again[f"from {name}"] = self._timed(f"{name}, then one-step", reconstruct, images)
        latents = bcm.invert(images, inversion=INVERSIONS[-1], labels=SHOWN)
        save_npz(self._folder / "latents.npz", {"latents": latents, "labels": np.repeat(SHOWN, len(images))})
        rows = {"drawing": images, f"noise of {INVERSIONS[-1]}": SIGMA_DATA * latents, **again}
        self._picture("reconstructed.png", rows, self._drawings.names)

    def edit(self) -> None:
        """Fill in, enlarge, colour, restore and vary the drawings."""
        bcm, images, hole = self._bcm, self._drawings.shown, self._hole()
        with_hole = np.where(hole, np.float32(0), images)
        small = images.reshape(len(images), 3, 16, 2, 16, 2).mean(axis=(3, 5))
        grey = (LUMA * images).sum(axis=1, keepdims=True).astype(np.float32)
        noise = np.random.default_rng(0).standard_normal(images.shape, np.float32)
        noisy = np.clip(images + NOISE * noise, -1, 1)
        edits: dict[str, tuple[np.ndarray, Task]] = {
            "filled": (with_hole, lambda call: bcm.inpaint(images, hole, labels=SHOWN, on_move=call)),
            "enlarged": (
                small.repeat(2, axis=2).repeat(2, axis=3),
                lambda call: bcm.upscale(small, labels=SHOWN, on_move=call),
            ),
            "coloured": (
                np.repeat(grey, 3, axis=1),
                lambda call: bcm.colorize(grey, labels=SHOWN, on_move=call),
            ),
            "restored": (
                noisy,
                lambda call: bcm.restore(noisy, strength=NOISE, labels=SHOWN, on_move=call),
            ),
        }
        for name, (before, task) in edits.items():
            rows = {"before": before, name: self._timed(name, task, images), "drawing": images}
            self._picture(f"{name}.png", rows, self._drawings.names)
        star = self._drawings.picture("star-struck")
        near = bcm.variations(star, SEEDS, strength=0.3, labels=SHOWN)[0]
        self._picture("varied.png", {"drawing": star, "variations": near})

    def interpolate(self) -> None:
        """Write an animation from each drawing to the next."""
        images = self._drawings.shown
        way = self._bcm.interpolate(images, np.roll(images, -1, axis=0), labels=SHOWN)
        save_animation(way.swapaxes(0, 1), self._folder / "way.gif")
        self.files.append("way.gif")

    def _hole(self) -> np.ndarray:
        """Return the mask of the pixels to fill in: the lower half."""
        hole = np.zeros(self._bcm.sample_shape[1:], bool)
        hole[len(hole) // 2 :] = True
        return hole

    def _timed(self, title: str, task: Task, drawings: np.ndarray | None = None) -> np.ndarray:
        """Return the images of a task, and add a row to the table. drawings: what the images should be."""
        calls: list[NetworkCall] = []
        started = time.perf_counter()
        images = task(calls.append)
        seconds = (time.perf_counter() - started) / len(images)
        error = "" if drawings is None else f"{mean_squared_error(drawings, images).mean():.4f}"
        self.rows.append((title, len(calls), f"{seconds:.3f}", error))
        return images

    def _picture(self, file: str, rows: Mapping[str, np.ndarray], columns: Sequence[str] = ()) -> None:
        """Write a grid of named rows."""
        images = list(rows.values())
        grid = Grid(rows=images, row_labels=list(rows), column_labels=columns)
        save_images(images[0], self._folder / file, grid=grid)
        self.files.append(file)
