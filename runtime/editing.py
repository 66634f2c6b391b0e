"""The tasks that repair or complete images: inpaint, colorize, upscale, restore."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, overload

import numpy as np

from ..errors import LabelError
from .arguments import Labels, Seeds, check_holes
from .batches import Batch
from .calls import AfterMove, Calls, OnMove
from .chain import Project
from .classes import NOTHING_TO_GUESS
from .keywords import Completion, Sampling
from .opened import OpenedModel
from .pictures.outputs import Arrays, OutputType, Pictures, PillowImages, in_form
from .schedule import Schedule
from .tasks import classes, constrained, restoration

if TYPE_CHECKING:
    from typing_extensions import Unpack


class EditingTasks(OpenedModel):
    """The editing tasks of `BCM`, whose documentation explains the common arguments."""

    @overload
    def inpaint(
        self,
        images: np.ndarray,
        holes: np.ndarray,
        *,
        output_type: Arrays = "float",
        **others: "Unpack[Completion]",
    ) -> np.ndarray: ...

    @overload
    def inpaint(
        self, images: np.ndarray, holes: np.ndarray, *, output_type: Pictures, **others: "Unpack[Completion]"
    ) -> PillowImages: ...

    def inpaint(
        self,
        images: np.ndarray,
        holes: np.ndarray,
        *,
        schedule: str | Schedule | None = None,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | PillowImages:
        """Fill in the holes of images: [N, C, H, W]. Other pixels do not change.

        Args:
            images: N images. The pixels in the holes are not used.
            holes: True, or a number other than 0, where a pixel is unknown: [H, W] for all images, [N, H, W],
                or [N, 1 or C, H, W].
            schedule: From noise to an image. By default eight network calls, with levels for the size of the
                images.
        """
        self._check_call(output_type)
        images = self._images(images)
        holes = check_holes(holes, images)
        program = constrained.inpainting(self.sample_shape) if schedule is None else self.schedule(schedule)
        batch = self._batch(len(images), seed, labels)
        calls = self._calls(on_move, (program.nfe, len(batch)))
        results = self._complete(program, constrained.known_pixels, batch, images, holes, calls=calls)
        return in_form(results, output_type)

    @overload
    def colorize(
        self, grey: np.ndarray, *, output_type: Arrays = "float", **others: "Unpack[Sampling]"
    ) -> np.ndarray: ...

    @overload
    def colorize(
        self, grey: np.ndarray, *, output_type: Pictures, **others: "Unpack[Sampling]"
    ) -> PillowImages: ...

    def colorize(
        self,
        grey: np.ndarray,
        *,
        schedule: str | Schedule = constrained.COLOURING,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | PillowImages:
        """Return colour images with the brightness of grey images: [N, 3, H, W].

        Args:
            grey: [N, 1, H, W], float32 or uint8: the brightness as ITU-R BT.601 defines it.
            schedule: From noise to an image, returning to an image several times.
        """
        self._check_call(output_type)
        constrained.check_colours(self.sample_shape)
        _, height, width = self.sample_shape
        grey, program = self._images(grey, (1, height, width), "grey images"), self.schedule(schedule)
        batch = self._batch(len(grey), seed, labels)
        calls = self._calls(on_move, (program.nfe, len(batch)))
        results = self._complete(program, constrained.known_brightness, batch, grey, calls=calls)
        return in_form(results, output_type)

    @overload
    def upscale(
        self, small: np.ndarray, *, output_type: Arrays = "float", **others: "Unpack[Sampling]"
    ) -> np.ndarray: ...

    @overload
    def upscale(
        self, small: np.ndarray, *, output_type: Pictures, **others: "Unpack[Sampling]"
    ) -> PillowImages: ...

    def upscale(
        self,
        small: np.ndarray,
        *,
        schedule: str | Schedule = constrained.UPSCALING,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | PillowImages:
        """Return larger images, [N, C, H, W], whose means over k × k pixels are those of `small`.

        Args:
            small: [N, C, H / k, W / k] with a whole number k, float32 or uint8.
            schedule: From noise to an image, returning to an image several times.
        """
        self._check_call(output_type)
        factor = constrained.upscaling_factor(small, self.sample_shape)
        _, height, width = self.sample_shape
        small_shape = (self.sample_shape[0], height // factor, width // factor)
        small, program = self._images(small, small_shape, "small images"), self.schedule(schedule)
        batch = self._batch(len(small), seed, labels)
        projection = partial(constrained.known_means, factor=factor)
        calls = self._calls(on_move, (program.nfe, len(batch)))
        results = self._complete(program, projection, batch, small, calls=calls)
        return in_form(results, output_type)

    @overload
    def restore(
        self,
        images: np.ndarray,
        *,
        strength: float = 0.2,
        output_type: Arrays = "float",
        **others: "Unpack[Completion]",
    ) -> np.ndarray: ...

    @overload
    def restore(
        self,
        images: np.ndarray,
        *,
        strength: float = 0.2,
        output_type: Pictures,
        **others: "Unpack[Completion]",
    ) -> PillowImages: ...

    def restore(
        self,
        images: np.ndarray,
        *,
        strength: float = 0.2,
        schedule: str | Schedule | None = None,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | PillowImages:
        """Remove the damage of compression, blur, noise or an attack: [N, C, H, W].

        Args:
            images: N images.
            strength: The noise level below which everything is treated as damage, from 0.002 to below 5.
            schedule: Another program from an image to an image, in place of that of the strength.
        """
        self._check_call(output_type)
        images = self._images(images)
        program = restoration.restoration(strength) if schedule is None else self.schedule(schedule)
        calls = self._calls(on_move, (program.nfe, len(images)))
        task = partial(restoration.restore, self.backend, program)
        batch = self._batch(len(images), seed, labels)
        return in_form(self._play(task, batch, images, calls=calls), output_type)

    def guess_labels(
        self,
        images: np.ndarray,
        *,
        holes: np.ndarray | None = None,
        grey: bool = False,
        factor: int = 1,
        seed: Seeds = 0,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """Return the label under which the model denoises each image best: int64 [N].

        It takes 5 network calls per class and image. Of an incomplete image, the known part counts.

        Args:
            images: N images; grey or small ones with the arguments below.
            holes: True where a pixel is unknown, as for `inpaint`.
            grey: Whether the images are grey, as for `colorize`.
            factor: How many times smaller the images are than those of the model, as for `upscale`.
        """
        self._check_open()
        num_classes = self.num_classes
        if num_classes is None:
            raise LabelError(NOTHING_TO_GUESS)
        channels, height, width = self.sample_shape
        shape = (1 if grey else channels, height // factor, width // factor)
        known = [self._images(images, shape)]
        projection: Callable[..., Project] = classes.known_images
        if holes is not None:
            known.append(check_holes(holes, known[0]))
            projection = constrained.known_pixels
        elif grey:
            projection = constrained.known_brightness
        elif factor > 1:
            projection = partial(constrained.known_means, factor=factor)

        def guess(part: Batch, *rows: np.ndarray, after_move: AfterMove | None) -> np.ndarray:
            return classes.guess_labels(self.backend, num_classes, part, projection(*rows), after_move)

        batch = self._batch(len(known[0]), seed, 0)
        calls = self._calls(on_move, (classes.DRAWS * num_classes, len(batch)))
        return self._play(guess, batch, *known, calls=calls)

    def _complete(
        self,
        program: Schedule,
        projection: Callable[..., Project],
        batch: Batch,
        *known: np.ndarray,
        calls: Calls,
    ) -> np.ndarray:
        """Generate images that agree with `known`. projection: returns the projection for rows of it."""

        def complete(part: Batch, *rows: np.ndarray, after_move: AfterMove | None) -> np.ndarray:
            return constrained.constrained(self.backend, program, projection(*rows), part, after_move)

        return self._play(complete, batch, *known, calls=calls)
