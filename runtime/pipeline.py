"""BCM: the class whose methods are the tasks, from generation and inversion to restoration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ..errors import ImageError, InputError, LabelError
from .arguments import Labels, Seeds, check_integer, check_latents, check_number, length
from .batches import Batch
from .chain import OnMove
from .classes import NOTHING_TO_GUESS
from .editing import EditingTasks
from .schedule import Schedule
from .tasks import basic, classes
from .tasks import latents as latent_tasks
from .tasks import trace as traces


class BCM(EditingTasks):
    """A model that generates and inverts images. `bcm_edge.load` opens one.

    Arrays are float32 [N, C, H, W]. Images lie in [-1, 1]; uint8 images are accepted too. These arguments
    mean the same in all methods:

    - seed: an integer s, which means s, s+1, … for the images in order, or one integer per image. All noise
      of an image comes from its own seed.
    - labels: a class for all images, or one per image, each a number or a name of `classes`. Required for a
      model with classes, and refused by a model without.
    - schedule: the program to the image: a name of `schedules`, or a text such as "80>2.4>0.002".
    - inversion: the program from an image to noise, "invert-2" or a text such as "+0.07 0.07>15>80".
    - on_move: called as on_move(index, move, state) after every network call.

    docs/tasks.md describes the tasks beyond generate, invert and reconstruct, and how well they work.
    """

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
        """Return images from noise, or from latents: float32 [n, C, H, W] in [-1, 1], or uint8.

        Args:
            n: The number of images. By default as many as there are latents, seeds or labels.
            schedule: From noise to an image.
            latents: float32 [n, C, H, W] of unit variance, as `invert` returns them. By default they are
                drawn from the seeds.
            uint8: Return pixels from 0 to 255, which a GPU converts itself.
        """
        if n is not None:
            check_integer(n, "n")
        if latents is not None:
            latents = check_latents(latents, self.sample_shape)
            if n not in (None, len(latents)):
                raise InputError(f"n is {n}, but there are {len(latents)} latents, and each gives one image")
            n = len(latents)
        elif n is None:
            n = max(length(seed), length(labels))
        check_number(n, self.sample_shape)
        batch, program = self._batch(n, seed, labels), self.schedule(schedule)
        task = partial(basic.generate, self.backend, program, on_move=on_move, uint8=uint8)
        return self._play(task, batch, latents)

    def invert(
        self,
        images: np.ndarray,
        *,
        inversion: str | Schedule = "invert-2",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """Return the latents of images: float32 [N, C, H, W] near unit variance.

        `generate(latents=…)` returns to the images.

        Args:
            images: [N, C, H, W], float32 or uint8.
            inversion: From an image to noise.
        """
        images = self._images(images)
        return self._invert(images, inversion, self._batch(len(images), seed, labels), on_move)

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
        """Invert images and generate them again: float32 [N, C, H, W] in [-1, 1], or uint8.

        Args:
            images: [N, C, H, W], float32 or uint8.
            inversion: From an image to noise.
            schedule: From noise to an image.
            uint8: Return pixels from 0 to 255, which a GPU converts itself.
        """
        images, up, down = self._images(images), self.schedule(inversion), self.schedule(schedule)
        batch = self._batch(len(images), seed, labels)
        task = partial(basic.reconstruct, self.backend, up, down, on_move=on_move, uint8=uint8)
        return self._play(task, batch, images)

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
        """Return images on the way from a to b, through the latents between: float32 [N, frames, C, H, W].

        Args:
            a: Images [N, C, H, W]. Their reconstructions are the first frames.
            b: Images [N, C, H, W]. Their reconstructions are the last frames.
            frames: The number of images on each way, with both ends; at least 2.
            inversion: From an image to noise.
            schedule: From noise to an image.
            labels: The labels of a, which the frames of the first half get.
            labels_b: The labels of b, which the other frames get; by default those of a.
        """
        check_integer(frames, "frames")
        if frames < 2:
            raise InputError(f"frames must be at least 2, not {frames}")
        a, b = self._images(a), self._images(b)
        if len(a) != len(b):
            raise ImageError(f"both inputs must have the same number of images, not {len(a)} and {len(b)}")
        check_number(frames * len(a), self.sample_shape, "frames")
        batch_a = self._batch(len(a), seed, labels)
        batch_b = Batch(batch_a.seeds, self._labels(labels if labels_b is None else labels_b, len(b)))
        start = self._invert(a, inversion, batch_a, on_move)
        end = self._invert(b, inversion, batch_b, on_move)
        fractions = np.linspace(0, 1, frames)
        path = latent_tasks.slerp(start, end, fractions)
        frame_labels = None
        if batch_a.labels is not None and batch_b.labels is not None:
            frame_labels = np.where(fractions < 0.5, batch_a.labels[:, None], batch_b.labels[:, None])
        return self._generate_each(path, schedule, batch_a.seeds, frame_labels, on_move)

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
        """Return n images near each image: float32 [N, n, C, H, W].

        Args:
            images: [N, C, H, W], float32 or uint8.
            n: The number of variations of each image.
            strength: How far the latents are turned towards fresh noise, as a share of 90°. 0 gives the
                reconstruction, 1 an unrelated image.
            inversion: From an image to noise.
            schedule: From noise to an image.
        """
        images = self._images(images)
        check_integer(n, "n")
        check_number(n * len(images), self.sample_shape, "variations")
        batch = self._batch(len(images), seed, labels)
        inverted = self._invert(images, inversion, batch, on_move)
        nearby = latent_tasks.nearby(inverted, strength, batch.seeds, n)
        repeated = None if batch.labels is None else np.repeat(batch.labels[:, None], n, axis=1)
        return self._generate_each(nearby, schedule, batch.seeds, repeated, on_move)

    def guess_labels(
        self, images: np.ndarray, *, seed: Seeds = 0, on_move: OnMove | None = None
    ) -> np.ndarray:
        """Return the label under which the model denoises each image best: int64 [N].

        It takes 5 network calls per class and image.

        Args:
            images: [N, C, H, W], float32 or uint8.
        """
        images, num_classes = self._images(images), self.num_classes
        if num_classes is None:
            raise LabelError(NOTHING_TO_GUESS)
        task = partial(classes.guess_labels, self.backend, num_classes, on_move=on_move)
        return self._play(task, self._batch(len(images), seed, 0), images)

    def trace(
        self,
        schedule: str | Schedule = "one-step",
        *,
        images: np.ndarray | None = None,
        inversion: str | Schedule = "invert-2",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> traces.Trace:
        """Return the states of a generation, of an inversion and reconstruction, or of a restoration.

        Args:
            schedule: To an image: from noise, or from an image as `restore` plays it.
            images: [N, C, H, W], float32 or uint8. By default the states start from noise, one sample per
                seed and label.
            inversion: From an image to noise; played before a schedule from noise if there are images.
        """
        up = None if images is None else self.schedule(inversion)
        program = traces.program(self.schedule(schedule), up)
        images = None if images is None else self._images(images)
        n = max(length(seed), length(labels)) if images is None else len(images)
        check_number(n * (program.nfe + 1), self.sample_shape, "states")

        def states(batch: Batch, images: np.ndarray | None) -> np.ndarray:
            return traces.trace(self.backend, program, batch, images, on_move).states

        played = self._play(states, self._batch(n, seed, labels), images, axis=1)
        return traces.Trace(traces.trace_levels(program), played)

    def _invert(
        self, images: np.ndarray, schedule: str | Schedule, batch: Batch, on_move: OnMove | None
    ) -> np.ndarray:
        """Return the latents of images that have been checked."""
        task = partial(basic.invert, self.backend, self.schedule(schedule), on_move=on_move)
        return self._play(task, batch, images)

    def _generate_each(
        self,
        latents: np.ndarray,
        schedule: str | Schedule,
        seeds: Sequence[int],
        labels: np.ndarray | None,
        on_move: OnMove | None,
    ) -> np.ndarray:
        """Return the images of K latents per seed, [N, K, C, H, W]. labels: [N, K] or None."""
        n, k = latents.shape[:2]
        images = self.generate(
            latents=latents.reshape(n * k, *self.sample_shape),
            schedule=schedule,
            seed=[seed for seed in seeds for _ in range(k)],
            labels=None if labels is None else labels.ravel(),
            on_move=on_move,
        )
        return images.reshape(latents.shape)
