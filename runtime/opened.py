"""An opened model: a bundle, a backend that plays it, and the checks of arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from ..errors import ScheduleError
from .arguments import Labels, Seeds, check_images, check_labels, check_seeds
from .backends.base import Backend, DeviceBackend
from .batches import BATCH, Batch, play_in_parts
from .pixels import ValueRange, check_value_range
from .schedule import Schedule
from .storage.bundle import Bundle

Self = TypeVar("Self", bound="OpenedModel")


class OpenedModel:
    """The part of a model that all tasks share. `BCM` in pipeline.py adds the tasks."""

    def __init__(
        self, bundle: Bundle, backend: Backend, batch: int | None = None, value_range: ValueRange = None
    ) -> None:
        self.bundle = bundle
        self.value_range = check_value_range(value_range)
        self.backend = backend
        self.batch = batch or (backend.max_batch if isinstance(backend, DeviceBackend) else BATCH)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        return self.bundle.manifest.model.sample_shape

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the model; None if it takes no labels."""
        return self.bundle.manifest.model.num_classes

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of their numbers; None if the model has no names."""
        return self.bundle.manifest.model.classes

    @property
    def schedules(self) -> dict[str, str]:
        """The named schedules of this model: name → text."""
        return dict(self.bundle.manifest.schedules)

    def schedule(self, schedule: str | Schedule) -> Schedule:
        """Return the schedule of a name or a text. Raises ScheduleError."""
        if isinstance(schedule, str):
            return self.bundle.schedule(schedule)
        if not isinstance(schedule, Schedule):
            kind = type(schedule).__name__
            raise ScheduleError(
                f"schedule must be a name, a text such as '80>2.4>0.002' or a Schedule, not {kind}"
            )
        return schedule

    def close(self) -> None:
        """Free the backend. Later calls raise BackendError."""
        self.backend.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _images(
        self, images: np.ndarray, shape: tuple[int, int, int] | None = None, noun: str = "images"
    ) -> np.ndarray:
        """Check images and return them as float32 [N, *shape] in [-1, 1]. shape: by default the model's."""
        return check_images(images, shape or self.sample_shape, noun, self.value_range)

    def _labels(self, labels: Labels, n: int) -> np.ndarray | None:
        """Check labels, and return them as int64 [n]; None for a model without classes."""
        return check_labels(labels, n, self.num_classes, self.classes)

    def _batch(self, n: int, seed: Seeds, labels: Labels) -> Batch:
        """Check seeds and labels of n samples."""
        return Batch(check_seeds(seed, n), self._labels(labels, n))

    def _play(
        self, task: Callable[..., np.ndarray], batch: Batch, *arrays: np.ndarray | None, axis: int = 0
    ) -> np.ndarray:
        """Call task(part, *rows of the arrays) for `batch` samples at a time (`play_in_parts`)."""
        return play_in_parts(task, self.batch, batch, *arrays, axis=axis)
