"""Arguments of pipelines of diffusers, converted to arguments of BCM."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, LabelError, ScheduleError
from ..runtime.arguments import check_integer
from ..runtime.calls import NetworkCall
from ..runtime.pictures.inputs import from_tensor
from ..runtime.pipeline import BCM
from ..runtime.schedule import Schedule
from ..runtime.wording import listed

if TYPE_CHECKING:
    import torch

# callback(pipe, step, timestep, {"latents": state}); returns a dict of tensors, or None.
StepCallback = Callable[[Any, int, float, dict[str, Any]], dict[str, Any] | None]
_PRECISIONS = {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16"}


def precision_of(dtype: torch.dtype) -> str:
    """Return the name of the precision. Raises InputError for other types."""
    precision = _PRECISIONS.get(str(dtype))
    if precision is None:
        raise InputError(f"dtype must be one of {', '.join(_PRECISIONS)}, not {dtype!r}")
    return precision


def schedule_with(steps: int | None, bcm: BCM, inverts: bool) -> Schedule:
    """Return the first schedule of the model with this number of network calls.

    inverts: from an image to noise; otherwise from noise to an image. Raises ScheduleError.
    """
    programs = {name: bcm.schedule(name) for name in bcm.schedules}
    suitable = {
        name: program
        for name, program in programs.items()
        if (program.inverts if inverts else program.generates)
    }
    for program in suitable.values():
        if program.nfe == steps:
            return program
    argument, other = "num_inference_steps", "schedule='80>2.4>0.002'"
    if inverts:
        argument, other = "num_inversion_steps", "inversion='+0.07 0.07>15>80'"
    known = listed([f"{program.nfe} ({name})" for name, program in suitable.items()])
    raise ScheduleError(
        f"{argument} is {steps!r}, but this model has schedules with {known}; "
        f"give one of these numbers, or noise levels: {other}"
    )


def draw_integers(high: int, n: int, generator: torch.Generator | list[torch.Generator] | None) -> list[int]:
    """Return n integers from 0 to high - 1, drawn from one generator, or from one generator each.

    Raises InputError for other objects, if there are not n generators, or n is not a positive integer.
    """
    import torch

    check_integer(n, "batch_size")
    if n < 1:
        raise InputError(f"batch_size must be at least 1, not {n}")

    def draw(count: int, source: torch.Generator | None) -> list[int]:
        if not isinstance(source, (torch.Generator, type(None))):
            kind = type(source).__name__
            raise InputError(f"generator must be a torch.Generator, or a list of them, not {kind}")
        device = "cpu" if source is None else source.device
        return torch.randint(high, (count,), generator=source, device=device).tolist()

    if not isinstance(generator, (list, tuple)):
        return draw(n, generator)
    if len(generator) != n:
        raise InputError(f"{len(generator)} generators were given for {n} images")
    return [number for source in generator for number in draw(1, source)]


def plain_labels(class_labels: Any) -> Any:
    """Return labels without torch: a number, a name, a list of them, or None. Raises LabelError."""
    class_labels = from_tensor(class_labels, "class_labels", LabelError)
    if hasattr(class_labels, "tolist"):  # an array
        return class_labels.tolist()
    return list(class_labels) if isinstance(class_labels, tuple) else class_labels


def images_input(images: Any) -> Any:
    """Return images in a form that BCM takes, whose length is their number.

    images: an array [N, H, W, C] becomes [N, C, H, W]. Tensors and lists of images remain what they are.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return images.transpose(0, 3, 1, 2)
    is_many = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
    return images if is_many else [images]


def report_step(pipe: Any, callback: StepCallback, call: NetworkCall, step: int) -> None:
    """Call callback_on_step_end. Raises InputError if it changes the latents, or returns something else."""
    import torch

    latents = torch.from_numpy(call.state.copy())
    timestep = 250 * math.log(call.move.t)
    outputs = callback(pipe, step, timestep, {"latents": latents})
    after = outputs.get("latents", latents) if isinstance(outputs, dict) else outputs
    if after is None:
        return
    if not isinstance(after, torch.Tensor) or after is outputs:
        raise InputError(
            "callback_on_step_end must return None, or a dict in which latents are a tensor, "
            f"not {type(after).__name__}"
        )
    if not torch.equal(after.detach().cpu(), torch.from_numpy(call.state.copy())):
        raise InputError(
            "callback_on_step_end changed the latents, which a schedule cannot continue from; "
            "play the schedule in two parts instead: bcm_edge.BCM has the methods"
        )
