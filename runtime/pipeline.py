"""BCM: the class whose methods are the tasks, from generation and inversion to restoration."""

from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..errors import InputError
from .arguments import Labels, Seeds, check_integer, check_latents, check_number
from .calls import OnMove
from .editing import EditingTasks
from .keyword_arguments import Inversion, Sampling
from .latent_editing import LatentTasks
from .pictures.inputs import Images, Latents
from .pictures.outputs import ArrayOutput, OutputType, PillowImages, PillowOutput, in_form
from .schedule import Schedule
from .tasks import basic
from .tasks import trace as traces

if TYPE_CHECKING:
    from typing_extensions import Unpack


class BCM(LatentTasks, EditingTasks):
    """A model that generates and inverts images. `bcm_edge.load` opens one.

    Methods take N images in any of these forms, or one image, which gives N = 1:

    - arrays of numpy: floats in [-1, 1] (or in `value_range`), or uint8: [N, C, H, W], [C, H, W], for one
      channel also [N, H, W] and [H, W], and uint8 also [N, H, W, C]. Other sizes are refused.
    - tensors of torch of these shapes, on any device, also bfloat16 and with gradients.
    - images of Pillow, and paths of picture files: cropped at the centre, resized and converted to grey or
      colour as the command line does it. Paths of folders, and of npz and npy files.
    - lists of these.

    Results have the batch axis N, also for one image: float32 [N, C, H, W] in [-1, 1] unless output_type says
    otherwise. These arguments mean the same in all methods:

    - seed: an integer s, which means s, s+1, … for the images in order, or one integer per image. All noise
      of an image comes from its own seed.
    - labels: a class for all images, or one per image, each a number or a name of `classes`. "all", and a
      text such as "dog,cat", are repeated in order. "guess" lets the model guess the classes of its images
      (`guess_labels`). Required for a model with classes, and refused by a model without.
    - schedule: the program to the image: a name of `schedules`, or a text such as "80>2.4>0.002".
    - inversion: the program from an image to noise, "invert-2" or a text such as "+0.07 0.07>15>80".
    - on_move: called after every network call with a `NetworkCall`, which has the number of the call and the
      number of all calls. An exception that it raises stops the method.
    - output_type: the form of the returned images. "float" is float32 in [-1, 1], "uint8" pixels from 0 to
      255, which a GPU converts itself, and "pil" a list of images of Pillow.

    docs/tasks.md describes the tasks beyond generate, invert and reconstruct, and how well they work.
    """

    @overload
    def generate(
        self,
        n: int | None = None,
        *,
        latents: Latents | None = None,
        output_type: ArrayOutput = "float",
        **others: "Unpack[Sampling]",
    ) -> np.ndarray: ...

    @overload
    def generate(
        self,
        n: int | None = None,
        *,
        latents: Latents | None = None,
        output_type: PillowOutput,
        **others: "Unpack[Sampling]",
    ) -> PillowImages: ...

    def generate(
        self,
        n: int | None = None,
        *,
        schedule: str | Schedule = "one-step",
        seed: Seeds = 0,
        labels: Labels = None,
        latents: Latents | None = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | PillowImages:
        """Return images from noise, or from latents: [n, C, H, W].

        Args:
            n: The number of images. By default as many as there are latents, seeds or labels, and one per
                class for labels="all".
            schedule: From noise to an image.
            latents: float32 [n, C, H, W] of unit variance, as `invert` returns them. By default they are
                drawn from the seeds.
        """
        self._check_call(output_type)
        if n is not None:
            n = check_integer(n, "n")
        start = None
        if latents is not None:
            start = check_latents(latents, self.sample_shape)
            if n not in (None, len(start)):
                raise InputError(f"n is {n}, but there are {len(start)} latents, and each gives one image")
            n = len(start)
        elif n is None:
            n = self._count(seed, labels)
        check_number(n, self.sample_shape)
        batch, program = self._batch(n, seed, labels), self.schedule(schedule)
        calls = self._calls(on_move, (program.nfe, n))
        return in_form(self._generate(program, batch, start, calls, output_type), output_type)

    def invert(
        self,
        images: Images,
        *,
        inversion: str | Schedule = "invert-2",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> np.ndarray:
        """Return the latents of images: float32 [N, C, H, W] near unit variance.

        `generate(latents=…)` returns to the images.

        Args:
            images: N images.
            inversion: From an image to noise.
        """
        self._check_open()
        inputs, program = self._images(images), self.schedule(inversion)
        calls = self._calls(on_move, (self._guess_nfe(labels) + program.nfe, len(inputs)))
        return self._invert(inputs, program, self._image_batch([inputs], seed, labels, calls), calls)

    @overload
    def reconstruct(
        self, images: Images, *, output_type: ArrayOutput = "float", **others: "Unpack[Inversion]"
    ) -> np.ndarray: ...

    @overload
    def reconstruct(
        self, images: Images, *, output_type: PillowOutput, **others: "Unpack[Inversion]"
    ) -> PillowImages: ...

    def reconstruct(
        self,
        images: Images,
        *,
        inversion: str | Schedule = "invert-2",
        schedule: str | Schedule = "one-step",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
        output_type: OutputType = "float",
    ) -> np.ndarray | PillowImages:
        """Invert images and generate them again: [N, C, H, W].

        Args:
            images: N images.
            inversion: From an image to noise.
            schedule: From noise to an image.
        """
        self._check_call(output_type)
        inputs, up, down = self._images(images), self.schedule(inversion), self.schedule(schedule)
        calls = self._calls(on_move, (self._guess_nfe(labels) + up.nfe + down.nfe, len(inputs)))
        batch = self._image_batch([inputs], seed, labels, calls)
        task = partial(basic.reconstruct, self.backend, up, down, uint8=output_type != "float")
        return in_form(self._play(task, batch, inputs, calls=calls), output_type)

    def trace(
        self,
        schedule: str | Schedule = "one-step",
        *,
        images: Images | None = None,
        inversion: str | Schedule = "invert-2",
        seed: Seeds = 0,
        labels: Labels = None,
        on_move: OnMove | None = None,
    ) -> traces.Trace:
        """Return the states of a generation, of an inversion and reconstruction, or of a restoration.

        Args:
            schedule: To an image: from noise, or from an image as `restore` plays it.
            images: N images. By default the states start from noise, one sample per seed and label.
            inversion: From an image to noise; played before a schedule from noise if there are images.
        """
        up = None if images is None else self.schedule(inversion)
        program = traces.program(self.schedule(schedule), up)
        inputs = None if images is None else self._images(images)
        n = self._count(seed, labels) if inputs is None else len(inputs)
        check_number(n * (program.nfe + 1), self.sample_shape, "states")
        if inputs is None:
            calls = self._calls(on_move, (program.nfe, n))
            batch = self._batch(n, seed, labels)
        else:
            calls = self._calls(on_move, (self._guess_nfe(labels) + program.nfe, n))
            batch = self._image_batch([inputs], seed, labels, calls)

        def states(part: Any, images: np.ndarray | None, after_move: Any) -> np.ndarray:
            return traces.trace(self.backend, program, part, images, after_move).states

        played = self._play(states, batch, inputs, calls=calls, axis=1)
        return traces.Trace(traces.trace_levels(program), played)
