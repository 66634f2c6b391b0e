"""A data set in memory: images, their labels, and the names of the classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ImageError, LabelError

LISTED = 20  # classes in a line; if there are more, the first ones and the last one are shown


@dataclass(frozen=True)
class Dataset:
    """A data set: images with optional labels and class names.

    Raises ImageError for images that are not square, LabelError for labels that do not fit.
    """

    name: str
    # float32 [N, C, S, S] in [-1, 1].
    images: Tensor
    # int64 [N] in [0, num_classes), or None for data without classes.
    labels: Tensor | None
    # The names of the classes, or None if they have none.
    classes: tuple[str, ...] | None = None
    # What was converted, left out or assumed, as lines for people.
    notes: tuple[str, ...] = ()
    # What each image shows, or None. Images of one thing in several classes have the same name.
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _, _, height, width = self.images.shape
        if height != width:
            raise ImageError(
                f"{self.name}: images of {width}×{height} pixels; the network takes square images"
            )
        if self.labels is None:
            return
        if self.labels.shape != (len(self.images),):
            count = " × ".join(map(str, self.labels.shape))
            raise LabelError(
                f"{self.name}: {len(self.images)} images, but {count} labels; give one label per image"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0:
            raise LabelError(
                f"{self.name}: labels must be class numbers from 0; these go from {low} to {high}"
            )
        if self.classes is not None and high >= len(self.classes):
            raise LabelError(
                f"{self.name}: labels go up to {high}, but {len(self.classes)} classes have names; "
                "they count from 0"
            )

    @property
    def num_classes(self) -> int | None:
        """The number of classes, or None for data without classes."""
        if self.labels is None:
            return None
        return int(self.labels.max()) + 1 if self.classes is None else len(self.classes)

    @property
    def digest(self) -> str:
        """The sha256 of the images and labels. It identifies the data that a model was trained on."""
        return digest([self.images] if self.labels is None else [self.images, self.labels])

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def part(self, rows: Tensor) -> Dataset:
        """Return the images of these rows as a data set. rows: int64 [n]."""
        labels = None if self.labels is None else self.labels[rows]
        names = None if self.names is None else tuple(self.names[row] for row in rows.tolist())
        return replace(self, images=self.images[rows], labels=labels, names=names)

    def noted(self, *notes: str) -> Dataset:
        """Return the data set with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def counts(self, num_classes: int | None = None) -> list[int]:
        """Return the number of images of each class; an empty list for data without classes.

        num_classes: the number of classes to count, by default those of the data.
        """
        if self.labels is None:
            return []
        return torch.bincount(self.labels, minlength=num_classes or self.num_classes or 0).tolist()

    def summary(self, num_classes: int | None = None) -> list[str]:
        """Return lines for people about images and classes, such as "classes: 0 cat (4), 1 dog (4)".

        num_classes: the number of classes to show, by default those of the data.
        """
        _, channels, height, width = self.images.shape
        lines = [f"data: {len(self)} images of {channels}×{height}×{width} from {self.name}"]
        if self.labels is None:
            return [*lines, "classes: none, since the images have no labels"]
        texts = [
            f"{_titled(label, self.classes)} ({count})"
            for label, count in enumerate(self.counts(num_classes))
        ]
        if len(texts) > LISTED:
            texts = [*texts[: LISTED // 2], f"… {texts[-1]}"]
        return [*lines, f"classes: {', '.join(texts)}"]


def without_images(dataset: Dataset, num_classes: int | None) -> str:
    """Return the classes without images as text, such as "1 dog, 4 owl"; "" if there are none."""
    counts = dataset.counts(num_classes)
    empty = [_titled(label, dataset.classes) for label, count in enumerate(counts) if not count]
    more = f" and {len(empty) - LISTED} more" if len(empty) > LISTED else ""
    return ", ".join(empty[:LISTED]) + more


def digest(tensors: Iterable[Tensor]) -> str:
    """Return the sha256 of the values of tensors, in their order."""
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(tensor.contiguous().numpy().data)
    return hasher.hexdigest()


def _titled(label: int, classes: tuple[str, ...] | None) -> str:
    return f"{label} {classes[label]}" if classes and classes[label] != str(label) else str(label)
