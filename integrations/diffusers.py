"""BCMPipeline: a model of this package with the interface of a pipeline of diffusers.

    import torch
    from bcm_edge.integrations.diffusers import BCMPipeline

    pipe = BCMPipeline.from_pretrained("digits")
    images = pipe(num_inference_steps=4, class_labels=[0, 1, 2, 3], generator=torch.manual_seed(0)).images
    latents = pipe.invert(images, class_labels=[0, 1, 2, 3])
    images = pipe(latents=latents, class_labels=[0, 1, 2, 3]).images

It needs the extra `diffusers`. docs/diffusers.md compares it with ConsistencyModelPipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, LabelError
from ..runtime.arguments import length
from ..runtime.backends import info
from ..runtime.calls import NetworkCall
from ..runtime.checks.doctor import require_extra
from ..runtime.classes import asks_to_guess
from ..runtime.loading import load
from ..runtime.pictures.inputs import from_tensor
from ..runtime.pipeline import BCM
from ..runtime.pixels import UNIT
from ..runtime.schedule import Schedule
from ..runtime.tasks.basic import check_generates, check_inverts
from .pipeline_arguments import (
    StepCallback,
    draw_integers,
    images_input,
    plain_labels,
    precision_of,
    report_step,
    schedule_with,
)

if TYPE_CHECKING:
    import torch
    from diffusers import ImagePipelineOutput
    from PIL import Image

OUTPUT_TYPES = ("pil", "np", "pt")
_SEEDS = 2**63 - 1  # seeds are drawn from 0 to this, exclusive: the largest range of torch.randint


class BCMPipeline:
    """Generates and inverts images, with the arguments and results of diffusers' ConsistencyModelPipeline.

    `from_pretrained` opens one. Images are PIL images, numpy arrays [N, H, W, C] or torch tensors
    [N, C, H, W]; the values of arrays and tensors lie in [0, 1]. Results are on the CPU.

    Attributes:
        bcm: The opened model, for everything that this class does not have.
    """

    def __init__(self, bcm: BCM) -> None:
        """bcm: a model that was opened with value_range=(0, 1)."""
        require_extra("diffusers", "BCMPipeline")
        self.bcm = bcm
        self._progress_bar_config: dict[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        **options: Any,
    ) -> BCMPipeline:
        """Open a bundle. Nothing is downloaded.

        Args:
            pretrained_model_name_or_path: What `bcm_edge.load` opens: a bundle, or the name of a model.
            dtype: torch.float32, float16 or bfloat16: the precision, if the bundle contains it.
            torch_dtype: The older name of dtype.
            options: Options of `bcm_edge.load` other than value_range: backend, batch, precision, …

        Raises:
            BundleError: There is no such bundle, it is damaged, or does not contain the precision.
            BackendError: The backend cannot run here.
            MissingExtraError: diffusers or torch is not installed.
        """
        dtype = dtype or torch_dtype
        if dtype is not None:
            if options.get("precision") is not None:
                raise InputError("dtype= and precision= mean the same; give one of them")
            options["precision"] = precision_of(dtype)
        return cls(load(pretrained_model_name_or_path, value_range=UNIT, **options))

    def __repr__(self) -> str:
        return f"BCMPipeline({self.bcm!r})"

    @property
    def device(self) -> torch.device:
        """Where the model computes: "cuda" or "cpu"."""
        import torch

        return torch.device("cuda" if info(self.bcm.backend.name).device == "gpu" else "cpu")

    def to(self, device: str | torch.device) -> BCMPipeline:
        """Return this pipeline if it computes on the device.

        A backend cannot move to another device. Raises InputError for one.
        """
        import torch

        if not isinstance(device, (str, torch.device)):
            raise InputError(f"to() takes a device, not {device!r}; choose the precision in from_pretrained")
        try:
            kind = torch.device(device).type
        except RuntimeError as error:  # an unknown name
            raise InputError(f"to() takes a device such as 'cpu' or 'cuda', not {device!r}") from error
        if kind != self.device.type:
            raise InputError(
                f"this pipeline computes on {self.device} (backend {self.bcm.backend.name}) and cannot move "
                f"to {device}; choose the device when you open it, with device= of from_pretrained"
            )
        return self

    def set_progress_bar_config(self, **config: Any) -> None:
        """Set arguments of tqdm, for example disable=True. On a GPU, a progress bar costs time."""
        self._progress_bar_config = config

    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: torch.Tensor | Sequence[int | str] | int | str | None = None,
        num_inference_steps: int | None = 1,
        timesteps: None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        *,
        schedule: str | Schedule | None = None,
    ) -> ImagePipelineOutput | tuple[list[Image.Image] | np.ndarray | torch.Tensor]:
        """Generate images.

        Args:
            batch_size: The number of images. By default as many as there are latents or class_labels, or 1.
            class_labels: A class for all images, or one per image, each a number or a name. None draws random
                classes, if the model has classes.
            num_inference_steps: The number of network calls. It selects the schedule of the model with this
                number: usually 1, 2, 3 or 4.
            timesteps: Not supported: a schedule takes its place.
            generator: A torch.Generator, or one per image, from which the seeds are drawn. By default the
                global one of torch. Equal states give equal images. They are not the images that diffusers
                makes from this generator.
            latents: float32 [N, C, H, W] of unit variance, such as results of `invert`. By default drawn from
                the seeds.
            output_type: "pil"; "np" for float32 [N, H, W, C]; or "pt" for a float32 tensor [N, C, H, W].
            return_dict: Return an ImagePipelineOutput, whose attribute `images` has the images. Otherwise a
                tuple with the images.
            callback_on_step_end: Called after each network call as callback(pipe, step, timestep,
                {"latents": state}). The timestep is 250 ln(noise level before the call). The state is a
                copy, float32 [N, C, H, W], at the noise level after the call. It must not be changed. More
                images than one network call takes are made in several parts, each with its own steps.
            callback_on_step_end_tensor_inputs: Only ("latents",) is supported.
            schedule: A name or a text of a schedule, in place of num_inference_steps.

        Raises:
            ScheduleError: The model has no schedule with this number of network calls.
            LabelError: A label is not a class, or the model has no classes.
            InputError: Another argument cannot be used.
        """
        if timesteps is not None:
            raise InputError(
                "timesteps= of a scheduler of diffusers cannot be used; "
                "give noise levels as schedule=, for example schedule='80>2.4>0.002'"
            )
        if output_type not in OUTPUT_TYPES:
            raise InputError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, not {output_type!r}")
        if callback_on_step_end_tensor_inputs not in (["latents"], ("latents",)):
            raise InputError("callback_on_step_end_tensor_inputs can only be ['latents']")
        program = self._schedule(schedule, num_inference_steps, inverts=False)
        labels, start = plain_labels(class_labels), from_tensor(latents, "latents")
        n = self._number(batch_size, start, labels)
        seeds = draw_integers(_SEEDS, n, generator)
        if labels is None and self.bcm.num_classes is not None:
            labels = draw_integers(self.bcm.num_classes, n, generator)
        images = self._play(
            partial(self.bcm.generate, n, latents=start, schedule=program, seed=seeds, labels=labels),
            program,
            n,
            callback_on_step_end,
        )
        return self._output(images, output_type, return_dict)

    def invert(
        self,
        images: Image.Image | Sequence[Image.Image | str | Path] | np.ndarray | torch.Tensor,
        class_labels: torch.Tensor | Sequence[int | str] | int | str | None = None,
        num_inversion_steps: int = 2,
        generator: torch.Generator | list[torch.Generator] | None = None,
        callback_on_step_end: StepCallback | None = None,
        *,
        inversion: str | Schedule | None = None,
    ) -> torch.Tensor:
        """Return the latents of images: float32 [N, C, H, W] near unit variance.

        `pipe(latents=…)` with the same class_labels returns to the images.

        Args:
            images: PIL images, files, an array [N, H, W, C] or a tensor [N, C, H, W]: floats in [0, 1] or
                uint8. PIL images and files are cropped and resized to the size of the model.
            class_labels: The classes of the images, as in `__call__`. Required for a model with classes;
                "guess" lets the model guess them.
            num_inversion_steps: The number of network calls: usually 1 or 2.
            generator: Determines the small noise that is added to the images.
            callback_on_step_end: As in `__call__`.
            inversion: A name or a text of a schedule, in place of num_inversion_steps.

        Raises:
            ImageError: The images do not fit the model.
            ScheduleError, LabelError, InputError: As in `__call__`.
        """
        import torch

        labels = plain_labels(class_labels)
        if labels is None and self.bcm.num_classes is not None:
            raise LabelError(
                "class_labels is missing: this model is class-conditional, "
                "and an image must be inverted with its own class"
            )
        inputs = images_input(images)
        program = self._schedule(inversion, num_inversion_steps, inverts=True)
        seeds = draw_integers(_SEEDS, len(inputs), generator)
        if asks_to_guess(labels):
            labels = self.bcm.guess_labels(inputs, seed=seeds)
        invert = partial(self.bcm.invert, inputs, inversion=program, seed=seeds, labels=labels)
        return torch.from_numpy(self._play(invert, program, len(inputs), callback_on_step_end))

    def close(self) -> None:
        """Free the backend. Later calls raise BackendError."""
        self.bcm.close()

    def _schedule(self, schedule: str | Schedule | None, steps: int | None, inverts: bool) -> Schedule:
        if schedule is None:
            return schedule_with(steps, self.bcm, inverts)
        program = self.bcm.schedule(schedule)
        (check_inverts if inverts else check_generates)(program)
        return program

    def _number(self, batch_size: int | None, latents: np.ndarray | None, labels: Any) -> int:
        """Return the number of images to make."""
        if latents is not None:
            if batch_size not in (None, len(latents)):
                raise InputError(f"batch_size is {batch_size}, but there are {len(latents)} latents")
            return len(latents)
        if batch_size is not None:
            return batch_size
        return 1 if labels is None else length(labels, self.bcm.num_classes, self.bcm.classes)

    def _play(self, method: Any, program: Schedule, n: int, callback: StepCallback | None) -> np.ndarray:
        """Call a method of the model, with a progress bar unless it is disabled."""
        from tqdm.auto import tqdm

        if callback is None and self._progress_bar_config.get("disable"):
            return method()
        parts = -(-n // self.bcm.batch)
        with tqdm(total=parts * program.nfe, **self._progress_bar_config) as bar:

            def on_move(call: NetworkCall) -> None:
                bar.update()
                if callback is not None:
                    report_step(self, callback, call, call.index % program.nfe)

            return method(on_move=on_move)

    def _output(self, images: np.ndarray, output_type: str, return_dict: bool) -> Any:
        """Return images [N, C, H, W] in [-1, 1] in the form that the caller asked for."""
        import torch
        from diffusers import DiffusionPipeline, ImagePipelineOutput

        result: Any = np.clip(images / 2 + 0.5, 0, 1)
        if output_type == "pt":
            result = torch.from_numpy(result)
        else:
            result = result.transpose(0, 2, 3, 1)
            if output_type == "pil":
                result = DiffusionPipeline.numpy_to_pil(result)
        return ImagePipelineOutput(images=result) if return_dict else (result,)
