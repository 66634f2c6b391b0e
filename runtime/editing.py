"""The tasks that repair or complete images: inpaint, colorize, upscale, restore."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .arguments import Labels, Seeds, check_holes
from .batches import Batch
from .chain import OnMove, Project
from .opened import OpenedModel
from .schedule import Schedule
from .tasks import constrained, restoration


class EditingTasks(OpenedModel):
    """The editing tasks of `BCM`, whose documentation explains the common arguments."""

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
        """Fill in the holes of images: float32 [N, C, H, W] in [-1, 1]. Other pixels do not change.

        Args:
            images: [N, C, H, W], float32 or uint8. The pixels in the holes are not used.
            holes: True, or a number other than 0, where a pixel is unknown: [H, W] for all images, [N, H, W],
                or [N, 1 or C, H, W].
            schedule: From noise to an image. By default eight network calls, with levels for the size of the
                images.
        """
        images = self._images(images)
        holes = check_holes(holes, images)
        program = constrained.inpainting(self.sample_shape) if schedule is None else self.schedule(schedule)
        batch = self._batch(len(images), seed, labels)
        return self._complete(program, constrained.known_pixels, batch, images, holes, on_move=on_move)

    def colorize(
        self,
        grey: np.ndarray,
        *,
        schedule: str | Schedule = constrained.COLOURING,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """Return colour images with the brightness of grey images: float32 [N, 3, H, W] in [-1, 1].

        Args:
            grey: [N, 1, H, W], float32 or uint8: the brightness as ITU-R BT.601 defines it.
            schedule: From noise to an image, returning to an image several times.
        """
        constrained.check_colours(self.sample_shape)
        _, height, width = self.sample_shape
        grey, program = self._images(grey, (1, height, width), "grey images"), self.schedule(schedule)
        batch = self._batch(len(grey), seed, labels)
        return self._complete(program, constrained.known_brightness, batch, grey, on_move=on_move)

    def upscale(
        self,
        small: np.ndarray,
        *,
        schedule: str | Schedule = constrained.UPSCALING,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """Return larger images, float32 [N, C, H, W], whose means over k × k pixels are those of `small`.

        Args:
            small: [N, C, H / k, W / k] with a whole number k, float32 or uint8.
            schedule: From noise to an image, returning to an image several times.
        """
        factor = constrained.upscaling_factor(small, self.sample_shape)
        _, height, width = self.sample_shape
        small_shape = (self.sample_shape[0], height // factor, width // factor)
        small, program = self._images(small, small_shape, "small images"), self.schedule(schedule)
        batch = self._batch(len(small), seed, labels)
        projection = partial(constrained.known_means, factor=factor)
        return self._complete(program, projection, batch, small, on_move=on_move)

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
        """Remove the damage of compression, blur, noise or an attack: float32 [N, C, H, W] in [-1, 1].

        Args:
            images: [N, C, H, W], float32 or uint8.
            strength: The noise level below which everything is treated as damage, from 0.002 to below 5.
            schedule: Another program from an image to an image, in place of that of the strength.
        """
        images = self._images(images)
        program = restoration.restoration(strength) if schedule is None else self.schedule(schedule)
        task = partial(restoration.restore, self.backend, program, on_move=on_move)
        return self._play(task, self._batch(len(images), seed, labels), images)

    def _complete(
        self,
        program: Schedule,
        projection: Callable[..., Project],
        batch: Batch,
        *known: np.ndarray,
        on_move: OnMove | None,
    ) -> np.ndarray:
        """Generate images that agree with `known`. projection: returns the projection for rows of it."""

        def complete(part: Batch, *rows: np.ndarray) -> np.ndarray:
            return constrained.constrained(self.backend, program, projection(*rows), part, on_move)

        return self._play(complete, batch, *known)
