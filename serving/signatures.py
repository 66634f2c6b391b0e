"""What the models of a repository take and give. Configs are written from this, and requests are read and answered by it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..runtime.storage.manifest import ModelFacts
from ..runtime.wording import listed

MOST_FRAMES = 64  # of an interpolation
MOST_NFE = 64  # network calls of a schedule that a client writes


@dataclass(frozen=True)
class Tensor:
    """dims: of one sample, -1 where they vary; datatype: in Triton's words; says: what it is, for people."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    says: str
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """A model. Every tensor has one row per sample; samples of one request may differ in everything."""

    says: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def task_signatures(model: ModelFacts) -> dict[str, Signature]:
    """Task → what its model takes and gives."""
    image = model.sample_shape
    seed = Tensor("seed", "UINT64", (1,), "all noise of the sample comes from it")
    labels = () if model.num_classes is None else (Tensor("label", "INT64", (1,), _classes(model)),)
    given = Tensor("image", "FP32", image, "in [-1, 1]")
    says = "of images: -1,1 or 0,1 (default: -1,1, but images without a value below 0 are refused)"
    value_range = Tensor("value_range", "BYTES", (1,), says, optional=True)
    schedule = Tensor(
        "schedule",
        "BYTES",
        (1,),
        "to the image: a name of the bundle's, or a text (default: one-step)",
        optional=True,
    )
    inversion = replace(
        schedule, name="inversion", says="to the noise: a name of the bundle's, or a text (default: invert-2)"
    )
    up = replace(inversion, name="schedule")
    rounds = replace(
        schedule, says="from noise and back to the image as often as wanted (default: eight calls)"
    )
    result = Tensor("result", "FP32", image, "in [-1, 1]")
    pixels = Tensor("pixels", "UINT8", image, "the result as pixels")
    frames = (-1, *image)
    return {
        "generate": Signature(
            "images from seeds, or from latents",
            (
                seed,
                *labels,
                schedule,
                Tensor("latent", "FP32", image, "of unit variance, as bcm_invert gives it", optional=True),
            ),
            (result, pixels),
        ),
        "invert": Signature(
            "latents of images",
            (given, seed, *labels, up, value_range),
            (Tensor("latent", "FP32", image, "near unit variance"),),
        ),
        "reconstruct": Signature(
            "images after inversion and generation",
            (given, seed, *labels, inversion, schedule, value_range),
            (result, pixels),
        ),
        "interpolate": Signature(
            "what lies between two images",
            (
                given,
                Tensor("image_b", "FP32", image, "the other end, in [-1, 1]"),
                seed,
                *labels,
                *(
                    Tensor("label_b", "INT64", (1,), "class of image_b (default: label)", optional=True)
                    for _ in labels
                ),
                Tensor(
                    "frames",
                    "INT32",
                    (1,),
                    f"2 to {MOST_FRAMES}, one number per request (default: 9)",
                    optional=True,
                ),
                inversion,
                schedule,
                value_range,
            ),
            (
                Tensor("result", "FP32", frames, "every frame in [-1, 1]; the ends are the reconstructions"),
                Tensor("pixels", "UINT8", frames, "the result as pixels"),
            ),
        ),
        "inpaint": Signature(
            "images with their holes filled in",
            (
                given,
                Tensor("mask", "BOOL", image[1:], "true where unknown"),
                seed,
                *labels,
                rounds,
                value_range,
            ),
            (result, pixels),
        ),
    }


def _classes(model: ModelFacts) -> str:
    names = f": {listed(model.classes)}" if model.classes else ""
    return f"class, from 0 to {(model.num_classes or 1) - 1}{names}"


def stream_signature(model: ModelFacts) -> Signature:
    """Of the model that answers a generation once per network call."""
    generate = task_signatures(model)["generate"]
    move = Tensor("move", "INT32", (1,), "number of the network call, from 1")
    level = Tensor("level", "FP32", (1,), "noise level of the state")
    picture = Tensor(
        "result",
        "FP32",
        model.sample_shape,
        "the state, scaled to the contrast of an image; at last the image, in [-1, 1]",
    )
    return Signature(
        f"{generate.says}, a picture after every network call", generate.inputs, (picture, move, level)
    )


def move_signatures(model: ModelFacts) -> dict[str, Signature]:
    """Direction → what its graph takes and gives, as export/graphs.py writes it. t, u and label have no dimension of their own there."""
    image = model.sample_shape
    x = Tensor("x", "FP32", image, "the state at level t")
    noise = Tensor("noise", "FP32", image, "is added to x first")
    levels = (
        Tensor("t", "FP32", (1,), "level of x, from 0.002 to 80"),
        Tensor("u", "FP32", (1,), "level to move to, from 0.002 to 80"),
    )
    labels = () if model.num_classes is None else (Tensor("label", "INT64", (1,), _classes(model)),)
    moved = (Tensor("x_u", "FP32", image, "the state at level u"),)
    return {
        "forward": Signature("one move towards the image", (x, *levels, *labels), moved),
        "inverse": Signature("one move towards the noise", (x, noise, *levels, *labels), moved),
    }
