"""An opened model: a bundle, a backend that plays it, and the checks of arguments."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from ..errors import InputError, LabelError, ScheduleError
from .arguments import Labels, Seeds, check_integer, check_labels, check_seeds, length
from .backends.base import Backend, closed_error, on_device
from .batches import BATCH, Batch, play_in_parts
from .calls import AfterMove, Calls, OnMove
from .chain import Project
from .classes import NOTHING_TO_GUESS, asks_to_guess
from .pictures.inputs import Images, PillowImage, as_images
from .pictures.outputs import OutputType, check_output_type, save
from .pictures.reading import Paths, read_images
from .pixels import ValueRange, check_value_range
from .schedule import Schedule
from .storage.bundle import Bundle
from .tasks import classes as classification
from .wording import argument

Self = TypeVar("Self", bound="OpenedModel")


class OpenedModel:
    """The part of a model that all tasks share. `BCM` in pipeline.py adds the tasks."""

    def __init__(
        self, bundle: Bundle, backend: Backend, batch: int | None = None, value_range: ValueRange = None
    ) -> None:
        self.bundle = bundle
        self.value_range = check_value_range(value_range)
        self.backend = backend
        self.batch = batch or (backend.max_batch if on_device(backend) else BATCH)
        self._closed = False

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
        self._check_open()
        if isinstance(schedule, str):
            return self.bundle.schedule(schedule)
        if not isinstance(schedule, Schedule):
            kind = type(schedule).__name__
            raise ScheduleError(
                f"schedule must be a name, a text such as '80>2.4>0.002' or a Schedule, not {kind}"
            )
        return schedule

    def read_images(self, path: Paths) -> np.ndarray:
        """Return images of files in the size of the model: float32 [N, C, H, W] in [-1, 1].

        Args:
            path: A picture file, a folder of them, an npz or npy file, or a list of files and folders.

        Raises:
            ImageError: A file cannot be read, or an array has another size than the model.
        """
        self._check_open()
        return read_images(path, self.sample_shape, value_range=self.value_range)

    def save(
        self,
        images: Images | Sequence[Sequence[PillowImage]],
        path: str | os.PathLike[str],
        force: bool = False,
        scale: int | None = None,
    ) -> None:
        """Write images, in the form in which a method returned them, to a file or a folder.

        Args:
            images: Images of the model. Those of `interpolate` and `variations` become rows of a grid.
            path: Its name decides the format: .png and other picture files (a grid if there are several
                images), .npz (the array `images`, float32 in [-1, 1]), or a folder of PNG files.
            force: Replace an existing output.
            scale: How many times larger a picture file shows the images, from 1. By default, small images
                have at least 128 pixels. 1 gives their plain pixels, without gaps. A folder
                of files always has the plain pixels, and .npz the floats.

        Raises:
            InputError: `scale` is not an integer of at least 1.
            OutputError: The output exists already or cannot be written.
        """
        self._check_open()
        if scale is not None and check_integer(scale, "scale") < 1:
            raise InputError(f"scale must be at least 1, not {scale}")
        save(images, path, self.sample_shape, force, scale)

    def close(self) -> None:
        """Free the memory of the model. Later calls of its methods raise BackendError."""
        self._closed = True
        self.backend.close()

    def __enter__(self: Self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        model, backend = self.bundle.manifest.model, self.backend
        shape = "×".join(map(str, self.sample_shape))
        classes = "no classes" if self.num_classes is None else f"{self.num_classes} classes"
        place = "closed" if self._closed else backend.device
        return f"<BCM {model.name}: {shape}, {classes}, {backend.precision} on {backend.name} ({place})>"

    def __reduce__(self) -> NoReturn:
        """Refuse pickle and copy: an opened model is memory and threads of its process."""
        raise InputError(
            "an opened model cannot be copied, pickled or sent to another process; open the bundle in each "
            f"process with bcm_edge.load({str(self.bundle.source)!r})"
        )

    def _check_open(self) -> None:
        """Raise BackendError after `close`."""
        if self._closed:
            raise closed_error()

    def _check_call(self, output_type: OutputType = "float") -> None:
        """Raise an error if the model is closed, or cannot return images in this form."""
        self._check_open()
        check_output_type(output_type, self.sample_shape)

    def _images(
        self, images: Images, shape: tuple[int, int, int] | None = None, noun: str = "images"
    ) -> np.ndarray:
        """Return images in any form as float32 [N, *shape] in [-1, 1]. shape: by default the model's."""
        return as_images(images, shape or self.sample_shape, noun, self.value_range)

    def _labels(self, labels: Labels, n: int) -> np.ndarray | None:
        """Check labels, and return them as int64 [n]; None for a model without classes."""
        try:
            return check_labels(labels, n, self.num_classes, self.classes)
        except LabelError as error:
            if labels is not None:
                raise
            examples = argument(
                ", for example labels=3 or labels='all'; for input images also labels='guess'", ""
            )
            raise LabelError(f"{error}{examples}") from None

    def _count(self, seed: Seeds, labels: Labels) -> int:
        """Return the number of images that are generated for these seeds and labels."""
        return max(length(seed), length(labels, self.num_classes, self.classes))

    def _batch(self, n: int, seed: Seeds, labels: Labels) -> Batch:
        """Check seeds and labels of n samples."""
        return Batch(check_seeds(seed, n), self._labels(labels, n))

    def _image_batch(
        self,
        known: Sequence[np.ndarray],
        seed: Seeds,
        labels: Labels,
        calls: Calls,
        projection: Callable[..., Project] = classification.known_images,
    ) -> Batch:
        """Check seeds and labels of N images. With labels="guess" the model guesses the labels.

        known, projection: as for `_guess`.
        """
        n = len(known[0])
        if not asks_to_guess(labels):
            return self._batch(n, seed, labels)
        seeds = check_seeds(seed, n)
        return Batch(seeds, self._guess(known, seeds, calls, projection))

    def _guess_nfe(self, labels: Labels = "guess") -> int:
        """Return the number of network calls that guess the labels; 0 if they are not to be guessed."""
        if not asks_to_guess(labels):
            return 0
        if self.num_classes is None:
            raise LabelError(NOTHING_TO_GUESS)
        return classification.DRAWS * self.num_classes

    def _guess(
        self,
        known: Sequence[np.ndarray],
        seeds: Sequence[int],
        calls: Calls,
        projection: Callable[..., Project] = classification.known_images,
    ) -> np.ndarray:
        """Return the labels, int64 [N], under which the model denoises images best.

        known: the images [N, C, H, W], or what is known of N images.
        projection: returns the projection for rows of it.
        """

        def guess(part: Batch, *rows: np.ndarray, after_move: AfterMove | None) -> np.ndarray:
            num_classes = self.num_classes or 0
            return classification.guess_labels(self.backend, num_classes, part, projection(*rows), after_move)

        return self._play(guess, Batch(seeds), *known, calls=calls)

    def _calls(self, on_move: OnMove | None, *work: tuple[int, int]) -> Calls:
        """Return what reports the network calls of a method.

        work: pairs of a number of network calls and the number of images that they are made for.
        """
        return Calls(on_move, sum(nfe * -(-n // self.batch) for nfe, n in work))

    def _play(
        self,
        task: Callable[..., Any],
        batch: Batch,
        *arrays: np.ndarray | None,
        calls: Calls,
        axis: int = 0,
    ) -> np.ndarray:
        """Call task(part, *rows, after_move=…) for `batch` samples at a time (`play_in_parts`)."""
        ahead = on_device(self.backend) and not self.backend.draws
        return play_in_parts(task, self.batch, batch, *arrays, calls=calls, axis=axis, ahead=ahead)
