"""A data set in memory: images, their labels and the names of the classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ImageError, LabelError

LISTED = 20  # classes in a line; of more, the first ones and the last


@dataclass(frozen=True)
class Dataset:
    """images: float32 [N, C, S, S] in [-1, 1]; labels: int64 [N] in [0, num_classes), or None for data without classes.

    classes: the names of the classes, where the data has names. notes: what was converted, left out or assumed, in lines for people.
    """

    name: str
    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _, _, height, width = self.images.shape
        if height != width:
            raise ImageError(f"{self.name}: images of {width}×{height} pixels; the network takes square ones")
        if self.labels is None:
            return
        if self.labels.shape != (len(self.images),):
            raise LabelError(
                f"{self.name}: {len(self.images)} images need that many labels, not {' × '.join(map(str, self.labels.shape))}"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0:
            raise LabelError(f"{self.name}: labels count classes from 0; these go from {low} to {high}")
        if self.classes is not None and high >= len(self.classes):
            raise LabelError(
                f"{self.name}: labels go up to {high}, but {len(self.classes)} classes have names; they count from 0"
            )

    @property
    def num_classes(self) -> int | None:
        if self.labels is None:
            return None
        return int(self.labels.max()) + 1 if self.classes is None else len(self.classes)

    @property
    def digest(self) -> str:
        """sha256 of the images and labels: which data a model was trained on."""
        return digest([self.images] if self.labels is None else [self.images, self.labels])

    def __len__(self) -> int:
        return len(self.images)

    def noted(self, *notes: str) -> Dataset:
        """The same with these notes after its own."""
        return replace(self, notes=(*self.notes, *notes))

    def counts(self, num_classes: int | None = None) -> list[int]:
        """How many images each class has: of num_classes classes, by default of all that the data has."""
        return (
            []
            if self.labels is None
            else torch.bincount(self.labels, minlength=num_classes or self.num_classes or 0).tolist()
        )

    def summary(self, num_classes: int | None = None) -> list[str]:
        """The images and the classes, in lines for people: "classes: 0 cat (4), 1 dog (4), 2 fox (4)"."""
        _, channels, height, width = self.images.shape
        lines = [f"data: {len(self)} images of {channels}×{height}×{width} from {self.name}"]
        if self.labels is None:
            return [*lines, "classes: none, since the images have no labels"]
        words = [
            f"{_titled(label, self.classes)} ({count})"
            for label, count in enumerate(self.counts(num_classes))
        ]
        if len(words) > LISTED:
            words = [*words[: LISTED // 2], f"… {words[-1]}"]
        return [*lines, f"classes: {', '.join(words)}"]


def without_images(dataset: Dataset, num_classes: int | None) -> str:
    """The classes that have no image, for people: "1 dog, 4 owl"; "" if there are none."""
    empty = [
        _titled(label, dataset.classes)
        for label, count in enumerate(dataset.counts(num_classes))
        if not count
    ]
    more = f" and {len(empty) - LISTED} more" if len(empty) > LISTED else ""
    return ", ".join(empty[:LISTED]) + more


def digest(tensors: Iterable[Tensor]) -> str:
    """sha256 of the values, one tensor after the other."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(tensor.contiguous().numpy().data)
    return whole.hexdigest()


def _titled(label: int, classes: tuple[str, ...] | None) -> str:
    return f"{label} {classes[label]}" if classes and classes[label] != str(label) else str(label)
