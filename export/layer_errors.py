"""Measure how far every tensor of a graph is from the float32 reference, for one network call.

Two models get the same inputs, with every tensor as an output. Polygraphy's runners run them and its
Comparator pairs their outputs. This module decides which tensor of one is which tensor of the other, and
computes the error.

fp16, bf16 and int8 graphs are compared with the bundle's float32 graph. Both run on ONNX Runtime; 16-bit
graphs with every rounding written out (runtime/backends/typed.py).

fp32 graphs are compared with the torch modules, at the outputs of convolutions, linear layers,
normalisations and blocks. torch gets its weights from the graph of the other direction, so that a weight
that was changed in one of the two graphs shows up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnx import ModifyOutputs
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator
from polygraphy.logger import G_LOGGER

from ..errors import BackendError, BcmError
from ..runtime.accuracy import relative_l2
from ..runtime.backends import checking_backend
from ..runtime.backends.sessions import open_serialised
from ..runtime.backends.typed import spelled_out
from ..runtime.checks.doctor import require_extra
from ..runtime.storage.bundle import Bundle
from ..runtime.wording import first_line

if TYPE_CHECKING:
    from ..model.preconditioning import ConsistencyModel

# Tensors that are outputs at the same time. The largest of an ImageNet-64 network have 6 MB per sample, so
# one graph needs at most 0.8 GB for them.
CHUNK = 128
# Paths of nodes that compute what no single module of the torch model returns.
NO_MODULES = ("preconditioning", "noise", "label_emb", "emb_layers.1")
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")

# Every tensor is returned as a float32 copy, since numpy has no bfloat16. This is added to the copy's name.
_COPY = " shown"


@dataclass(frozen=True)
class LayerError:
    """The error of one node of a graph."""

    # Its name: PATH/OPERATOR.
    node: str
    # The path of the torch module that it belongs to.
    layer: str
    # The ONNX operator.
    operator: str
    # The relative L2 error of its output; infinite if the output contains NaN or infinity.
    error: float
    # The same of its worst input.
    before: float
    # The largest |activation| of the reference at its output, or 0 if the reference has no such tensor.
    largest: float


def compare_layers(
    bundle: Bundle, precision: str, direction: str, feed: dict[str, np.ndarray]
) -> tuple[list[LayerError], np.ndarray]:
    """Play one network call and return the error of every node, and the output of the precision's graph.

    feed: input → values. The nodes are in the order of the graph, the one that computes the output last.

    Raises BackendError if the graphs cannot be compared, and MissingExtraError if torch is needed but not
    installed.
    """
    path = bundle.graphs(precision)[direction]
    graph = _Graph(onnx.load(path, load_external_data=False).graph)
    measurement = _Measurement()
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            for names in graph.chunks():
                reference, measurement.pairs = _reference(bundle, precision, direction, graph, names, feed)
                candidate = OnnxrtRunner(_session(path, precision, names), "candidate")
                results = Comparator.run([reference, candidate], data_loader=[feed])
                Comparator.compare_accuracy(results, compare_func=measurement)
    except BcmError:
        raise
    except Exception as error:  # the libraries' exceptions share no base class
        raise BackendError(f"{path}: cannot compare its layers: {first_line(error)}") from error
    return graph.errors(measurement), measurement.output


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the relative L2 distance, computed in float64; infinity if `actual` contains NaN or infinity."""
    if not np.isfinite(actual).all():
        return math.inf
    return relative_l2(actual.astype(np.float64), expected.astype(np.float64))


def _reference(
    bundle: Bundle,
    precision: str,
    direction: str,
    graph: _Graph,
    names: list[str],
    feed: dict[str, np.ndarray],
) -> tuple[BaseRunner, dict[str, str]]:
    """Return the runner that computes the reference, and tensor of the graph → output of that runner."""
    if precision == "fp32":
        pairs = graph.modules(names)
        return _TorchRunner(bundle, direction, set(pairs.values()), feed), pairs
    path = bundle.graphs("fp32")[direction]
    pairs = graph.counterparts(names, onnx.load(path, load_external_data=False).graph)
    return OnnxrtRunner(_session(path, "fp32", pairs.values()), "reference"), pairs


class _Measurement:
    """A compare_func for Polygraphy, which measures the error of every tensor that the reference also has."""

    def __init__(self) -> None:
        self.pairs: dict[str, str] = {}  # tensor of the candidate → tensor of the reference
        self.errors: dict[str, float] = {}  # tensor of the candidate → relative error
        self.largest: dict[str, float] = {}  # tensor of the candidate → largest |value| of the reference
        self.output = np.empty(0)  # the last tensor of the candidate, which is the output of its graph

    def __call__(self, reference: Any, candidate: Any) -> dict[str, bool]:
        for copy_name in candidate:
            name = copy_name.removesuffix(_COPY)
            self.output = values = candidate[copy_name]
            if name in self.pairs:
                expected = reference[self.pairs[name] + _COPY]
                self.errors[name] = relative_error(values, expected)
                self.largest[name] = float(np.abs(expected).max(initial=0))
            elif not np.isfinite(values).all():
                self.errors[name] = math.inf
        return {}


class _Graph:
    """The nodes of a candidate's graph, and what their tensors correspond to in the reference."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        output = graph.output[0].name
        # In the order of the graph, but the node of the output last. The sort is stable.
        self._nodes = sorted(graph.node, key=lambda node: output in node.output)
        self._producers = {name: node for node in self._nodes for name in node.output}
        # Tensor → the first node that reads it: going backwards, earlier nodes replace later ones.
        self._readers = {name: node for node in reversed(self._nodes) for name in node.input}

    def chunks(self) -> Iterator[list[str]]:
        """Yield all tensors in the order of the graph, at most CHUNK at a time, each time with the output.

        The output has a counterpart in every reference, so no chunk is without one.
        """
        *names, output = self._producers
        for start in range(0, len(names), CHUNK):
            yield [*names[start : start + CHUNK], output]

    def counterparts(self, names: Iterable[str], reference: onnx.GraphProto) -> dict[str, str]:
        """Return tensor → the same tensor of the float32 graph, where that graph has it."""
        known = {name for node in reference.node for name in node.output}
        pairs = {}
        for name in names:
            original = self._original(name)
            if original in known:
                pairs[name] = original
        return pairs

    def _original(self, name: str) -> str:
        """The tensor before casts and quantisers. "" for integers, which mean nothing without their scale."""
        if self._producers[name].op_type == "QuantizeLinear":
            return ""
        while (node := self._producers.get(name)) and node.op_type in ("Cast", *QUANTISERS):
            name = node.input[0]
        return name

    def modules(self, names: Iterable[str]) -> dict[str, str]:
        """Return tensor → the path of the torch module whose output it is; "" is the whole model.

        Normalisations end with Affine, and blocks with the last addition at their path.
        """
        last_additions = {_path(node): node.output[0] for node in self._nodes if node.op_type == "Add"}
        pairs = {}
        for name in names:
            path, _, operator = self._producers[name].name.rpartition("/")
            is_module_output = operator in ("Conv", "Gemm", "Affine") or last_additions.get(path) == name
            if is_module_output and path not in NO_MODULES:
                pairs[name] = path
        return {**pairs, "x_u": ""}

    def errors(self, measurement: _Measurement) -> list[LayerError]:
        """Return the error of every node. A tensor that was not compared gets that of the worst input."""
        layer_errors = []
        errors = measurement.errors
        for node in self._nodes:
            before = max((errors.get(name, 0.0) for name in node.input), default=0.0)
            for name in node.output:
                errors.setdefault(name, before)
            error = max(errors[name] for name in node.output)
            largest = max(measurement.largest.get(name, 0.0) for name in node.output)
            layer_errors.append(
                LayerError(node.name, self._layer(node), node.op_type, error, before, largest)
            )
        return layer_errors

    def _layer(self, node: onnx.NodeProto) -> str:
        """The module path of a node; that of a quantiser is the path of the convolution it belongs to."""
        reader: onnx.NodeProto | None = node
        while reader is not None and reader.op_type in QUANTISERS:
            reader = self._readers.get(reader.output[0])
        return _path(reader or node)


def _path(node: onnx.NodeProto) -> str:
    """The module path in a node's name, which is PATH/OPERATOR."""
    return node.name.rpartition("/")[0]


class _TorchRunner(BaseRunner):
    """A runner of the torch model, which returns the outputs of some modules. Forward hooks read them."""

    def __init__(self, bundle: Bundle, direction: str, paths: set[str], feed: dict[str, np.ndarray]) -> None:
        """paths: the names of the modules whose outputs are returned; "" is the whole model."""
        super().__init__(name="torch", prefix="torch")
        self._bundle = bundle
        self._direction = direction
        self._paths = paths
        self._feed = feed

    def get_input_metadata_impl(self) -> TensorMetadata:
        return TensorMetadata().from_feed_dict(self._feed)

    def infer_impl(self, feed_dict: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        model = _restored(self._bundle, self._direction)
        outputs: dict[str, np.ndarray] = {}

        def hook(path: str) -> Callable[..., None]:
            def keep(_module: object, _inputs: object, output: torch.Tensor) -> None:
                outputs[path + _COPY] = output.numpy()

            return keep

        for path, module in model.network.named_modules():
            if path in self._paths and path:
                module.register_forward_hook(hook(path))
        inputs = {name: torch.from_numpy(values) for name, values in feed_dict.items()}
        state = inputs["x"] + inputs["noise"] if "noise" in inputs else inputs["x"]
        with torch.inference_mode():
            result = model(state, inputs["t"], inputs["u"], inputs.get("label"))
        outputs[_COPY] = result.numpy()
        self.inference_time = 0.0  # Polygraphy requires it; nothing here uses it
        return outputs


def _restored(bundle: Bundle, direction: str) -> ConsistencyModel:
    """Return the torch model with the weights of the other direction's graph.

    With the weights of the compared graph itself it would agree with that graph even where a weight is wrong.
    """
    require_extra("export", "bisecting fp32, which compares with torch,")
    from .restore import restored_model

    files = bundle.manifest.graphs["fp32"]
    opposite = {"forward": "inverse", "inverse": "forward"}[direction]
    graphs = {"forward": files[opposite], "inverse": files[direction]}  # restored_model reads "forward"
    return restored_model(Bundle(bundle.path, replace(bundle.manifest, graphs={"fp32": graphs})))


def _session(path: Path, precision: str, names: Iterable[str]) -> Callable[[], onnxruntime.InferenceSession]:
    """Return a function that opens a graph whose outputs are float32 copies of these tensors.

    The copy of a tensor is named NAME and _COPY. Weights stay in their file.
    """

    def opened() -> onnxruntime.InferenceSession:
        proto = onnx.load(path, load_external_data=False)
        if checking_backend(precision):
            proto = spelled_out(proto)
        copies = [
            helper.make_node("Cast", [name], [name + _COPY], to=TensorProto.FLOAT)
            for name in dict.fromkeys(names)
        ]
        proto.graph.node.extend(copies)
        marked = ModifyOutputs(proto, outputs=[node.output[0] for node in copies])()
        return open_serialised(cast(onnx.ModelProto, marked).SerializeToString(), path.parent)

    return opened
