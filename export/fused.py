"""Join the moves of a schedule into one graph, for servers that run ONNX graphs but no Python.

    generation:  noise_0, …, noise_k [, label]         → image    noise_0 is the start, injections add the
    others inversion:   image, noise_0, …, noise_k [, label]  → latent

image, latent, noises: float32 [N, C, H, W]. label: int64 [N]. The noises have std 1; the graph scales them.
The graph of a move is copied from the bundle, with the move's levels as constants. All moves share the
weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ..errors import ParityError, ScheduleError
from ..runtime.accuracy import relative_l2
from ..runtime.batches import Batch
from ..runtime.chain import play
from ..runtime.noise import INVERSION_DRAW, START_DRAW, standard_normal
from ..runtime.schedule import ONE_STEP, SIGMA_MAX, Inject, Move, Schedule
from ..runtime.storage.bundle import Bundle

MOST_MOVES = 8
# Relative L2. Both sides play the same operations, which ONNX Runtime may optimise differently.
FUSED_BOUNDS = {"fp32": 1e-5, "fp16": 1e-3, "int8": 1e-3}
CHECKED_SEEDS = (1, 2, 3)


def fused_graph(bundle: Bundle, precision: str, schedule: Schedule) -> ModelProto:
    """Return a schedule as one graph. Its weights stay in the precision's weights file of the bundle.

    That file must be in the folder of the graph when it is opened.

    Raises ScheduleError if the schedule has more than 8 moves, or neither generates nor inverts.
    """
    check_fuses(schedule)
    graphs = {
        direction: onnx.load(path, load_external_data=False)
        for direction, path in bundle.graphs(precision).items()
    }
    builder = _FusedGraphBuilder(graphs)
    builder.add_schedule(schedule)
    model = bundle.manifest.model
    image = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", *model.sample_shape])
    label = helper.make_tensor_type_proto(TensorProto.INT64, ["N"])
    inputs = [
        helper.make_value_info(name, label if name == "label" else image)
        for name in fused_inputs(schedule, model.num_classes)
    ]
    output = helper.make_value_info(fused_output(schedule), image)
    graph = helper.make_graph(
        builder.nodes, "schedule", inputs, [output], list(builder.initializers.values())
    )
    forward = graphs["forward"]
    fused = helper.make_model(
        graph, producer_name="bcm_edge", opset_imports=forward.opset_import, ir_version=forward.ir_version
    )
    helper.set_model_props(fused, {"bcm_edge.schedule": str(schedule)})
    return fused


def check_fuses(schedule: Schedule) -> None:
    """Raise ScheduleError if a schedule cannot become one graph."""
    if schedule.nfe > MOST_MOVES:
        raise ScheduleError(
            f"schedule {str(schedule)!r} has {schedule.nfe} moves; one graph can have up to {MOST_MOVES}"
        )
    if not schedule.generates and not schedule.inverts:
        raise ScheduleError(
            f"schedule {str(schedule)!r} neither generates (from 80 to 0.002) "
            "nor inverts (from an image to 80)"
        )


def fused_inputs(schedule: Schedule, num_classes: int | None) -> list[str]:
    """Return the names of the graph's inputs, in order. num_classes: None for a model without classes."""
    count = sum(isinstance(step, Inject) for step in schedule.steps)
    if not schedule.from_image:
        count += 1  # the start
    names = [f"noise_{i}" for i in range(count)]
    if schedule.from_image:
        names = ["image", *names]
    if num_classes is not None:
        names.append("label")
    return names


def fused_output(schedule: Schedule) -> str:
    """Return the name of the graph's output."""
    return "latent" if schedule.from_image else "image"


def fused_noises(
    schedule: Schedule, seeds: Sequence[int], sample_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """Return the noises with which the graph computes what the chain computes from these seeds.

    Name of the input → float32 [N, C, H, W] of std 1.
    """
    later_injections = sum(isinstance(step, Inject) for step in schedule.steps[1:])
    draws = [INVERSION_DRAW if schedule.from_image else START_DRAW]
    draws += [START_DRAW + i for i in range(1, later_injections + 1)]
    return {f"noise_{i}": standard_normal(seeds, sample_shape, draw) for i, draw in enumerate(draws)}


def check_fused(file: Path, bundle: Bundle, precision: str, schedule: Schedule) -> None:
    """Raise ParityError if the graph in a file computes other images than the chain, for a few seeds.

    A precision that ONNX Runtime does not support on this processor is not checked.
    """
    from ..runtime.backends import onnxruntime as ort
    from ..runtime.backends.sessions import open_serialised

    if ort.unavailable(precision) is not None:
        return
    model = bundle.manifest.model
    labels = None
    if model.num_classes is not None:
        labels = np.arange(len(CHECKED_SEEDS)) % model.num_classes
    batch = Batch(CHECKED_SEEDS, labels)
    backend = ort.open(bundle, precision)
    if schedule.from_image:
        image = np.clip(play(ONE_STEP, backend, batch), -1, 1)
        expected = play(schedule, backend, batch, image) / np.float32(SIGMA_MAX)
    else:
        image = None
        expected = np.clip(play(schedule, backend, batch), -1, 1)
    values = {**fused_noises(schedule, CHECKED_SEEDS, model.sample_shape), "image": image, "label": labels}
    feed = {name: values[name] for name in fused_inputs(schedule, model.num_classes)}
    session = open_serialised(file.read_bytes(), file.parent)
    actual = np.asarray(session.run(None, feed)[0])
    error = relative_l2(actual, expected)
    bound = FUSED_BOUNDS[precision]
    if not error <= bound:  # also true for NaN
        raise ParityError(
            f"{file}: the graph of {str(schedule)!r} differs from the chain by a relative L2 of {error:.1e} "
            f"(bound {bound:g})",
            [],
        )


class _FusedGraphBuilder:
    """A builder of the nodes and initializers of a fused graph. Methods take and return names of values."""

    def __init__(self, graphs: Mapping[str, ModelProto]) -> None:
        """graphs: direction → the graph of one move."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self._graphs = graphs

    def add_schedule(self, schedule: Schedule) -> None:
        """Add all nodes of a schedule, from the inputs to the output."""
        state = "image" if schedule.from_image else "noise_0"
        self._batch_size = self._op("Shape", state, at="rows", start=0, end=1)
        if not schedule.from_image:
            state = self._op("Mul", state, self._number(schedule.start), at="start")
        noises = iter(fused_inputs(schedule, None)[1:])
        noise = None  # what the next move adds to the state
        moves = 0
        for step in schedule.steps:
            if isinstance(step, Inject):
                noise = self._op("Mul", next(noises), self._number(step.sigma), at=f"move_{moves}/noise")
            else:
                state = self._add_move(step, state, noise, f"move_{moves}")
                noise = None
                moves += 1
        if schedule.from_image:
            self._op("Div", state, self._number(SIGMA_MAX), at="end", output="latent")
        else:
            self._op("Clip", state, self._number(-1), self._number(1), at="end", output="image")

    def _add_move(self, move: Move, state: str, noise: str | None, at: str) -> str:
        """Copy the nodes of a direction's graph. Their values get the prefix `at`."""
        graph = self._graphs[move.graph].graph
        values = {}  # name in the direction's graph → name in the fused graph
        for name, level in (("t", move.t), ("u", move.u)):
            values[name] = self._op("Expand", self._number(level, 1), self._batch_size, at=f"{at}/{name}")
        if move.graph == "inverse":
            values["x"] = state
            values["noise"] = noise or self._zeros(state, at)
        elif noise is None:
            values["x"] = state
        else:
            values["x"] = self._op("Add", state, noise, at=f"{at}/add")
        for initializer in graph.initializer:
            values[initializer.name] = self._add_initializer(initializer, move.graph)
        values["label"] = "label"  # an input of the fused graph, too
        values[""] = ""  # an optional input that a node leaves out
        for node in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{at}/{node.name}"
            copy.input[:] = [values.get(name, f"{at}/{name}") for name in node.input]
            copy.output[:] = [f"{at}/{name}" if name else "" for name in node.output]
            self.nodes.append(copy)
        return f"{at}/{graph.output[0].name}"

    def _add_initializer(self, initializer: TensorProto, direction: str) -> str:
        """Add an initializer of a direction's graph and return its name.

        It keeps its name, unless the other direction has another initializer of that name, as scales of 8-bit
        graphs may be.
        """
        if self.initializers.setdefault(initializer.name, initializer) == initializer:
            return initializer.name
        renamed = TensorProto()
        renamed.CopyFrom(initializer)
        renamed.name = f"{direction}/{initializer.name}"
        self.initializers.setdefault(renamed.name, renamed)
        return renamed.name

    def _zeros(self, like: str, at: str) -> str:
        shape = self._op("Shape", like, at=f"{at}/shape")
        return self._op("ConstantOfShape", shape, at=f"{at}/zeros")

    def _op(self, operator: str, *inputs: str, at: str, output: str = "", **attributes: Any) -> str:
        """Add a node of an ONNX operator and return the name of its output."""
        name = output or f"fused/{at}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=f"fused/{at}", **attributes))
        return name

    def _number(self, value: float, *shape: int) -> str:
        """Add a float32 constant, filled with one value, and return its name."""
        name = f"fused/{np.float32(value)}/{'x'.join(map(str, shape))}"
        self.initializers.setdefault(name, numpy_helper.from_array(np.full(shape, value, np.float32), name))
        return name
