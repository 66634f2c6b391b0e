"""The tasks that repair or complete images: inpaint, colorize, upscale, restore."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, overload

import numpy as np

from ..errors import InputError
from .arguments import Labels, Seeds, check_holes, check_integer, check_real, check_seeds
from .batches import Batch
from .calls import AfterMove, OnMove
from .chain import Project
from .keyword_arguments import Completion, Sampling
from .opened import OpenedModel
from .pictures.inputs import Holes, Images, size_of
from .pictures.outputs import ArrayOutput, OutputType, PillowImages, PillowOutput, in_form
from .schedule import Schedule
from .tasks import classes, constrained, restoration

if TYPE_CHECKING:
    from typing_extensions import Unpack


class EditingTasks(OpenedModel):
    """The editing tasks of `BCM`, whose documentation explains the common arguments."""

    @overload
    def inpaint(
        self,
        images: Images,
        holes: Holes,
        *,
        output_type: ArrayOutput = "float",
        **others: "Unpack[Completion]",
    ) -> np.ndarray: ...

    @overload
    def inpaint(
        self, images: Images, holes: Holes, *, output_type: PillowOutput, **others: "Unpack[Completion]"
    ) -> PillowImages: ...

    def inpaint(
        self,
        images: Images,
        holes: Holes,
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
            holes: Arrays or tensors with True, or a number other than 0, where a pixel is unknown: [H, W] for
                all images, [N, H, W], or [N, 1 or C, H, W]. Or images of Pillow or files that are white where
                a pixel is unknown: one for all images, or one per image.
            schedule: From noise to an image. By default eight network calls, with levels for the size of the
                images.
        """
        self._check_call(output_type)
        inputs = self._images(images)
        unknown = check_holes(holes, inputs, images)
        program = constrained.inpainting(self.sample_shape) if schedule is None else self.schedule(schedule)
        known, projection = [inputs, unknown], constrained.known_pixels
        return in_form(self._complete(program, projection, known, seed, labels, on_move), output_type)

    @overload
    def colorize(
        self, grey: Images, *, output_type: ArrayOutput = "float", **others: "Unpack[Sampling]"
    ) -> np.ndarray: ...

    @overload
    def colorize(
        self, grey: Images, *, output_type: PillowOutput, **others: "Unpack[Sampling]"
    ) -> PillowImages: ...

    def colorize(
        self,
        grey: Images,
        *,
        schedule: str | Schedule = constrained.COLOURING,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | PillowImages:
        """Return colour images with the brightness of grey images: [N, 3, H, W].

        Args:
            grey: N images of one channel, the brightness as ITU-R BT.601 defines it. Images of Pillow and of
                files may have colours, which are converted to grey.
            schedule: From noise to an image, returning to an image several times.
        """
        self._check_call(output_type)
        constrained.check_colours(self.sample_shape)
        _, height, width = self.sample_shape
        inputs, program = self._images(grey, (1, height, width), "grey images"), self.schedule(schedule)
        projection = constrained.known_brightness
        return in_form(self._complete(program, projection, [inputs], seed, labels, on_move), output_type)

    @overload
    def upscale(
        self,
        small: Images,
        *,
        factor: int | None = None,
        output_type: ArrayOutput = "float",
        **others: "Unpack[Sampling]",
    ) -> np.ndarray: ...

    @overload
    def upscale(
        self,
        small: Images,
        *,
        factor: int | None = None,
        output_type: PillowOutput,
        **others: "Unpack[Sampling]",
    ) -> PillowImages: ...

    def upscale(
        self,
        small: Images,
        *,
        factor: int | None = None,
        schedule: str | Schedule = constrained.UPSCALING,
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | PillowImages:
        """Return larger images, [N, C, H, W], whose means over k × k pixels are those of `small`.

        Args:
            small: N images of H / k × W / k pixels.
            factor: The whole number k. By default it follows from the shape of arrays, and is 2 for images of
                Pillow and of files, which are resized.
            schedule: From noise to an image, returning to an image several times.
        """
        self._check_call(output_type)
        channels, height, width = self.sample_shape
        if factor is not None:
            factor = check_integer(factor, "factor")
        factor = constrained.upscaling_factor(size_of(small, channels), factor, self.sample_shape)
        small_shape = (channels, height // factor, width // factor)
        inputs, program = self._images(small, small_shape, "small images"), self.schedule(schedule)
        projection = partial(constrained.known_means, factor=factor)
        return in_form(self._complete(program, projection, [inputs], seed, labels, on_move), output_type)

    @overload
    def restore(
        self,
        images: Images,
        *,
        strength: float = 0.2,
        output_type: ArrayOutput = "float",
        **others: "Unpack[Completion]",
    ) -> np.ndarray: ...

    @overload
    def restore(
        self,
        images: Images,
        *,
        strength: float = 0.2,
        output_type: PillowOutput,
        **others: "Unpack[Completion]",
    ) -> PillowImages: ...

    def restore(
        self,
        images: Images,
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
        inputs = self._images(images)
        check_real(strength, "strength")
        program = restoration.restoration(strength) if schedule is None else self.schedule(schedule)
        calls = self._calls(on_move, (self._guess_nfe(labels) + program.nfe, len(inputs)))
        task = partial(restoration.restore, self.backend, program)
        batch = self._image_batch([inputs], seed, labels, calls)
        return in_form(self._play(task, batch, inputs, calls=calls), output_type)

    def guess_labels(
        self,
        images: Images,
        *,
        holes: Holes | None = None,
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
        nfe = self._guess_nfe()
        channels, height, width = self.sample_shape
        factor = check_integer(factor, "factor")
        if (holes is not None) + bool(grey) + (factor != 1) > 1:
            raise InputError("images have holes, are grey or are small; give one of holes, grey and factor")
        if grey:
            constrained.check_colours(self.sample_shape)
        if factor != 1:
            factor = constrained.upscaling_factor(size_of(images, channels), factor, self.sample_shape)
        shape = (1 if grey else channels, height // factor, width // factor)
        known = [self._images(images, shape)]
        projection: Callable[..., Project] = classes.known_images
        if holes is not None:
            known.append(check_holes(holes, known[0], images))
            projection = constrained.known_pixels
        elif grey:
            projection = constrained.known_brightness
        elif factor > 1:
            projection = partial(constrained.known_means, factor=factor)
        n = len(known[0])
        return self._guess(known, check_seeds(seed, n), self._calls(on_move, (nfe, n)), projection)

    def _complete(
        self,
        program: Schedule,
        projection: Callable[..., Project],
        known: Sequence[np.ndarray],
        seed: Seeds,
        labels: Labels,
        on_move: OnMove | None,
    ) -> np.ndarray:
        """Generate images that agree with `known`. projection: returns the projection for rows of it."""
        n = len(known[0])
        calls = self._calls(on_move, (self._guess_nfe(labels) + program.nfe, n))
        batch = self._image_batch(known, seed, labels, calls, projection)

        def complete(part: Batch, *rows: np.ndarray, after_move: AfterMove | None) -> np.ndarray:
            return constrained.constrained(self.backend, program, projection(*rows), part, after_move)

        return self._play(complete, batch, *known, calls=calls)
