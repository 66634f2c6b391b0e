"""The inputs and outputs of the models of a repository.

Configs are written from these signatures, and requests are read and answered according to them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..runtime.storage.manifest import ModelFacts
from ..runtime.wording import listed

MOST_FRAMES = 64  # the largest number of frames of an interpolation
MOST_NFE = 64  # the largest number of network calls of a schedule that a client writes


@dataclass(frozen=True)
class Tensor:
    """An input or an output."""

    name: str
    datatype: str  # in the notation of Triton, for example "FP32"
    dims: tuple[int, ...]  # the shape of one sample; -1 for a dimension that varies
    description: str  # for users
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model.

    Every tensor has one row per sample. All values may differ between the samples of a request.
    """

    description: str  # for users
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def task_signatures(model: ModelFacts) -> dict[str, Signature]:
    """Return task → signature of its model."""
    image = model.sample_shape
    images = Tensor("image", "FP32", image, "in [-1, 1]")
    seed = Tensor("seed", "UINT64", (1,), "all noise of the sample depends on it")
    labels = _labels(model)
    to_image, inversion, completing = _schedules()
    value_range = Tensor(
        "value_range",
        "BYTES",
        (1,),
        "of images: -1,1 or 0,1 (default: -1,1, but images without a value below 0 are refused)",
        optional=True,
    )
    result = Tensor("result", "FP32", image, "in [-1, 1]")
    pixels = Tensor("pixels", "UINT8", image, "the result as pixels")
    latent = Tensor("latent", "FP32", image, "near unit variance")
    start = replace(latent, description="of unit variance, as bcm_invert returns it", optional=True)
    return {
        "generate": Signature(
            "images from seeds, or from latents",
            (seed, *labels, to_image, start),
            (result, pixels),
        ),
        "invert": Signature(
            "latents of images",
            (images, seed, *labels, inversion, value_range),
            (latent,),
        ),
        "reconstruct": Signature(
            "images after inversion and generation",
            (images, seed, *labels, inversion, to_image, value_range),
            (result, pixels),
        ),
        "interpolate": _interpolation(images, seed, labels, (inversion, to_image, value_range)),
        "inpaint": Signature(
            "images with their holes filled in",
            (
                images,
                Tensor("mask", "BOOL", image[1:], "true where a pixel is unknown"),
                seed,
                *labels,
                completing,
                value_range,
            ),
            (result, pixels),
        ),
    }


def _interpolation(
    images: Tensor, seed: Tensor, labels: tuple[Tensor, ...], last_inputs: tuple[Tensor, ...]
) -> Signature:
    """Return the signature of interpolations. labels: empty for a model without classes."""
    end_labels = [
        replace(label, name="label_b", description="class of image_b (default: label)", optional=True)
        for label in labels
    ]
    frames = (-1, *images.dims)
    return Signature(
        "images between two images",
        (
            images,
            Tensor("image_b", "FP32", images.dims, "the last image, in [-1, 1]"),
            seed,
            *labels,
            *end_labels,
            Tensor(
                "frames",
                "INT32",
                (1,),
                f"2 to {MOST_FRAMES}, the same for all samples of a request (default: 9)",
                optional=True,
            ),
            *last_inputs,
        ),
        (
            Tensor("result", "FP32", frames, "frames in [-1, 1]; the first and last are the reconstructions"),
            Tensor("pixels", "UINT8", frames, "the result as pixels"),
        ),
    )


def _schedules() -> tuple[Tensor, Tensor, Tensor]:
    """Return the inputs for schedules to an image, to noise, and for completing images."""
    to_image = Tensor(
        "schedule",
        "BYTES",
        (1,),
        "from noise to an image: a schedule name of the bundle, or a text (default: one-step)",
        optional=True,
    )
    inversion = replace(
        to_image,
        name="inversion",
        description="from an image to noise: a schedule name of the bundle, or a text (default: invert-2)",
    )
    completing = replace(
        to_image,
        description="from noise to an image, any number of times (default: eight network calls)",
    )
    return to_image, inversion, completing


def _labels(model: ModelFacts) -> tuple[Tensor, ...]:
    """Return the input `label`, or nothing for a model without classes."""
    if model.num_classes is None:
        return ()
    names = f": {listed(model.classes)}" if model.classes else ""
    return (Tensor("label", "INT64", (1,), f"class, from 0 to {model.num_classes - 1}{names}"),)


def stream_signature(model: ModelFacts) -> Signature:
    """Return the signature of the model that sends a response after every network call of a generation."""
    generate = task_signatures(model)["generate"]
    move = Tensor("move", "INT32", (1,), "number of the network call, from 1")
    level = Tensor("level", "FP32", (1,), "noise level of the state")
    result = Tensor(
        "result",
        "FP32",
        model.sample_shape,
        "the state, scaled to the contrast of an image; in the last response the image, in [-1, 1]",
    )
    description = f"{generate.description}, with a picture after every network call"
    return Signature(description, generate.inputs, (result, move, level))


def move_signatures(model: ModelFacts) -> dict[str, Signature]:
    """Return direction → signature of its graph (export/graphs.py).

    In the graph, t, u and label have no dimension besides that of the samples.
    """
    image = model.sample_shape
    x = Tensor("x", "FP32", image, "the state at level t")
    noise = Tensor("noise", "FP32", image, "added to x before the move")
    levels = (
        Tensor("t", "FP32", (1,), "level of x, from 0.002 to 80"),
        Tensor("u", "FP32", (1,), "level of the result, from 0.002 to 80"),
    )
    labels = _labels(model)
    moved = (Tensor("x_u", "FP32", image, "the state at level u"),)
    return {
        "forward": Signature("one move towards the image", (x, *levels, *labels), moved),
        "inverse": Signature("one move towards the noise", (x, noise, *levels, *labels), moved),
    }
