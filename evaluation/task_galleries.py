"""Pictures of what inversion opens. Arguments as in task_measures.py; every gallery takes the first few images it is given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from ..runtime.pipeline import BCM
from .attack import square_attack
from .classifier import Classifier
from .degradations import DEGRADATIONS
from .exhibits import Gallery
from .task_constrained import enlarge, holes, shrink, to_grey
from .task_measures import QUERIES, VARYING, Reconstruction, asked

PICTURES = 8  # per row
PAIRS = 3  # of images to interpolate between
FRAMES = 9
SHOWN_BUDGET, SHOWN_STRENGTH = 0.3, 0.3  # of the attack and the purification


def inpainting(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> Gallery:
    few, of = _few(bcm, images, labels)
    rows = {"original": few}
    for name, mask in holes(*few.shape[2:]).items():
        rows[f"without the {name}"] = np.where(mask, 0, few)
        rows[f"{name} filled in"] = bcm.inpaint(few, mask, seed=seed, labels=of)
    return _gallery("Inpainting", rows)


def restoration(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> Gallery:
    few, of = _few(bcm, images, labels)
    rows = {"original": few}
    for degradation in DEGRADATIONS:
        rows[degradation.name] = degradation.apply(few, range(seed, seed + len(few)))
        rows[f"{degradation.name}, restored"] = bcm.restore(rows[degradation.name], seed=seed, labels=of)
    return _gallery("Restoration", rows, "At the default strength, whatever the damage.")


def purification(
    bcm: BCM, classifier: Classifier, images: np.ndarray, labels: np.ndarray, seed: int
) -> Gallery:
    """Raises MissingExtraError without the toolbox that attacks."""
    few, of = images[:PICTURES], labels[:PICTURES]
    attacked = square_attack(classifier, few, of, SHOWN_BUDGET, QUERIES, seed)
    guessed = None if bcm.num_classes is None else bcm.guess_labels(attacked, seed=seed)
    purified = bcm.restore(attacked, strength=SHOWN_STRENGTH, seed=seed, labels=guessed)
    rows = {
        f"{name}: seen as {' '.join(map(str, classifier.predict(x)))}": x
        for name, x in {"clean": few, "attacked": attacked, "purified": purified}.items()
    }
    return _gallery("Purification", rows, f"L∞ budget {SHOWN_BUDGET:g}, strength {SHOWN_STRENGTH:g}.")


def interpolation(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> list[Gallery]:
    """Between images of one class, and of two; without labels, between neighbours."""
    n = min(2 * PAIRS, len(images) // 2 * 2)
    pairs = {"Interpolation": (np.arange(0, n, 2), np.arange(1, n, 2))} if labels is None else _pairs(labels)
    shown = []
    for title, (a, b) in pairs.items():
        if len(a):
            of_a, of_b = (None if labels is None else asked(bcm, labels[of]) for of in (a, b))
            note = "Ends: the reconstructions of two images."
            if of_a is not None and of_b is not None and not np.array_equal(of_a, of_b):
                note += " Frames of the first half are generated under the first image's label, the others under the second's."
            path = bcm.interpolate(images[a], images[b], frames=FRAMES, seed=seed, labels=of_a, labels_b=of_b)
            shown.append(Gallery(title, path.reshape(-1, *images.shape[1:]), FRAMES, note=note))
    return shown


def _pairs(labels: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Indices of the first and the second images of up to PAIRS pairs, within classes and between a class and the next."""
    members = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    same = [(m[0], m[1]) for m in members if len(m) > 1][:PAIRS]
    other = [(m[0], n[0]) for m, n in pairwise(members)][:PAIRS]
    named = {"Interpolation within a class": same, "Interpolation between classes": other}
    return {
        title: (np.array([a for a, _ in pairs], int), np.array([b for _, b in pairs], int))
        for title, pairs in named.items()
    }


def variations(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> Gallery:
    few, of = _few(bcm, images, labels)
    rows = {"original": few}
    rows |= {
        f"strength {s:g}": bcm.variations(few, 1, strength=s, seed=seed, labels=of)[:, 0] for s in VARYING
    }
    return _gallery(
        "Variations", rows, "One variation of each image, turned towards the same noise at every strength."
    )


def upscaling(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int, factor: int) -> Gallery:
    few, of = _few(bcm, images, labels)
    small = shrink(few, factor)
    rows = {
        "original": few,
        "low resolution": enlarge(small, factor, Image.Resampling.NEAREST),
        "bicubic": enlarge(small, factor, Image.Resampling.BICUBIC),
        "upscaled": bcm.upscale(small, seed=seed, labels=of),
    }
    return _gallery(f"Upscaling by {factor}", rows)


def colouring(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> Gallery:
    few, of = _few(bcm, images, labels)
    grey = to_grey(few)
    rows = {
        "original": few,
        "grey": np.repeat(grey, 3, axis=1),
        "coloured": bcm.colorize(grey, seed=seed, labels=of),
    }
    return _gallery("Colourisation", rows)


def errors(found: Sequence[Reconstruction]) -> list[Gallery]:
    """One map per inversion, all on one scale. Nothing where there are none."""
    if not found:
        return []
    worst = max(float(f.by_pixel.max()) for f in found) or 1.0
    maps = np.stack([2 * f.by_pixel / worst - 1 for f in found])[:, None].astype(np.float32)
    note = f"Mean squared error per pixel, left to right: {', '.join(f.name for f in found)}. Black: 0; white: {worst:.2g}."
    return [Gallery("Where reconstruction errs", maps, len(found), note=note)]


def _few(bcm: BCM, images: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The first images, and the labels that the model is to be given for them."""
    of = asked(bcm, labels)
    return images[:PICTURES], None if of is None else of[:PICTURES]


def _gallery(title: str, rows: dict[str, np.ndarray], note: str = "") -> Gallery:
    """Rows of equally many images, each with its name."""
    return Gallery(
        title,
        np.concatenate(list(rows.values())).astype(np.float32),
        len(next(iter(rows.values()))),
        list(rows),
        note,
    )
