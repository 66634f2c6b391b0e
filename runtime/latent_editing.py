"""The tasks that invert images and generate others from the latents: interpolate, variations, restyle."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..errors import ImageError, InputError
from .arguments import Labels, Seeds, check_integer, check_number, check_real, check_targets
from .batches import Batch
from .calls import Calls, OnMove
from .keyword_arguments import Inversion
from .opened import OpenedModel
from .pictures.inputs import Images
from .pictures.outputs import ArrayOutput, OutputType, PillowImages, PillowOutput, in_form
from .schedule import Schedule
from .tasks import basic
from .tasks import latents as latent_tasks

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LatentTasks(OpenedModel):
    """The tasks of `BCM` on latents, and what they share with invert and generate."""

    @overload
    def interpolate(
        self,
        a: Images,
        b: Images,
        *,
        frames: int = 9,
        labels_b: Labels = None,
        output_type: ArrayOutput = "float",
        **others: "Unpack[Inversion]",
    ) -> np.ndarray: ...

    @overload
    def interpolate(
        self,
        a: Images,
        b: Images,
        *,
        frames: int = 9,
        labels_b: Labels = None,
        output_type: PillowOutput,
        **others: "Unpack[Inversion]",
    ) -> list[PillowImages]: ...

    def interpolate(
        self,
        a: Images,
        b: Images,
        *,
        frames: int = 9,
        inversion: str | Schedule = "invert-2",
        schedule: str | Schedule = "one-step",
        seed: Seeds = 0,
        labels: Labels = None,
        labels_b: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | list[PillowImages]:
        """Return images on the way from a to b, through the latents between: [N, frames, C, H, W].

        Args:
            a: N images. Their reconstructions are the first frames.
            b: N images. Their reconstructions are the last frames.
            frames: The number of images on each way, with both ends; at least 2.
            inversion: From an image to noise.
            schedule: From noise to an image.
            labels: The labels of a, which the frames of the first half get.
            labels_b: The labels of b, which the other frames get; by default those of a.
        """
        self._check_call(output_type)
        frames = check_integer(frames, "frames")
        if frames < 2:
            raise InputError(f"frames must be at least 2, not {frames}")
        first, last = self._images(a), self._images(b)
        n = len(first)
        if n != len(last):
            raise ImageError(f"both inputs must have the same number of images, not {n} and {len(last)}")
        check_number(frames * n, self.sample_shape, "frames")
        up, down = self.schedule(inversion), self.schedule(schedule)
        labels_b = labels if labels_b is None else labels_b
        guesses = self._guess_nfe(labels) + self._guess_nfe(labels_b)
        calls = self._calls(on_move, (guesses + 2 * up.nfe, n), (down.nfe, frames * n))
        batch_a = self._image_batch([first], seed, labels, calls)
        batch_b = self._image_batch([last], seed, labels_b, calls)
        start, end = self._invert(first, up, batch_a, calls), self._invert(last, up, batch_b, calls)
        fractions = np.linspace(0, 1, frames)
        path = latent_tasks.slerp(start, end, fractions)
        frame_labels = None
        if batch_a.labels is not None and batch_b.labels is not None:
            frame_labels = np.where(fractions < 0.5, batch_a.labels[:, None], batch_b.labels[:, None])
        return self._generate_each(path, down, batch_a.seeds, frame_labels, calls, output_type)

    @overload
    def variations(
        self,
        images: Images,
        n: int = 4,
        *,
        strength: float = 0.3,
        output_type: ArrayOutput = "float",
        **others: "Unpack[Inversion]",
    ) -> np.ndarray: ...

    @overload
    def variations(
        self,
        images: Images,
        n: int = 4,
        *,
        strength: float = 0.3,
        output_type: PillowOutput,
        **others: "Unpack[Inversion]",
    ) -> list[PillowImages]: ...

    def variations(
        self,
        images: Images,
        n: int = 4,
        *,
        strength: float = 0.3,
        inversion: str | Schedule = "invert-2",
        schedule: str | Schedule = "one-step",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | list[PillowImages]:
        """Return n images near each of N images: [N, n, C, H, W].

        Args:
            images: N images.
            n: The number of variations of each image.
            strength: How far the latents are turned towards fresh noise, as a share of 90°. 0 gives the
                reconstruction, 1 an unrelated image.
            inversion: From an image to noise.
            schedule: From noise to an image.
        """
        self._check_call(output_type)
        inputs = self._images(images)
        n = check_integer(n, "n")
        check_real(strength, "strength")
        check_number(n * len(inputs), self.sample_shape, "variations")
        up, down = self.schedule(inversion), self.schedule(schedule)
        nfe = self._guess_nfe(labels) + up.nfe
        calls = self._calls(on_move, (nfe, len(inputs)), (down.nfe, n * len(inputs)))
        batch = self._image_batch([inputs], seed, labels, calls)
        inverted = self._invert(inputs, up, batch, calls)
        nearby = latent_tasks.nearby(inverted, strength, batch.seeds, n)
        repeated = None if batch.labels is None else np.repeat(batch.labels[:, None], n, axis=1)
        return self._generate_each(nearby, down, batch.seeds, repeated, calls, output_type)

    @overload
    def restyle(
        self,
        images: Images,
        *,
        to: Labels,
        output_type: ArrayOutput = "float",
        **others: "Unpack[Inversion]",
    ) -> np.ndarray: ...

    @overload
    def restyle(
        self, images: Images, *, to: Labels, output_type: PillowOutput, **others: "Unpack[Inversion]"
    ) -> PillowImages: ...

    def restyle(
        self,
        images: Images,
        *,
        to: Labels,
        inversion: str | Schedule = "invert-2",
        schedule: str | Schedule = "one-step",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | PillowImages:
        """Invert images under their own labels and generate them under others: [N, C, H, W].

        A class may be a style, a material or a digit. The latent keeps what the classes have in common. With
        the labels of the images as `to`, the result is their reconstruction.

        Args:
            images: N images.
            to: The class to generate, or one per image, in the forms of labels; "guess" is refused. A text
                must not name more classes than there are images.
            inversion: From an image to noise, played with the labels of the images.
            schedule: From noise to an image, played with `to`.

        Raises:
            LabelError: The model has fewer than two classes, or not the class `to`.
        """
        self._check_call(output_type)
        inputs, up, down = self._images(images), self.schedule(inversion), self.schedule(schedule)
        basic.check_generates(down)  # before the inversion
        n = len(inputs)
        targets = check_targets(to, n, self.num_classes, self.classes)
        calls = self._calls(on_move, (self._guess_nfe(labels) + up.nfe, n), (down.nfe, n))
        batch = self._image_batch([inputs], seed, labels, calls)
        latents = self._invert(inputs, up, batch, calls)
        restyled = self._generate(down, replace(batch, labels=targets), latents, calls, output_type)
        return in_form(restyled, output_type)

    def _invert(self, images: np.ndarray, program: Schedule, batch: Batch, calls: Calls) -> np.ndarray:
        """Return the latents of images that have been checked."""
        return self._play(partial(basic.invert, self.backend, program), batch, images, calls=calls)

    def _generate(
        self,
        program: Schedule,
        batch: Batch,
        latents: np.ndarray | None,
        calls: Calls,
        output_type: OutputType,
    ) -> np.ndarray:
        """Return images, float32 or uint8, from latents that have been checked."""
        task = partial(basic.generate, self.backend, program, uint8=output_type != "float")
        return self._play(task, batch, latents, calls=calls)

    def _generate_each(
        self,
        latents: np.ndarray,
        program: Schedule,
        seeds: Sequence[int],
        labels: np.ndarray | None,
        calls: Calls,
        output_type: OutputType,
    ) -> Any:
        """Return the images of K latents per seed, [N, K, C, H, W]. labels: [N, K] or None."""
        n, k = latents.shape[:2]
        repeated = [seed for seed in seeds for _ in range(k)]
        batch = Batch(repeated, None if labels is None else labels.ravel())
        rows = latents.reshape(n * k, *self.sample_shape)
        images = self._generate(program, batch, rows, calls, output_type)
        return in_form(images.reshape(latents.shape), output_type)
