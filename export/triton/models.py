"""The models that a repository contains, and what writes the version folder of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from ...runtime.schedule import Schedule
from ...runtime.storage.manifest import ModelFacts
from ...serving.signatures import Signature, Tensor, move_signatures, stream_signature, task_signatures
from ..fused import fused_inputs, fused_output
from .configs import Model, Samples, engine_model, graph_model, python_model, stream_model
from .contents import VersionWriter
from .plan import RepositoryPlan

# The levels of the warm-up requests; zero is not a valid level.
WARM_LEVELS = {
    "forward": {"t": 80.0, "u": 0.002},
    "inverse": {"t": 0.07, "u": 80.0},
}

Write = Callable[[Path], None]  # called with the version folder


def models(plan: RepositoryPlan, writer: VersionWriter) -> Iterator[tuple[Model, Write]]:
    """Yield every model, and the function that writes its version folder."""
    yield from _tasks(plan, writer)
    yield from _moves(plan, writer)
    for name, schedule in plan.fused.items():
        signature = fused_signature(schedule, plan.bundle.manifest.model)
        write = partial(writer.write_fused, precision=plan.precision, schedule=schedule)
        yield graph_model(f"bcm_{name}", signature, plan.serving, {}), write


def fused_signature(schedule: Schedule, model: ModelFacts) -> Signature:
    """Return the inputs and outputs of a schedule's graph."""
    image = model.sample_shape
    inputs = []
    for name in fused_inputs(schedule, model.num_classes):
        if name == "label":
            last_class = (model.num_classes or 0) - 1
            inputs.append(Tensor(name, "INT64", (1,), f"class, from 0 to {last_class}"))
        elif name == "image":
            inputs.append(Tensor(name, "FP32", image, "in [-1, 1]"))
        else:
            inputs.append(Tensor(name, "FP32", image, "noise of std 1"))
    values = "near unit variance" if schedule.from_image else "in [-1, 1]"
    output = Tensor(fused_output(schedule), "FP32", image, values)
    return Signature(f"`{schedule}` as one graph", tuple(inputs), (output,))


def _tasks(plan: RepositoryPlan, writer: VersionWriter) -> Iterator[tuple[Model, Write]]:
    facts = plan.bundle.manifest.model
    for task, signature in task_signatures(facts).items():
        model = python_model(
            f"bcm_{task}",
            task,
            signature,
            plan.serving,
            plan.backend,
            plan.precision,
            _warm_images(signature),
        )
        yield model, partial(writer.write_code, class_name="TaskModel", description=signature.description)
    if plan.stream:
        signature = stream_signature(facts)
        model = stream_model("bcm_generate_stream", signature, plan.serving, plan.backend, plan.precision)
        yield model, partial(writer.write_code, class_name="StreamModel", description=signature.description)


def _moves(plan: RepositoryPlan, writer: VersionWriter) -> Iterator[tuple[Model, Write]]:
    signatures = move_signatures(plan.bundle.manifest.model)
    for direction in plan.directions:
        signature = signatures[direction]
        if len(plan.directions) == 1:
            signature = replace(signature, description="one move in either direction; noise may be 0")
        name = f"bcm_{direction}"
        warm = _warm_levels(direction)
        if plan.platform == "tensorrt":
            model = engine_model(name, signature, plan.serving, plan.engines, warm)
            write = partial(writer.write_plans, engines=plan.engines, direction=direction)
        elif plan.platform == "onnxruntime":
            model = graph_model(name, signature, plan.serving, warm)
            write = partial(writer.write_graph, precision=plan.precision, direction=direction)
        else:
            model = python_model(name, direction, signature, plan.serving, plan.backend, plan.precision, warm)
            write = partial(writer.write_code, class_name="MoveModel", description=signature.description)
        yield model, write


def _warm_images(signature: Signature) -> Samples:
    """Return black images and a mask of one pixel.

    Zeros would be refused: the value range of an image of zeros is unclear, and a mask of zeros has no hole.
    """
    samples = {}
    for tensor in signature.inputs:
        if tensor.name in ("image", "image_b"):
            samples[tensor.name] = np.full(tensor.dims, -1, np.float32)
        elif tensor.name == "mask":
            samples[tensor.name] = np.arange(prod(tensor.dims)).reshape(tensor.dims) == 0
    return samples


def _warm_levels(direction: str) -> Samples:
    return {name: np.full(1, level, np.float32) for name, level in WARM_LEVELS[direction].items()}
