"""A whole schedule as one graph, for servers that play no Python.

    generation:  noise_0, …, noise_k [, label]         → image    noise_0 is the start, the others are what injections add
    inversion:   image, noise_0, …, noise_k [, label]  → latent

Noises are of std 1, and scaled in the graph. The moves are the bundle's graphs, one behind the other over one copy of the weights, with
their levels as constants. image, latent, noises: float32 [N, C, H, W]; label: int64 [N].
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
FUSED_BOUNDS = {
    "fp32": 1e-5,
    "fp16": 1e-3,
    "int8": 1e-3,
}  # relative L2: the same operations, which ONNX Runtime may fuse differently


def fused_graph(bundle: Bundle, precision: str, schedule: Schedule) -> ModelProto:
    """The graph of a schedule; its weights stay in the bundle's file of the precision, which has to lie beside it.

    Raises ScheduleError for more than 8 moves, or a schedule that neither generates nor inverts.
    """
    check_fuses(schedule)
    graphs = {
        direction: onnx.load(path, load_external_data=False)
        for direction, path in bundle.graphs(precision).items()
    }
    fusing = _Fusing(graphs)
    fusing.play(schedule)
    model = bundle.manifest.model
    image = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", *model.sample_shape])
    label = helper.make_tensor_type_proto(TensorProto.INT64, ["N"])
    inputs = [
        helper.make_value_info(name, label if name == "label" else image)
        for name in fused_inputs(schedule, model.num_classes)
    ]
    result = helper.make_value_info(fused_output(schedule), image)
    graph = helper.make_graph(fusing.nodes, "schedule", inputs, [result], list(fusing.initializers.values()))
    first = graphs["forward"]
    fused = helper.make_model(
        graph, producer_name="bcm_edge", opset_imports=first.opset_import, ir_version=first.ir_version
    )
    helper.set_model_props(fused, {"bcm_edge.schedule": str(schedule)})
    return fused


def check_fuses(schedule: Schedule) -> None:
    """Raise ScheduleError for a schedule that does not fit into one graph."""
    if schedule.nfe > MOST_MOVES:
        raise ScheduleError(
            f"schedule {str(schedule)!r} has {schedule.nfe} moves; one graph takes up to {MOST_MOVES}"
        )
    if not schedule.generates and not schedule.inverts:
        raise ScheduleError(
            f"schedule {str(schedule)!r} neither generates (from 80 to 0.002) nor inverts (from an image to 80)"
        )


def fused_inputs(schedule: Schedule, num_classes: int | None) -> list[str]:
    """Names in order."""
    noises = sum(isinstance(step, Inject) for step in schedule.steps) + (not schedule.from_image)
    return [
        *(["image"] if schedule.from_image else []),
        *(f"noise_{i}" for i in range(noises)),
        *([] if num_classes is None else ["label"]),
    ]


def fused_output(schedule: Schedule) -> str:
    return "latent" if schedule.from_image else "image"


def fused_noises(
    schedule: Schedule, seeds: Sequence[int], sample_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """The noises with which the graph makes what the chain makes of these seeds: name → float32 [N, C, H, W]."""
    draws = [INVERSION_DRAW if schedule.from_image else START_DRAW]
    draws += [
        START_DRAW + i for i in range(1, sum(isinstance(step, Inject) for step in schedule.steps[1:]) + 1)
    ]
    return {f"noise_{i}": standard_normal(seeds, sample_shape, draw) for i, draw in enumerate(draws)}


def check_fused(file: Path, bundle: Bundle, precision: str, schedule: Schedule) -> None:
    """Raise ParityError unless ONNX Runtime makes of the graph what the chain makes of the bundle, for a few seeds. Precisions that it does
    not compute on a processor are not compared."""
    from ..runtime.backends import onnxruntime as ort
    from ..runtime.backends.sessions import open_serialised

    if ort.unavailable(precision) is not None:
        return
    model, seeds = bundle.manifest.model, [1, 2, 3]
    labels = None if model.num_classes is None else np.arange(len(seeds)) % model.num_classes
    batch = Batch(seeds, labels)
    backend = ort.open(bundle, precision)
    image = np.clip(play(ONE_STEP, backend, batch), -1, 1) if schedule.from_image else None
    wanted = play(schedule, backend, batch, image)
    wanted = wanted / np.float32(SIGMA_MAX) if schedule.from_image else np.clip(wanted, -1, 1)
    given = {**fused_noises(schedule, seeds, model.sample_shape), "image": image, "label": labels}
    session = open_serialised(file.read_bytes(), file.parent)
    found = np.asarray(
        session.run(None, {name: given[name] for name in fused_inputs(schedule, model.num_classes)})[0]
    )
    error = relative_l2(found, wanted)
    if not error <= FUSED_BOUNDS[precision]:
        bound = f"bound {FUSED_BOUNDS[precision]:g}"
        raise ParityError(
            f"{file}: the graph of {str(schedule)!r} differs from the chain by {error:.1e} ({bound})", []
        )


class _Fusing:
    """Nodes and initializers in the making."""

    def __init__(self, graphs: Mapping[str, ModelProto]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self._graphs = graphs

    def play(self, schedule: Schedule) -> None:
        first = "image" if schedule.from_image else "noise_0"
        self._rows = self._op("Shape", first, at="rows", start=0, end=1)
        state = (
            first if schedule.from_image else self._op("Mul", first, self._number(schedule.start), at="start")
        )
        noises = iter(fused_inputs(schedule, None)[1:])
        added, moves = None, 0
        for step in schedule.steps:
            if isinstance(step, Inject):
                added = self._op("Mul", next(noises), self._number(step.sigma), at=f"move_{moves}/noise")
            else:
                state, added, moves = self._move(step, state, added, f"move_{moves}"), None, moves + 1
        if schedule.from_image:
            self._op("Div", state, self._number(SIGMA_MAX), at="end", output="latent")
        else:
            self._op("Clip", state, self._number(-1), self._number(1), at="end", output="image")

    def _move(self, move: Move, state: str, added: str | None, at: str) -> str:
        """The nodes of a direction's graph, every value of theirs under the name of this move."""
        graph = self._graphs[move.graph].graph
        values = {
            name: self._op("Expand", self._number(level, 1), self._rows, at=f"{at}/{name}")
            for name, level in (("t", move.t), ("u", move.u))
        }
        if move.graph == "inverse":
            values |= {"x": state, "noise": added or self._zeros(state, at)}
        else:
            values["x"] = state if added is None else self._op("Add", state, added, at=f"{at}/add")
        values |= {
            initializer.name: self._shared(initializer, move.graph) for initializer in graph.initializer
        }
        outside = {"label", ""}
        for node in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{at}/{node.name}"
            copy.input[:] = [
                values.get(name, name if name in outside else f"{at}/{name}") for name in node.input
            ]
            copy.output[:] = [name and f"{at}/{name}" for name in node.output]
            self.nodes.append(copy)
        return f"{at}/{graph.output[0].name}"

    def _shared(self, initializer: TensorProto, direction: str) -> str:
        """The name under which an initializer of a direction stands here: its own, but where the other direction has another of that
        name, as scales of 8 bits are."""
        if self.initializers.setdefault(initializer.name, initializer) == initializer:
            return initializer.name
        other = TensorProto()
        other.CopyFrom(initializer)
        other.name = f"{direction}/{initializer.name}"
        return self.initializers.setdefault(other.name, other).name

    def _zeros(self, like: str, at: str) -> str:
        return self._op("ConstantOfShape", self._op("Shape", like, at=f"{at}/shape"), at=f"{at}/zeros")

    def _op(self, kind: str, *inputs: str, at: str, output: str = "", **attributes: Any) -> str:
        name = output or f"fused/{at}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"fused/{at}", **attributes))
        return name

    def _number(self, value: float, *shape: int) -> str:
        name = f"fused/{np.float32(value)}/{'x'.join(map(str, shape))}"
        self.initializers.setdefault(name, numpy_helper.from_array(np.full(shape, value, np.float32), name))
        return name
