"""A loaded model, as users hold it: `bcm = bcm_edge.load(BUNDLE)`, then generate, invert, reconstruct, and what these open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import ImageError, InputError, LabelError
from .arguments import (
    Labels,
    Seeds,
    check_holes,
    check_images,
    check_labels,
    check_latents,
    check_number,
    check_seeds,
    length,
)
from .backends import open_backend
from .backends.base import Backend, DeviceBackend
from .batches import Batch, batches
from .chain import OnMove, Project
from .classes import NOTHING_TO_GUESS
from .pixels import ValueRange, check_value_range
from .schedule import Schedule
from .storage.bundle import Bundle, open_bundle
from .tasks import basic, constrained, latents, restoration
from .tasks import trace as tracing
from .tasks.classes import guess_labels

BATCH = 16  # images per network call on a processor, unless `load` is told otherwise


def load(
    path: str | Path,
    backend: str = "auto",
    batch: int | None = None,
    precision: str | None = None,
    value_range: ValueRange = None,
) -> BCM:
    """Open a bundle and a backend for it.

    backend: "auto", "tensorrt", "onnxruntime", "openvino", "typed" or "null". batch: the most images one network call gets (None: 16, on
    an engine what that takes); larger requests are split, with the same result. precision: "fp32", "fp16", "bf16" or "int8"; None is that
    of an engine built for this GPU, else the most exact that the bundle holds. value_range: of the float images that are given to the
    model: (-1, 1); (0, 1), which is converted; None takes [-1, 1] and refuses arrays without a value below 0, which most likely lie in
    [0, 1]. Raises BundleError if the bundle is damaged or lacks
    the precision, BackendError if the backend cannot run here.

    Threads may share the model: every method can be called from several threads at the same time, on every backend, and gives each what
    it gives alone. On a GPU they take turns. After `close`, calls raise BackendError; those under way are finished first or refused.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch must be at least 1, not {batch}")
    bundle = open_bundle(path)
    return BCM(bundle, open_backend(backend, bundle, precision), batch, value_range)


class BCM:
    """A model that generates and inverts. Arrays in and out are float32 [N, C, H, W]; images lie in [-1, 1], or are uint8.

    Common arguments. seed: an integer s, meaning s, s+1, … for the images in order, or one integer per image; all noise of an
    image comes from its own seed. labels: a class for all images or one per image, by number or by a name of `classes`;
    required exactly when the model has classes. schedule: a name from `schedules`, or a program such as "80>2.4>0.002".
    on_move(index, move, state): called after every network call. docs/tasks.md says what the tasks beyond generate, invert and
    reconstruct do, and how well.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, batch: int | None = None, value_range: ValueRange = None
    ) -> None:
        self.bundle = bundle
        self.value_range = check_value_range(value_range)
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
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of their numbers; None where the model has no names."""
        return self.bundle.manifest.model.classes

    @property
    def schedules(self) -> dict[str, str]:
        """Named schedules of this model: name → text."""
        return dict(self.bundle.manifest.schedules)

    def schedule(self, schedule: str | Schedule) -> Schedule:
        """The program that a name or a text means. Raises ScheduleError."""
        return self.bundle.schedule(schedule) if isinstance(schedule, str) else schedule

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
            latents = check_latents(latents, self.sample_shape)
            if n not in (None, len(latents)):
                raise InputError(
                    f"n is {n}, but there are {len(latents)} latents, each of which gives an image"
                )
            n = len(latents)
        elif n is None:
            n = max(length(seed), length(labels))
        check_number(n, self.sample_shape)
        rows, program = self._rows(n, seed, labels), self.schedule(schedule)
        return np.concatenate(
            [
                basic.generate(
                    self.backend,
                    program,
                    r.seeds,
                    r.labels,
                    None if latents is None else r.of(latents),
                    on_move,
                    uint8,
                )
                for r in rows
            ]
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
        return self._invert(self._images(images), schedule, seed, labels, on_move)

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
        images, up, down = self._images(images), self.schedule(inversion), self.schedule(schedule)
        rows = self._rows(len(images), seed, labels)
        return np.concatenate(
            [
                basic.reconstruct(self.backend, up, down, r.of(images), r.seeds, r.labels, on_move, uint8)
                for r in rows
            ]
        )

    def interpolate(
        self,
        a: np.ndarray,
        b: np.ndarray,
        *,
        frames: int = 9,
        inversion: str | Schedule = "invert-2",
        schedule: str | Schedule = "one-step",
        seed: Seeds = 0,
        labels: Labels = None,
        labels_b: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """float32 [N, frames, C, H, W]: from the reconstructions of a [N, C, H, W] to those of b, through the latents between.

        labels: of a, and of b unless labels_b says otherwise; frames of the first half are generated under a's, the others under b's.
        """
        if frames < 2:
            raise InputError(f"frames must be at least 2, not {frames}")
        a, b = self._images(a), self._images(b)
        if len(a) != len(b):
            raise ImageError(f"{len(a)} images cannot be paired with {len(b)}")
        check_number(frames * len(a), self.sample_shape, "frames")
        labels_b = labels if labels_b is None else labels_b
        seeds, of_a, of_b = (
            check_seeds(seed, len(a)),
            *(self._labels(of, len(a)) for of in (labels, labels_b)),
        )
        start, end = (self._invert(x, inversion, seeds, of, on_move) for x, of in ((a, of_a), (b, of_b)))
        fractions = np.linspace(0, 1, frames)
        path = latents.slerp(start, end, fractions)
        between = (
            None if of_a is None or of_b is None else np.where(fractions < 0.5, of_a[:, None], of_b[:, None])
        )
        return self._each(path, schedule, seeds, between, on_move)

    def variations(
        self,
        images: np.ndarray,
        n: int = 4,
        *,
        strength: float = 0.3,
        inversion: str | Schedule = "invert-2",
        schedule: str | Schedule = "one-step",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """float32 [N, n, C, H, W]: n images near each of the given ones.

        strength: how far latents are turned to fresh noise, as a share of 90°; 0 gives the reconstruction, 1 an unrelated image.
        """
        images = self._images(images)
        check_number(n * len(images), self.sample_shape, "variations")
        seeds, of = check_seeds(seed, len(images)), self._labels(labels, len(images))
        found = self._invert(images, inversion, seeds, of, on_move)
        around = latents.nearby(found, strength, seeds, n)
        return self._each(
            around, schedule, seeds, None if of is None else np.repeat(of[:, None], n, axis=1), on_move
        )

    def inpaint(
        self,
        images: np.ndarray,
        holes: np.ndarray,
        *,
        schedule: str | Schedule | None = None,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """The images with their holes filled in, and every other pixel as it was: float32 [N, C, H, W] in [-1, 1].

        holes: True, or a number other than 0, where a pixel is unknown: [H, W] for all images, [N, H, W], or [N, 1 or C, H, W].
        schedule: from noise to images, by default eight network calls whose levels follow the size of the images.
        """
        images = self._images(images)
        holes = check_holes(holes, images)
        program = constrained.inpainting(self.sample_shape) if schedule is None else self.schedule(schedule)
        rows = self._rows(len(images), seed, labels)
        return self._constrained(
            program, rows, [constrained.known_pixels(r.of(images), r.of(holes)) for r in rows], on_move
        )

    def colorize(
        self,
        grey: np.ndarray,
        *,
        schedule: str | Schedule = constrained.COLOURING,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """Colour images float32 [N, 3, H, W] whose brightness (ITU-R BT.601) is that of grey [N, 1, H, W]."""
        channels, height, width = self.sample_shape
        if channels != 3:
            raise ImageError(
                f"colours take a model of 3 channels; this one has {channels}, so it knows no colours"
            )
        grey, program = self._images(grey, (1, height, width), "grey images"), self.schedule(schedule)
        rows = self._rows(len(grey), seed, labels)
        return self._constrained(
            program, rows, [constrained.known_brightness(r.of(grey)) for r in rows], on_move
        )

    def upscale(
        self,
        small: np.ndarray,
        *,
        schedule: str | Schedule = constrained.UPSCALING,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """Images float32 [N, C, H, W] whose means over squares are the pixels of small [N, C, H / k, W / k], k a whole number."""
        channels, height, width = self.sample_shape
        if np.ndim(small) != 4:
            raise ImageError(
                f"small images have shape {list(np.shape(small))}, expected [N, {channels}, H / k, W / k]"
            )
        size = np.shape(small)[2:]
        factor = height // size[0] if size[0] else 0
        if factor < 2 or (size[0] * factor, size[1] * factor) != (height, width):
            fits = ", ".join(
                f"{height // k}×{width // k}"
                for k in range(2, min(height, width) + 1)
                if height % k == width % k == 0
            )
            raise ImageError(
                f"images of {'×'.join(map(str, size))} pixels cannot be enlarged to {height}×{width}; sizes that can: {fits}"
            )
        small, program = self._images(small, (channels, *size), "small images"), self.schedule(schedule)
        rows = self._rows(len(small), seed, labels)
        return self._constrained(
            program, rows, [constrained.known_means(r.of(small), factor) for r in rows], on_move
        )

    def restore(
        self,
        images: np.ndarray,
        *,
        strength: float = 0.2,
        schedule: str | Schedule | None = None,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """The images without what compression, blur, noise or an attack did to them: float32 [N, C, H, W] in [-1, 1].

        strength: the noise level below which everything is taken for damage; schedule: another program from an image to an image.
        """
        images = self._images(images)
        program = restoration.restoration(strength) if schedule is None else self.schedule(schedule)
        rows = self._rows(len(images), seed, labels)
        return np.concatenate(
            [
                restoration.restore(self.backend, program, r.of(images), r.seeds, r.labels, on_move)
                for r in rows
            ]
        )

    def guess_labels(
        self, images: np.ndarray, *, seed: Seeds = 0, on_move: OnMove | None = None
    ) -> np.ndarray:
        """int64 [N]: the label under which the model denoises each image best, at 5 network calls per class and image."""
        images, classes = self._images(images), self.num_classes
        if classes is None:
            raise LabelError(NOTHING_TO_GUESS)
        rows = self._rows(len(images), seed, 0)
        return np.concatenate(
            [guess_labels(self.backend, r.of(images), r.seeds, classes, on_move) for r in rows]
        )

    def trace(
        self,
        schedule: str | Schedule = "one-step",
        *,
        images: np.ndarray | None = None,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> tracing.Trace:
        """All states of a schedule: from images if it starts from an image, else one per seed and label, from noise."""
        program = self.schedule(schedule)
        if program.from_image != (images is not None):
            raise InputError(
                f"schedule {str(program)!r} starts from {'an image: give images' if program.from_image else 'noise: leave images out'}"
            )
        given = None if images is None else self._images(images)
        n = max(length(seed), length(labels)) if given is None else len(given)
        check_number(n * (program.nfe + 1), self.sample_shape, "states")
        rows = self._rows(n, seed, labels)
        parts = [
            tracing.trace(
                self.backend, program, r.seeds, r.labels, None if given is None else r.of(given), on_move
            )
            for r in rows
        ]
        return tracing.Trace(parts[0].levels, np.concatenate([part.states for part in parts], axis=1))

    def close(self) -> None:
        """Free the backend."""
        self.backend.close()

    def __enter__(self) -> BCM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _images(
        self, values: np.ndarray, shape: tuple[int, int, int] | None = None, what: str = "images"
    ) -> np.ndarray:
        """float32 [N, C, H, W] in [-1, 1], checked; of the model's shape if none is given."""
        return check_images(values, shape or self.sample_shape, what, self.value_range)

    def _invert(
        self,
        images: np.ndarray,
        schedule: str | Schedule,
        seed: Seeds,
        labels: Labels,
        on_move: OnMove | None,
    ) -> np.ndarray:
        """Latents of images that have been checked."""
        program, rows = self.schedule(schedule), self._rows(len(images), seed, labels)
        return np.concatenate(
            [basic.invert(self.backend, program, r.of(images), r.seeds, r.labels, on_move) for r in rows]
        )

    def _labels(self, labels: Labels, n: int) -> np.ndarray | None:
        """int64 [n], checked; None for a model without classes."""
        return check_labels(labels, n, self.num_classes, self.classes)

    def _rows(self, n: int, seed: Seeds, labels: Labels) -> list[Batch]:
        return batches(check_seeds(seed, n), self._labels(labels, n), self.batch)

    def _each(
        self,
        around: np.ndarray,
        schedule: str | Schedule,
        seeds: Sequence[int],
        labels: np.ndarray | None,
        on_move: OnMove | None,
    ) -> np.ndarray:
        """Images of several latents per seed: [N, K, C, H, W] → the same; labels [N, K]."""
        n, k = around.shape[:2]
        images = self.generate(
            latents=around.reshape(n * k, *self.sample_shape),
            schedule=schedule,
            seed=[seed for seed in seeds for _ in range(k)],
            labels=None if labels is None else labels.ravel(),
            on_move=on_move,
        )
        return images.reshape(around.shape)

    def _constrained(
        self, program: Schedule, rows: list[Batch], known: list[Project], on_move: OnMove | None
    ) -> np.ndarray:
        pairs = zip(rows, known, strict=True)
        return np.concatenate(
            [constrained.constrained(self.backend, program, k, r.seeds, r.labels, on_move) for r, k in pairs]
        )
