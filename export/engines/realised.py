"""In which types an engine computes its convolutions, read back from TensorRT's inspector, against the types that its graph asks for.

Only convolutions are looked at: they are what a precision is about, and they are what TensorRT keeps as layers of their own most often. One
that it fused with others, so that its type is no longer known, counts as "not reported".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import tensorrt as trt

from ...runtime.engines.adapter import float_types, is_strongly_typed
from ...runtime.engines.facts import UNREAD

_WIDTH = {"int8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
_FORMS = (
    ("bf16", r"bfloat16|bf16"),
    ("fp16", r"half|fp16|float16"),
    ("fp32", r"float|fp32"),
    ("int8", r"int8"),
)  # in this order


def requested_types(network: trt.INetworkDefinition, precision: str) -> dict[str, str]:
    """Convolution → the type it is to compute in, as a parsed network says. Between Quantize and Dequantize that is int8. Where networks
    have no types of their own (8.6), what was asked for."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantised = {layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    types = float_types()
    requested = {}
    for layer in layers:
        if layer.type == trt.LayerType.CONVOLUTION:
            source = layer.get_input(0)
            told = "int8" if source.name in dequantised else types.get(source.dtype, UNREAD)
            requested[layer.name] = told if is_strongly_typed() else precision
    return requested


def realised_types(inspected: str, convolutions: Mapping[str, str]) -> dict[str, str]:
    """Convolution → the type an engine computes it in. inspected: the inspector's JSON of the engine, at detailed verbosity.

    Raises ValueError if it is none, or says nothing of layers.
    """
    layers = json.loads(inspected)["Layers"]
    if not all(isinstance(layer, dict) for layer in layers):
        raise ValueError(
            "the engine was built without detailed profiling verbosity, so its types cannot be read back"
        )
    realised = dict.fromkeys(convolutions, UNREAD)
    for layer in layers:
        held = [name for name in _names(layer) if name in realised]
        if len(held) == 1:  # several in one layer do not tell which has which type
            kind, alone = _type(layer), len(_names(layer)) == 1
            realised[held[0]] = (
                kind if alone or not _wider(kind, convolutions[held[0]]) else UNREAD
            )  # casts fused at all its ends
    return realised


def wider_types(requested: Mapping[str, str], realised: Mapping[str, str]) -> dict[str, str]:
    """Convolution → the type it computes in, where that has more bits than the graph asks for: at least as exact, but slower."""
    return {name: realised[name] for name, kind in requested.items() if _wider(realised[name], kind)}


def _wider(kind: str, asked: str) -> bool:
    return _WIDTH.get(kind, 0) > _WIDTH.get(asked, 64)


def counted(types: Mapping[str, str]) -> dict[str, int]:
    """Type → how many convolutions, the most frequent first."""
    return dict(Counter(types.values()).most_common())


def _names(layer: Mapping[str, Any]) -> set[str]:
    """The graph's nodes in a layer: from its metadata, "[ONNX Layer: a]" for each, or from its own name, "a + b"."""
    told = re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(layer.get("Metadata", "")))
    return set(told) or {part.strip() for part in re.split(r" \+ |,", str(layer.get("Name", "")))}


def _type(layer: Mapping[str, Any]) -> str:
    """The type of a layer's weights where it tells them, else the narrowest of its ends: a cast may have been fused into it."""
    weights = layer.get("Weights")
    if isinstance(weights, dict) and (kind := _kind(weights.get("Type"))) != UNREAD:
        return kind
    ends = [*(layer.get("Inputs") or []), *(layer.get("Outputs") or [])]
    kinds = {_kind(end.get("Format/Datatype", end.get("Datatype"))) for end in ends} - {UNREAD}
    return min(kinds, key=lambda kind: _WIDTH[kind], default=UNREAD)


def _kind(words: object) -> str:
    """Our name of a type that TensorRT names, as in "Half" or "Channel major FP16 format where channel % 8 == 0"."""
    return next((kind for kind, form in _FORMS if re.search(form, str(words).lower())), UNREAD)
