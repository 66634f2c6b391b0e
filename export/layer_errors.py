"""How far every tensor of a graph is from the float32 reference, for one network call.

Both graphs get the same inputs with every tensor as an output. Polygraphy's runners and Comparator run and pair them; this package says
which tensor of one graph is which of the other, and by what measure they are compared.

fp16, bf16 and int8 are compared with the bundle's float32 graph, all on ONNX Runtime, 16-bit graphs with every rounding they ask for.
fp32 is compared with the torch modules, at the outputs of convolutions, linear layers, normalisations and blocks; torch gets its weights
from the graph of the other direction, so a weight changed in one of the two shows.
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

from ..errors import BackendError, BcmError, MissingExtraError
from ..runtime.backends import CHECKING
from ..runtime.backends.sessions import open_serialised
from ..runtime.backends.typed import spelled_out
from ..runtime.checks.doctor import missing_modules
from ..runtime.machine.install_hints import install_line
from ..runtime.storage.bundle import Bundle
from ..runtime.wording import first_line

if TYPE_CHECKING:
    from ..model.preconditioning import ConsistencyModel

CHUNK = 128  # tensors that are outputs at once; the largest of an ImageNet-64 network have 6 MB a sample, so at most 0.8 GB a graph
_SHOWN = " shown"  # what a float32 copy of a tensor is called: numpy has no bfloat16
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class LayerError:
    """node: PATH/OPERATOR of the graph; layer: the module path it belongs to; error, before: relative L2 of its output and of the worst
    of its inputs, infinite for NaN or infinity; largest: the largest |activation| of the reference there, 0 where it has none."""

    node: str
    layer: str
    operator: str
    error: float
    before: float
    largest: float


def compare_layers(
    bundle: Bundle, precision: str, direction: str, feed: dict[str, np.ndarray]
) -> tuple[list[LayerError], np.ndarray]:
    """(what every node of the candidate's graph adds to the error, in the graph's order, the output last; the candidate's output)."""
    path = bundle.graphs(precision)[direction]
    graph, measure = _Graph(onnx.load(path, load_external_data=False).graph), _Measure()
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            for chunk in graph.chunks():
                if precision == "fp32":
                    measure.pairs = graph.modules(chunk)
                    reference: BaseRunner = _TorchRunner(bundle, direction, measure.pairs, feed)
                else:
                    fp32 = bundle.graphs("fp32")[direction]
                    measure.pairs = graph.counterparts(chunk, onnx.load(fp32, load_external_data=False).graph)
                    reference = OnnxrtRunner(_session(fp32, "fp32", measure.pairs.values()), "reference")
                runners = [reference, OnnxrtRunner(_session(path, precision, chunk), "candidate")]
                Comparator.compare_accuracy(Comparator.run(runners, data_loader=[feed]), compare_func=measure)
    except BcmError:
        raise
    except Exception as error:  # the libraries' exceptions share no base class
        raise BackendError(f"{path}: its layers cannot be compared: {first_line(error)}") from error
    return graph.errors(measure), measure.output


def relative_l2(values: np.ndarray, truth: np.ndarray) -> float:
    """As in runtime/checks/parity.py; infinite where a value is not finite."""
    if not np.isfinite(values).all():
        return math.inf
    norm = float(np.linalg.norm(truth.astype(np.float64)))
    return float(np.linalg.norm(values.astype(np.float64) - truth)) / (norm or 1.0)


class _Measure:
    """Polygraphy's compare_func: the relative L2 error by tensor of the candidate. pairs: tensor of the candidate → of the reference."""

    def __init__(self) -> None:
        self.pairs: dict[str, str] = {}
        self.errors: dict[str, float] = {}
        self.largest: dict[str, float] = {}
        self.output = np.empty(0)  # the last tensor seen, which is the graph's output

    def __call__(self, reference: Any, candidate: Any) -> dict[str, bool]:
        for shown in candidate:
            name = shown.removesuffix(_SHOWN)
            self.output = values = candidate[shown]
            if name in self.pairs:
                truth = reference[self.pairs[name] + _SHOWN]
                self.errors[name] = relative_l2(values, truth)
                self.largest[name] = float(np.abs(truth).max(initial=0))
            elif not np.isfinite(values).all():
                self.errors[name] = math.inf
        return {}


class _Graph:
    """The nodes of a candidate's graph and what their tensors stand for."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        output = graph.output[0].name
        self._nodes = sorted(
            graph.node, key=lambda node: output in node.output
        )  # stable: the graph's order, with the output last
        self._maker = {name: node for node in self._nodes for name in node.output}
        self._users = {name: node for node in reversed(self._nodes) for name in node.input}

    def chunks(self) -> Iterator[list[str]]:
        """All tensors in the graph's order, a few at a time; the output ends each, so that none is without a counterpart."""
        *names, output = self._maker
        for start in range(0, len(names), CHUNK):
            yield [*names[start : start + CHUNK], output]

    def counterparts(self, chunk: Iterable[str], reference: onnx.GraphProto) -> dict[str, str]:
        """Tensor → the tensor of the float32 graph that it is, perhaps in another type."""
        known = {name for node in reference.node for name in node.output}
        return {name: origin for name in chunk if (origin := self._origin(name)) in known}

    def _origin(self, name: str) -> str:
        if self._maker[name].op_type == "QuantizeLinear":
            return ""  # integers, which mean nothing without their scale
        while (node := self._maker.get(name)) and node.op_type in ("Cast", *QUANTISERS):
            name = node.input[0]
        return name

    def modules(self, chunk: Iterable[str]) -> dict[str, str]:
        """Tensor → path of the torch module that gives it ("" is the model). Blocks end with the last addition at their path."""
        last_add = {
            node.name.rpartition("/")[0]: node.output[0] for node in self._nodes if node.op_type == "Add"
        }
        found = {}
        for name in chunk:
            path, _, operator = self._maker[name].name.rpartition("/")
            ends = (
                operator in ("Conv", "Gemm") or last_add.get(path) == name
            )  # of a GroupNorm the one addition there is
            if ends and path not in ("preconditioning", "noise", "label_emb"):
                found[name] = path
        return {**found, "x_u": ""}

    def errors(self, measure: _Measure) -> list[LayerError]:
        found, errors = [], measure.errors
        for node in self._nodes:
            before = max((errors.get(name, 0.0) for name in node.input), default=0.0)
            for name in node.output:
                errors.setdefault(name, before)  # not compared: as far off as what it is made of
            error = max(errors[name] for name in node.output)
            largest = max(measure.largest.get(name, 0.0) for name in node.output)
            found.append(LayerError(node.name, self._layer(node), node.op_type, error, before, largest))
        return found

    def _layer(self, node: onnx.NodeProto) -> str:
        """The module path; of a quantiser, the convolution it is there for."""
        user: onnx.NodeProto | None = node
        while user is not None and user.op_type in QUANTISERS:
            user = self._users.get(user.output[0])
        return (user or node).name.rpartition("/")[0]


class _TorchRunner(BaseRunner):
    """The torch model, whose modules' outputs are watched by forward hooks. pairs: name of an output → module path."""

    def __init__(
        self, bundle: Bundle, direction: str, pairs: dict[str, str], feed: dict[str, np.ndarray]
    ) -> None:
        super().__init__(name="torch", prefix="torch")
        self._bundle, self._direction, self._feed = bundle, direction, feed
        self._paths = set(pairs.values())

    def get_input_metadata_impl(self) -> TensorMetadata:
        return TensorMetadata().from_feed_dict(self._feed)

    def infer_impl(self, feed_dict: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        model = _restored(self._bundle, self._direction)
        outputs: dict[str, np.ndarray] = {}
        for path, module in model.network.named_modules():
            if path in self._paths and path:
                module.register_forward_hook(
                    lambda _m, _i, output, path=path: outputs.__setitem__(path + _SHOWN, output.numpy())
                )
        inputs = {name: torch.from_numpy(values) for name, values in feed_dict.items()}
        state = inputs["x"] + inputs["noise"] if "noise" in inputs else inputs["x"]
        with torch.inference_mode():
            outputs[_SHOWN] = model(state, inputs["t"], inputs["u"], inputs.get("label")).numpy()
        self.inference_time = 0.0  # asked for by Polygraphy, used by nobody here
        return outputs


def _restored(bundle: Bundle, direction: str) -> ConsistencyModel:
    """The torch model with the weights of the other direction's graph: those of one graph agree with it even where they are wrong."""
    if missing := missing_modules("export"):
        raise MissingExtraError(
            f"bisecting fp32 compares with torch and needs {', '.join(missing)}; {install_line('export')}"
        )
    from .restore import restored_model

    pair = bundle.manifest.graphs["fp32"]
    other = {"forward": pair["inverse" if direction == "forward" else "forward"], "inverse": pair[direction]}
    return restored_model(Bundle(bundle.path, replace(bundle.manifest, graphs={"fp32": other})))


def _session(path: Path, precision: str, names: Iterable[str]) -> Callable[[], onnxruntime.InferenceSession]:
    """Opens a graph with these tensors as outputs, in float32, called NAME and _SHOWN. Weights stay in their file."""

    def opened() -> onnxruntime.InferenceSession:
        proto = onnx.load(path, load_external_data=False)
        if precision in CHECKING:
            proto = spelled_out(proto)
        shown = [
            helper.make_node("Cast", [name], [name + _SHOWN], to=TensorProto.FLOAT)
            for name in dict.fromkeys(names)
        ]
        proto.graph.node.extend(shown)
        marked = cast(onnx.ModelProto, ModifyOutputs(proto, outputs=[node.output[0] for node in shown])())
        return open_serialised(marked.SerializeToString(), path.parent)

    return opened
