"""Read back from TensorRT's inspector in which types an engine computes its convolutions.

Only convolutions are read: a precision mostly concerns them, and TensorRT usually keeps them as separate
layers. A convolution that TensorRT fused with others has an unknown type and counts as "not reported".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import tensorrt as trt

from ...runtime.engines.adapter import float_types, is_strongly_typed
from ...runtime.engines.facts import UNREAD

# The bits of each type.
_WIDTH = {"int8": 8, "fp8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
# How TensorRT writes each type, as a regular expression. They are tried in this order, because "float" is
# also a part of "float8", "bfloat16" and "float16".
_FORMS = (
    ("fp8", r"float8|fp8|e4m3"),
    ("bf16", r"bfloat16|bf16"),
    ("fp16", r"half|fp16|float16"),
    ("fp32", r"float|fp32"),
    ("int8", r"int8"),
)


def requested_types(network: trt.INetworkDefinition, precision: str) -> dict[str, str]:
    """Return convolution → the type in which a parsed network asks to compute it.

    A convolution whose input comes from a Dequantize layer is to compute in the type that this layer reads:
    int8 or fp8. Networks of TensorRT 8.6 have no types of their own; for them the result is `precision` for
    every convolution.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantised = {
        layer.get_output(0).name: layer.get_input(0).dtype
        for layer in layers
        if layer.type == trt.LayerType.DEQUANTIZE
    }
    types = {**float_types(), trt.DataType.INT8: "int8", trt.DataType.FP8: "fp8"}
    requested = {}
    for layer in layers:
        if layer.type != trt.LayerType.CONVOLUTION:
            continue
        source = layer.get_input(0)
        if not is_strongly_typed():
            requested[layer.name] = precision
        else:
            requested[layer.name] = types.get(dequantised.get(source.name, source.dtype), UNREAD)
    return requested


def realised_types(inspected: str, convolutions: Mapping[str, str]) -> dict[str, str]:
    """Return convolution → the type in which an engine computes it.

    inspected: the inspector's JSON of the engine, at detailed verbosity. convolutions: convolution → the
    type that the graph asks for.

    Raises ValueError if this is not JSON or does not describe the layers.
    """
    layers = json.loads(inspected)["Layers"]
    if not all(isinstance(layer, dict) for layer in layers):
        raise ValueError(
            "the engine was built without detailed profiling verbosity, so its types cannot be read back"
        )
    realised = dict.fromkeys(convolutions, UNREAD)
    for layer in layers:
        nodes = _nodes(layer)
        contained = [name for name in nodes if name in realised]
        if len(contained) != 1:
            continue  # with several convolutions in a layer, it is unknown which has which type
        name = contained[0]
        layer_type = _layer_type(layer)
        # If other nodes were fused into the layer, its wider type may be that of a cast at its inputs and
        # outputs.
        if len(nodes) == 1 or not _is_wider(layer_type, convolutions[name]):
            realised[name] = _widest(realised[name], layer_type)  # another profile may have such a layer too
    return realised


def widest_types(profiles: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return convolution → its widest type in any profile, from the realised types of every profile."""
    return {name: _widest(*(types[name] for types in profiles)) for name in profiles[0]}


def wider_types(requested: Mapping[str, str], realised: Mapping[str, str]) -> dict[str, str]:
    """Return convolution → its type, for those that compute in more bits than the graph asks for.

    They are at least as accurate, but slower.
    """
    return {name: realised[name] for name, type_ in requested.items() if _is_wider(realised[name], type_)}


def counted(types: Mapping[str, str]) -> dict[str, int]:
    """Return type → the number of convolutions, the most frequent type first."""
    return dict(Counter(types.values()).most_common())


def _widest(*types: str) -> str:
    """Return the type with the most bits. A type that is not reported has none."""
    return max(types, key=lambda type_: _WIDTH.get(type_, 0))


def _is_wider(realised: str, requested: str) -> bool:
    return _WIDTH.get(realised, 0) > _WIDTH.get(requested, 64)


def _nodes(layer: Mapping[str, Any]) -> set[str]:
    """The nodes of the graph that a layer contains.

    They are in its metadata, as "[ONNX Layer: a]" for each, or else in its name, as "a + b". In an engine
    with several profiles, " [profile 1]" may be at the end of a name.
    """
    in_metadata = re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(layer.get("Metadata", "")))
    if in_metadata:
        return set(in_metadata)
    names = re.sub(r" \[profile \d+\]", "", str(layer.get("Name", "")))
    return {part.strip() for part in re.split(r" \+ |,", names)}


def _layer_type(layer: Mapping[str, Any]) -> str:
    """The type of a layer's weights. If it is not reported, the narrowest type of its inputs and outputs.

    The narrowest type is used because a cast to a wider type may have been fused into the layer.
    """
    weights = layer.get("Weights")
    if isinstance(weights, dict):
        weights_type = _type_name(weights.get("Type"))
        if weights_type != UNREAD:
            return weights_type
    tensors = [*(layer.get("Inputs") or []), *(layer.get("Outputs") or [])]
    types = {_type_name(tensor.get("Format/Datatype", tensor.get("Datatype"))) for tensor in tensors}
    return min(types - {UNREAD}, key=lambda type_: _WIDTH[type_], default=UNREAD)


def _type_name(text: object) -> str:
    """Return our name of a type that TensorRT reports.

    TensorRT writes "Half", "Channel major FP16 format where channel % 8 == 0", and so on.
    """
    for name, form in _FORMS:
        if re.search(form, str(text).lower()):
            return name
    return UNREAD
