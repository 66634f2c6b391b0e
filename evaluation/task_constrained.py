"""Measures of how well a model completes partly known images: inpainting, upscaling and colourisation.

The arguments are those of task_measures.py. Each task is compared with the loop of the consistency model at
as many network calls: with the levels of its paper, and with levels that were chosen by hand on the data on
which the default levels were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..runtime.pipeline import BCM
from ..runtime.pixels import mean_squared_error
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN, Schedule, parse_schedule
from ..runtime.tasks.constrained import COLOURING, LUMA, UPSCALING, inpainting
from ..runtime.tasks.size import relative_side
from .quality import Judge
from .task_measures import Report, frechet, model_labels, say

# Levels of the consistency model's loop: the best of about ten that were tried on the validation digits. For
# the default schedules, more were tried. The levels for holes grow with the side of the image, as those of
# the default schedule do; on MNIST both were best at about three times these.
TUNED_INPAINTING = (1.2, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2)
TUNED_UPSCALING = (0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
TUNED_COLOURING = (0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05)
# A pixel of an original counts as coloured if max - min of R, G, B, in [0, 1], is above this.
CHROMA = 0.2
HUE = 0.05  # the largest error of a hue that counts as right, in turns
COLOURLESS = 0.01  # a pixel whose max - min of R, G, B is not above this has no hue


def loop(levels: Sequence[float]) -> Schedule:
    """Return the editing loop of the consistency model (Song et al. 2023, arXiv 2303.01469, algorithm 4).

    It adds fresh noise at decreasing levels, and takes one step to the image from each.
    """
    rounds = [f"+{level:.4g} {level:.4g}>{SIGMA_MIN}" for level in levels]
    return parse_schedule(" ".join([f"{SIGMA_MAX:g}>{SIGMA_MIN}", *rounds]))


def inner_karras_levels(n: int, rho: float = 7.0) -> list[float]:
    """Return n decreasing levels between 80 and 0.002, without these two.

    They divide the grid of Karras et al. (arXiv 2206.00364), which is even in level^(1/rho), into n + 1
    parts.
    """
    high, low = SIGMA_MAX ** (1 / rho), SIGMA_MIN ** (1 / rho)
    return [float((high + i / (n + 1) * (low - high)) ** rho) for i in range(1, n + 1)]


def methods(ours: Schedule, tuned: Sequence[float]) -> dict[str, Schedule]:
    """Return a schedule that returns to the image several times, and loops with as many network calls."""
    rounds = ours.nfe - 1
    return {
        "ours": ours,
        "consistency loop, tuned levels": loop(tuned[:rounds]),
        "consistency loop, Karras levels": loop(inner_karras_levels(rounds)),
    }


def methods_note(schedules: Mapping[str, Schedule]) -> str:
    """Return sentences for a table that describe the methods."""
    listed = "; ".join(f"{name}: {schedule}" for name, schedule in schedules.items())
    return f"The consistency loop adds fresh noise and takes one step to the image, repeatedly. {listed}."


# ---- inpainting


@dataclass(frozen=True)
class Filling:
    """The figures of images with a hole that a method filled in."""

    hole: str
    method: str
    schedule: Schedule
    # inside the hole
    error: float
    frechet: float
    # whether each known pixel is equal to the original to the last bit
    exact: bool


def holes(height: int, width: int) -> dict[str, np.ndarray]:
    """Return masks by name, bool [H, W], True inside the hole."""
    rows, columns = np.indices((height, width))
    middle_rows = (rows >= height // 4) & (rows < height - height // 4)
    middle_columns = (columns >= width // 4) & (columns < width - width // 4)
    return {
        "bottom half": rows >= height // 2,
        "middle": middle_rows & middle_columns,
        "left half": columns < width // 2,
    }


def inpainting_methods(sample_shape: tuple[int, int, int]) -> dict[str, Schedule]:
    """Return `methods` for inpainting images [C, H, W]."""
    side = relative_side(sample_shape)
    return methods(inpainting(sample_shape), [min(side * level, SIGMA_MAX) for level in TUNED_INPAINTING])


def measure_inpainting(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    schedules: Mapping[str, Schedule] | None = None,
    report: Report | None = None,
) -> list[Filling]:
    """Measure each hole with each schedule, by default those of `inpainting_methods`."""
    labels = model_labels(bcm, labels)
    rows = []
    schedules = schedules or inpainting_methods(images.shape[1:])
    for hole, mask in holes(*images.shape[2:]).items():
        for method, schedule in schedules.items():
            say(report, f"inpainting: {hole}, {method}")
            filled = bcm.inpaint(images, mask, schedule=schedule, seed=seed, labels=labels)
            error = float(np.square((filled - images)[..., mask] / 2).mean())
            exact = np.array_equal(filled[..., ~mask], images[..., ~mask])
            rows.append(Filling(hole, method, schedule, error, frechet(judge, filled), exact))
    return rows


# ---- upscaling


@dataclass(frozen=True)
class Enlarged:
    """The figures of small images that a method enlarged."""

    method: str
    # None for an enlargement without the model
    schedule: Schedule | None
    error: float
    frechet: float
    # the largest difference between the means over squares and the small images, in units of [-1, 1]
    small_error: float


def shrink(images: np.ndarray, factor: int) -> np.ndarray:
    """Return the means over squares of factor × factor pixels, [N, C, H / factor, W / factor]."""
    n, c, h, w = images.shape
    return images.reshape(n, c, h // factor, factor, w // factor, factor).mean(axis=(3, 5))


def enlarge(small: np.ndarray, factor: int, resampling: Image.Resampling) -> np.ndarray:
    """Enlarge images with Pillow in float32, and clip them to [-1, 1]."""
    n, c, h, w = small.shape
    size = (w * factor, h * factor)
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, resampling)) for plane in small.reshape(n * c, h, w)
    ]
    return np.clip(np.stack(planes), -1, 1).reshape(n, c, h * factor, w * factor)


def measure_upscaling(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    factor: int = 2,
    schedules: Mapping[str, Schedule] | None = None,
) -> list[Enlarged]:
    """Measure nearest neighbours, bicubic enlargement, and each schedule, by default those of `methods`."""
    small = shrink(images, factor)
    results: list[tuple[str, Schedule | None, np.ndarray]] = [
        ("nearest neighbour", None, enlarge(small, factor, Image.Resampling.NEAREST)),
        ("bicubic", None, enlarge(small, factor, Image.Resampling.BICUBIC)),
    ]
    for name, schedule in (schedules or methods(UPSCALING, TUNED_UPSCALING)).items():
        large = bcm.upscale(small, schedule=schedule, seed=seed, labels=model_labels(bcm, labels))
        results.append((name, schedule, large))
    rows = []
    for name, schedule, large in results:
        error = float(mean_squared_error(large, images).mean())
        small_error = float(np.abs(shrink(large, factor) - small).max())
        rows.append(Enlarged(name, schedule, error, frechet(judge, large), small_error))
    return rows


# ---- colours


@dataclass(frozen=True)
class Coloured:
    """The figures of grey images that a method coloured."""

    method: str
    # None for the grey images themselves
    schedule: Schedule | None
    error: float
    frechet: float
    # the result of `right_hues`
    hues: float
    # the largest error of the brightness, in units of [-1, 1]
    grey_error: float


def to_grey(images: np.ndarray) -> np.ndarray:
    """Return the brightness (ITU-R BT.601) of [N, 3, H, W], [N, 1, H, W]."""
    return (LUMA * images).sum(axis=1, keepdims=True)


def measure_colouring(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    schedules: Mapping[str, Schedule] | None = None,
) -> list[Coloured]:
    """Measure the grey images themselves, and each schedule, by default those of `methods`.

    images: [N, 3, H, W].
    """
    grey = to_grey(images)
    results: list[tuple[str, Schedule | None, np.ndarray]] = [("left grey", None, np.repeat(grey, 3, axis=1))]
    for name, schedule in (schedules or methods(COLOURING, TUNED_COLOURING)).items():
        coloured = bcm.colorize(grey, schedule=schedule, seed=seed, labels=model_labels(bcm, labels))
        results.append((name, schedule, coloured))
    rows = []
    for name, schedule, coloured in results:
        error = float(mean_squared_error(coloured, images).mean())
        hues = right_hues(coloured, images)
        grey_error = float(np.abs(to_grey(coloured) - grey).max())
        rows.append(Coloured(name, schedule, error, frechet(judge, coloured), hues, grey_error))
    return rows


def right_hues(images: np.ndarray, originals: np.ndarray) -> float:
    """Return the share of the coloured pixels of the originals whose hue is right in the images.

    A pixel that is grey in the images is not right. NaN if the originals have no coloured pixel.
    """
    (hue, chroma), (true_hue, true_chroma) = _hues(images), _hues(originals)
    difference = np.abs(hue - true_hue)
    right = (np.minimum(difference, 1 - difference) <= HUE) & (chroma > COLOURLESS)
    coloured = true_chroma > CHROMA
    return float(right[coloured].mean()) if coloured.any() else float("nan")


def _hues(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hue in turns and the chroma (max - min of the channels, in [0, 1]), each [N, H, W]."""
    red, green, blue = np.moveaxis((images.astype(np.float64) + 1) / 2, 1, 0)
    turns = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi)
    return turns % 1, np.ptp(np.stack([red, green, blue]), axis=0)
