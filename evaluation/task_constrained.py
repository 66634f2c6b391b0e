"""How well a model fills in what is not known, in numbers: inpainting, enlarging, colouring. Arguments as in task_measures.py.

Every task is also done by the consistency model's loop at as many network calls: with the levels of its paper, and with levels that were
chosen by hand on the data ours were chosen on.
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
from .task_measures import Report, asked, frechet, say

# Levels of the consistency model's loop: the best of about ten that were tried on the validation digits. More were tried for ours. Those
# for holes grow with the side as ours do: on MNIST both were best at about three times these.
TUNED_INPAINTING = (1.2, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2)
TUNED_UPSCALING = (0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
TUNED_COLOURING = (0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05)
CHROMA, HUE = (
    0.2,
    0.05,
)  # where an original counts as coloured (max - min of R, G, B in [0, 1]); how far a hue may be off, in turns


def loop(levels: Sequence[float]) -> Schedule:
    """The consistency model's way to edit (Song et al. 2023, arXiv 2303.01469, algorithm 4): fresh noise of falling levels, and one step
    to the image from each."""
    return parse_schedule(" ".join([f"80>{SIGMA_MIN}", *(f"+{t:.4g} {t:.4g}>{SIGMA_MIN}" for t in levels)]))


def inner_karras_levels(n: int, rho: float = 7.0) -> list[float]:
    """The n levels between 80 and 0.002 that divide the grid of Karras et al. (arXiv 2206.00364) evenly, falling."""
    high, low = SIGMA_MAX ** (1 / rho), SIGMA_MIN ** (1 / rho)
    return [float((high + i / (n + 1) * (low - high)) ** rho) for i in range(1, n + 1)]


def methods(ours: Schedule, tuned: Sequence[float]) -> dict[str, Schedule]:
    """A schedule that returns to the image several times, and what it is held against at as many network calls."""
    n = ours.nfe - 1
    return {
        "ours": ours,
        "consistency loop, tuned levels": loop(tuned[:n]),
        "consistency loop, Karras levels": loop(inner_karras_levels(n)),
    }


def methods_note(schedules: Mapping[str, Schedule]) -> str:
    """What the methods are, for tables."""
    spelt = "; ".join(f"{name}: {schedule}" for name, schedule in schedules.items())
    return f"The consistency loop adds fresh noise and takes one step to the image, again and again. {spelt}."


# ---- inpainting


@dataclass(frozen=True)
class Filling:
    """error: within the holes; exact: whether every known pixel is the original to the last bit."""

    hole: str
    method: str
    schedule: Schedule
    error: float
    frechet: float
    exact: bool


def holes(height: int, width: int) -> dict[str, np.ndarray]:
    """bool [H, W] by name, True where unknown."""
    rows, columns = np.indices((height, width))
    inner = (
        (rows >= height // 4)
        & (rows < height - height // 4)
        & (columns >= width // 4)
        & (columns < width - width // 4)
    )
    return {"bottom half": rows >= height // 2, "middle": inner, "left half": columns < width // 2}


def inpainting_methods(sample_shape: tuple[int, int, int]) -> dict[str, Schedule]:
    """`methods` for images [C, H, W]."""
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
    """Every hole of `holes` with every schedule, by default those of `inpainting_methods`."""
    found = []
    schedules = schedules or inpainting_methods(images.shape[1:])
    for hole, mask in holes(*images.shape[2:]).items():
        for method, schedule in schedules.items():
            say(report, f"inpainting: {hole}, {method}")
            filled = bcm.inpaint(images, mask, schedule=schedule, seed=seed, labels=asked(bcm, labels))
            error = float(np.square((filled - images)[..., mask] / 2).mean())
            exact = np.array_equal(filled[..., ~mask], images[..., ~mask])
            found.append(Filling(hole, method, schedule, error, frechet(judge, filled), exact))
    return found


# ---- enlarging


@dataclass(frozen=True)
class Enlarged:
    """small_error: the largest difference between the means over squares and the pixels that were given, in units of [-1, 1]."""

    method: str
    schedule: Schedule | None
    error: float
    frechet: float
    small_error: float


def shrink(images: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares: [N, C, H / factor, W / factor]."""
    n, c, h, w = images.shape
    return images.reshape(n, c, h // factor, factor, w // factor, factor).mean(axis=(3, 5))


def enlarge(small: np.ndarray, factor: int, resampling: Image.Resampling) -> np.ndarray:
    """Pillow's resizing in float32, clipped to [-1, 1]."""
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
    """Nearest neighbours, bicubic enlargement, and every schedule, by default those of `methods`."""
    small = shrink(images, factor)
    kinds = {"nearest neighbour": Image.Resampling.NEAREST, "bicubic": Image.Resampling.BICUBIC}
    results: list[tuple[str, Schedule | None, np.ndarray]] = [
        (name, None, enlarge(small, factor, kind)) for name, kind in kinds.items()
    ]
    for name, schedule in (schedules or methods(UPSCALING, TUNED_UPSCALING)).items():
        results.append(
            (name, schedule, bcm.upscale(small, schedule=schedule, seed=seed, labels=asked(bcm, labels)))
        )
    return [
        Enlarged(
            name,
            schedule,
            float(mean_squared_error(large, images).mean()),
            frechet(judge, large),
            float(np.abs(shrink(large, factor) - small).max()),
        )
        for name, schedule, large in results
    ]


# ---- colours


@dataclass(frozen=True)
class Coloured:
    """hues: share of coloured pixels (CHROMA) that have their hue (HUE); grey_error: the largest error of the brightness, in [-1, 1]."""

    method: str
    schedule: Schedule | None
    error: float
    frechet: float
    hues: float
    grey_error: float


def to_grey(images: np.ndarray) -> np.ndarray:
    """Brightness (ITU-R BT.601): [N, 3, H, W] → [N, 1, H, W]."""
    return (LUMA * images).sum(axis=1, keepdims=True)


def measure_colouring(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    schedules: Mapping[str, Schedule] | None = None,
) -> list[Coloured]:
    """The grey images themselves, and every schedule, by default those of `methods`. Images of 3 channels."""
    grey = to_grey(images)
    results: list[tuple[str, Schedule | None, np.ndarray]] = [("left grey", None, np.repeat(grey, 3, axis=1))]
    for name, schedule in (schedules or methods(COLOURING, TUNED_COLOURING)).items():
        results.append(
            (name, schedule, bcm.colorize(grey, schedule=schedule, seed=seed, labels=asked(bcm, labels)))
        )
    return [
        Coloured(
            name,
            schedule,
            float(mean_squared_error(coloured, images).mean()),
            frechet(judge, coloured),
            right_hues(coloured, images),
            float(np.abs(to_grey(coloured) - grey).max()),
        )
        for name, schedule, coloured in results
    ]


def right_hues(images: np.ndarray, originals: np.ndarray) -> float:
    """Share of the originals' coloured pixels whose hue the images have; one left grey has none. NaN if the originals have no colour."""
    (hue, chroma), (true, wanted) = _hues(images), _hues(originals)
    off = np.abs(hue - true)
    right = (np.minimum(off, 1 - off) <= HUE) & (chroma > 0.01)
    coloured = wanted > CHROMA
    return float(right[coloured].mean()) if coloured.any() else float("nan")


def _hues(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hue in turns, max - min of the channels in [0, 1]): each [N, H, W]."""
    red, green, blue = np.moveaxis((images.astype(np.float64) + 1) / 2, 1, 0)
    turns = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi)
    return turns % 1, np.ptp(np.stack([red, green, blue]), axis=0)
