"""Pictures of the tasks. The arguments are those of task_measures.py; galleries show the first few images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from ..runtime.classes import label_texts
from ..runtime.pipeline import BCM
from .attack import square_attack
from .classifier import Classifier
from .degradations import DEGRADATIONS
from .exhibits import Gallery
from .task_constrained import enlarge, holes, shrink, to_grey
from .task_measures import QUERIES, VARYING, Reconstruction, model_labels
from .task_restyling import Pairs, ways

PICTURES = 8  # per row
PAIRS = 3  # pairs of images to interpolate between
FRAMES = 9  # frames of an interpolation
FRAME_NAMES = ["first image", *(f"{frame}/{FRAMES - 1}" for frame in range(1, FRAMES - 1)), "second image"]
SHOWN_BUDGET, SHOWN_STRENGTH = 0.3, 0.3  # the attack's budget, the purification's strength


def inpainting(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> Gallery:
    """Return images with each hole, and with the hole filled in."""
    images, labels = _first(bcm, images, labels)
    rows = {"original": images}
    for name, mask in holes(*images.shape[2:]).items():
        rows[f"without the {name}"] = np.where(mask, 0, images)
        rows[f"{name} filled in"] = bcm.inpaint(images, mask, seed=seed, labels=labels)
    return _gallery("Inpainting", rows, headings=label_texts(labels, bcm.classes))


def restoration(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> Gallery:
    """Return images with each degradation, and restored."""
    images, labels = _first(bcm, images, labels)
    rows = {"original": images}
    for degradation in DEGRADATIONS:
        degraded = degradation.apply(images, range(seed, seed + len(images)))
        rows[degradation.name] = degraded
        rows[f"{degradation.name}, restored"] = bcm.restore(degraded, seed=seed, labels=labels)
    return _gallery("Restoration", rows, "All at the default strength.", label_texts(labels, bcm.classes))


def purification(
    bcm: BCM, classifier: Classifier, images: np.ndarray, labels: np.ndarray, seed: int
) -> Gallery:
    """Return images, attacked and purified, with the classifier's answers.

    Raises MissingExtraError without the adversarial-robustness-toolbox.
    """
    clean, labels = images[:PICTURES], labels[:PICTURES]
    attacked = square_attack(classifier, clean, labels, SHOWN_BUDGET, QUERIES, seed)
    guessed = None if bcm.num_classes is None else bcm.guess_labels(attacked, seed=seed)
    purified = bcm.restore(attacked, strength=SHOWN_STRENGTH, seed=seed, labels=guessed)
    rows = {}
    for name, shown in {"clean": clean, "attacked": attacked, "purified": purified}.items():
        answers = ", ".join(label_texts(classifier.predict(shown), bcm.classes))
        rows[f"{name}: classified as {answers}"] = shown
    note = f"L∞ budget {SHOWN_BUDGET:g}, strength {SHOWN_STRENGTH:g}."
    return _gallery("Purification", rows, note, label_texts(labels, bcm.classes))


def interpolation(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> list[Gallery]:
    """Return interpolations within a class and between two classes; without labels, between neighbours."""
    if labels is None:
        n = min(2 * PAIRS, len(images) // 2 * 2)
        pairs = {"Interpolation": (np.arange(0, n, 2), np.arange(1, n, 2))}
    else:
        pairs = _pairs(labels)
    galleries = []
    for title, (a, b) in pairs.items():
        if len(a) == 0:
            continue
        labels_a, labels_b = (
            None if labels is None else model_labels(bcm, labels[chosen]) for chosen in (a, b)
        )
        note = "The ends are the reconstructions of two images."
        if labels_a is not None and labels_b is not None and not np.array_equal(labels_a, labels_b):
            note += (
                " Frames of the first half are generated with the label of the first image, the others with"
                " the label of the second."
            )
        path = bcm.interpolate(
            images[a], images[b], frames=FRAMES, seed=seed, labels=labels_a, labels_b=labels_b
        )
        frames = path.reshape(-1, *images.shape[1:])
        galleries.append(Gallery(title, frames, FRAMES, note=note, headings=FRAME_NAMES))
    return galleries


def _pairs(labels: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return title → the indices of the first and of the second images, of up to PAIRS pairs."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    within = [(images[0], images[1]) for images in members if len(images) > 1][:PAIRS]
    between = [(images[0], others[0]) for images, others in pairwise(members)][:PAIRS]
    named = {"Interpolation within a class": within, "Interpolation between classes": between}
    return {
        title: (np.array([a for a, _ in pairs], int), np.array([b for _, b in pairs], int))
        for title, pairs in named.items()
    }


def variations(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> Gallery:
    """Return one variation of each image at each strength."""
    images, labels = _first(bcm, images, labels)
    rows = {"original": images}
    for strength in VARYING:
        varied = bcm.variations(images, 1, strength=strength, seed=seed, labels=labels)
        rows[f"strength {strength:g}"] = varied[:, 0]
    note = "One variation of each image. All strengths turn the latent towards the same noise."
    return _gallery("Variations", rows, note, label_texts(labels, bcm.classes))


def restyling(bcm: BCM, pairs: Pairs, seed: int) -> Gallery:
    """Return the first images of pairs, restyled to the class of the second, and the second."""
    shown = _of_different_names(pairs)
    rows = {"input": shown.inputs}
    for up, down in ways(bcm)[-2:]:
        rows[f"restyled, {(up + down).nfe} network calls"] = bcm.restyle(
            shown.inputs, labels=shown.labels, to=shown.targets, inversion=up, schedule=down, seed=seed
        )
    rows["true image"] = shown.truths
    classes = (label_texts(labels, bcm.classes) for labels in (shown.labels, shown.targets))
    return _gallery("Restyling", rows, headings=[f"{a} → {b}" for a, b in zip(*classes, strict=True)])


def _of_different_names(pairs: Pairs) -> Pairs:
    """Return pairs of different things, and of as many pairs of classes as possible."""
    classes = sorted(set(zip(pairs.labels.tolist(), pairs.targets.tolist(), strict=True)))
    rows = []
    for number, name in enumerate(dict.fromkeys(pairs.names)):
        own = [row for row, other in enumerate(pairs.names) if other == name]
        wanted = classes[number % len(classes)]
        rows.append(next((r for r in own if (pairs.labels[r], pairs.targets[r]) == wanted), own[0]))
    return pairs.part(np.array(rows[:PICTURES]))


def upscaling(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int, factor: int) -> Gallery:
    """Return images in low resolution, and enlarged with and without the model."""
    images, labels = _first(bcm, images, labels)
    small = shrink(images, factor)
    rows = {
        "original": images,
        "low resolution": enlarge(small, factor, Image.Resampling.NEAREST),
        "bicubic": enlarge(small, factor, Image.Resampling.BICUBIC),
        "upscaled": bcm.upscale(small, seed=seed, labels=labels),
    }
    return _gallery(f"Upscaling by {factor}", rows, headings=label_texts(labels, bcm.classes))


def colouring(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> Gallery:
    """Return images in grey, and coloured by the model."""
    images, labels = _first(bcm, images, labels)
    grey = to_grey(images)
    rows = {
        "original": images,
        "grey": np.repeat(grey, 3, axis=1),
        "coloured": bcm.colorize(grey, seed=seed, labels=labels),
    }
    return _gallery("Colourisation", rows, headings=label_texts(labels, bcm.classes))


def errors(reconstructions: Sequence[Reconstruction]) -> list[Gallery]:
    """Return one error map per inversion, all on one scale; nothing if there are no inversions."""
    if not reconstructions:
        return []
    worst = max(float(each.by_pixel.max()) for each in reconstructions) or 1.0
    maps = np.stack([2 * each.by_pixel / worst - 1 for each in reconstructions])[:, None].astype(np.float32)
    note = f"Mean squared error per pixel of each schedule. Black: 0; white: {worst:.2g}."
    names = [each.name for each in reconstructions]
    return [Gallery("Reconstruction error per pixel", maps, len(names), note=note, headings=names)]


def _first(bcm: BCM, images: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the first images, and their labels for the model."""
    labels = model_labels(bcm, labels)
    return images[:PICTURES], None if labels is None else labels[:PICTURES]


def _gallery(
    title: str, rows: dict[str, np.ndarray], note: str = "", headings: Sequence[str] = ()
) -> Gallery:
    """A gallery of named rows with equally many images each."""
    images = np.concatenate(list(rows.values())).astype(np.float32)
    columns = len(next(iter(rows.values())))
    return Gallery(title, images, columns, list(rows), note, headings)
