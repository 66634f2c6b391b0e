"""A loaded model, as users hold it: `bcm = bcm_edge.load(BUNDLE)`, then generate, invert, reconstruct."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import ImageError, InputError, LabelError
from . import tasks
from .backends import open_backend
from .backends.base import Backend, DeviceBackend
from .bundle import Bundle, open_bundle
from .chain import OnMove
from .images import from_uint8
from .schedule import Schedule

Seeds = int | Sequence[int] | np.ndarray
Labels = int | Sequence[int] | np.ndarray | None

BATCH = 16  # images per network call on a processor, unless `load` is told otherwise


def load(path: str | Path, backend: str = "auto", batch: int | None = None, precision: str | None = None) -> BCM:
    """Open a bundle and a backend for it.

    backend: "auto", "tensorrt", "onnxruntime", "openvino", "typed" or "null". batch: the most images one network call gets (None: 16, on
    an engine what that takes); larger requests are split, with the same result. precision: "fp32", "fp16", "bf16" or "int8"; None is that
    of an engine built for this GPU, else the most exact that the bundle holds. Raises BundleError if the bundle is damaged or lacks
    the precision, BackendError if the backend cannot run here.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch must be at least 1, not {batch}")
    bundle = open_bundle(path)
    return BCM(bundle, open_backend(backend, bundle, precision), batch)


class BCM:
    """A model that generates and inverts. Arrays in and out are float32 [N, C, H, W]; images lie in [-1, 1], or are uint8.

    Common arguments. seed: an integer s, meaning s, s+1, … for the images in order, or one integer per image; all noise of an
    image comes from its own seed. labels: an integer for all images or one per image, required exactly when the model has
    classes. schedule: a name from `schedules`, or a program such as "80>2.4>0.002". on_move(index, move, state): called after
    every network call.
    """

    def __init__(self, bundle: Bundle, backend: Backend, batch: int | None = None) -> None:
        self.bundle = bundle
        self.backend = backend
        self.batch = batch or (backend.max_batch if isinstance(backend, DeviceBackend) else BATCH)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.bundle.manifest.model.sample_shape

    @property
    def num_classes(self) -> int | None:
        """How many classes the model has; None if it takes no labels."""
        return self.bundle.manifest.model.num_classes

    @property
    def schedules(self) -> dict[str, str]:
        """Named schedules of this model: name → text."""
        return dict(self.bundle.manifest.schedules)

    def generate(
        self,
        n: int | None = None,
        *,
        schedule: str | Schedule = "one-step",
        seed: Seeds = 0,
        labels: Labels = None,
        latents: np.ndarray | None = None,
        on_move: OnMove | None = None,
        uint8: bool = False,
    ) -> np.ndarray:
        """n images (1 if nothing tells), or one per latent: float32 [n, C, H, W] in [-1, 1], or uint8 if asked for.

        latents: float32 [n, C, H, W] of unit variance, as `invert` returns them; without, they are drawn from the seeds.
        """
        if latents is not None:
            latents = self._checked(latents, "latents")
            n = len(latents)
        elif n is None:
            n = max(_length(seed), _length(labels))
        if n < 1:
            raise InputError(f"the number of images must be at least 1, not {n}")
        seeds, label_array, program = self._seeds(seed, n), self._labels(labels, n), self._schedule(schedule)
        return self._batched(
            n, lambda s: tasks.generate(self.backend, program, seeds[s], _part(label_array, s), _part(latents, s), on_move, uint8)
        )

    def invert(
        self,
        images: np.ndarray,
        *,
        schedule: str | Schedule = "invert-2",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """Latents of the images: float32 [N, C, H, W] near unit variance. `generate(latents=…)` brings the images back."""
        images = self._checked(images, "images")
        seeds, label_array, program = self._seeds(seed, len(images)), self._labels(labels, len(images)), self._schedule(schedule)
        return self._batched(
            len(images), lambda s: tasks.invert(self.backend, program, images[s], seeds[s], _part(label_array, s), on_move)
        )

    def reconstruct(
        self,
        images: np.ndarray,
        *,
        inversion: str | Schedule = "invert-2",
        schedule: str | Schedule = "one-step",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        uint8: bool = False,
    ) -> np.ndarray:
        """The images after inversion and generation: float32 [N, C, H, W] in [-1, 1], or uint8 if asked for."""
        images = self._checked(images, "images")
        seeds, label_array = self._seeds(seed, len(images)), self._labels(labels, len(images))
        up, down = self._schedule(inversion), self._schedule(schedule)
        return self._batched(
            len(images), lambda s: tasks.reconstruct(self.backend, up, down, images[s], seeds[s], _part(label_array, s), on_move, uint8)
        )

    def close(self) -> None:
        """Free the backend."""
        self.backend.close()

    def __enter__(self) -> BCM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batched(self, n: int, run: Callable[[slice], np.ndarray]) -> np.ndarray:
        return np.concatenate([run(part) for part in _slices(n, self.batch)])

    def _schedule(self, schedule: str | Schedule) -> Schedule:
        return self.bundle.schedule(schedule) if isinstance(schedule, str) else schedule

    def _seeds(self, seed: Seeds, n: int) -> list[int]:
        given = [seed + i for i in range(n)] if isinstance(seed, (int, np.integer)) else seed
        if not np.iterable(given) or not all(isinstance(s, (int, np.integer)) for s in given):
            raise InputError("seeds must be integers")
        seeds = [int(s) for s in given]
        if len(seeds) != n:
            raise InputError(f"{len(seeds)} seeds were given for {n} images")
        if not all(0 <= s < 2**64 for s in seeds):
            raise InputError("seeds must lie in [0, 2**64)")
        return seeds

    def _labels(self, labels: Labels, n: int) -> np.ndarray | None:
        classes = self.num_classes
        if classes is None:
            if labels is not None:
                raise LabelError("this model has no classes, so it takes no labels")
            return None
        if labels is None:
            raise LabelError(f"this model is class-conditional: give labels from 0 to {classes - 1} (--label on the command line)")
        array = np.asarray(labels)
        if array.dtype.kind not in "iu":
            raise LabelError(f"labels must be integers, not {array.dtype}")
        if array.ndim > 1 or (array.ndim == 1 and len(array) != n):
            raise LabelError(f"{array.size} labels were given for {n} images")
        if array.size and not (array.min() >= 0 and array.max() < classes):
            wrong = array.min() if array.min() < 0 else array.max()
            raise LabelError(f"label {wrong} is out of range; this model has classes 0 to {classes - 1}")
        return np.broadcast_to(array, n).astype(np.int64)

    def _checked(self, values: np.ndarray, what: str) -> np.ndarray:
        array = np.asarray(values)
        if what == "images" and array.dtype == np.uint8:
            array = from_uint8(array)
        if array.ndim != 4 or array.shape[1:] != self.sample_shape or not len(array):
            raise ImageError(f"{what} have shape {list(array.shape)}, the model takes [N, {', '.join(map(str, self.sample_shape))}]")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ImageError(f"{what} must be finite floats, not {array.dtype}{'' if array.dtype.kind != 'f' else ' with NaN or infinity'}")
        if what == "images" and np.abs(array).max() > 1.001:
            raise ImageError(f"images must lie in [-1, 1]; these reach {np.abs(array).max():.3g}")
        return array.astype(np.float32)


def _part(array: np.ndarray | None, part: slice) -> np.ndarray | None:
    return None if array is None else array[part]


def _length(values: Seeds | Labels) -> int:
    return len(values) if isinstance(values, (Sequence, np.ndarray)) and np.ndim(values) else 1


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
