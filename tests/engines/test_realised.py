"""Compute types in the JSON of TensorRT's inspector, in the forms that NVIDIA documents."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

REQUESTED = {"a/Conv": "fp16", "b/Conv": "fp16", "c/Conv": "fp16"}


@pytest.fixture
def realised(record: ModuleType) -> ModuleType:
    """bcm_edge.export.engines.realised, over the fake TensorRT."""
    from bcm_edge.export.engines import realised

    return realised


def inspected(*layers: Any) -> str:
    """The information of an engine with these layers."""
    return json.dumps({"Layers": list(layers), "Bindings": ["x", "x_u"]})


def layer(name: str, datatype: str, **more: Any) -> dict[str, Any]:
    """A layer whose input and output have this type."""
    ends = [{"Name": "t", "Location": "Device", "Dimensions": [4, 8, 8, 8], "Format/Datatype": datatype}]
    return {"Name": name, "LayerType": "CaskConvolution", "Inputs": ends, "Outputs": ends, **more}


def test_types_are_found_by_metadata_name_weights_or_format(realised: ModuleType):
    information = inspected(
        layer("__myl_Conv_1", "Half", Metadata="[ONNX Layer: a/Conv]\x1e[ONNX Layer: a/Mul]"),
        layer("b/Conv + b/Add", "Channel major FP16 format where channel % 8 == 0"),
        layer("c/Conv", "Float", Weights={"Type": "Half", "Count": 9216}),
    )
    assert realised.realised_types(information, REQUESTED) == REQUESTED


@pytest.mark.parametrize(
    ("datatype", "kind"),
    [
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("Half", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("BFloat16", "bf16"),
        ("Row major linear BF16 format", "bf16"),
        ("N/A due to dynamic shapes", "not reported"),
    ],
)
def test_names_of_types(realised: ModuleType, datatype: str, kind: str):
    assert realised.realised_types(inspected(layer("a/Conv", datatype)), {"a/Conv": "fp16"}) == {
        "a/Conv": kind
    }


def test_layer_of_several_convolutions_reports_no_type(realised: ModuleType):
    fused = layer("{ForeignNode}", "Float", Metadata="[ONNX Layer: a/Conv][ONNX Layer: b/Conv]")
    types = realised.realised_types(inspected(fused, layer("c/Conv", "Half")), REQUESTED)
    assert types == {"a/Conv": "not reported", "b/Conv": "not reported", "c/Conv": "fp16"}
    assert realised.wider_types(REQUESTED, types) == {}
    assert realised.counted(types) == {"not reported": 2, "fp16": 1}


def test_fused_cast_does_not_look_like_a_wider_type(realised: ModuleType):
    fused = layer("a/Conv", "Half")
    fused["Inputs"] = [{"Name": "x", "Format/Datatype": "Float"}]
    assert realised.realised_types(inspected(fused), {"a/Conv": "fp16"}) == {"a/Conv": "fp16"}


def test_layer_with_casts_at_all_ends_reports_no_type(realised: ModuleType):
    information = inspected(layer("a/Cast + a/Conv + a/Cast_2", "Float"), layer("b/Conv", "Float"))
    assert realised.realised_types(information, {"a/Conv": "fp16", "b/Conv": "fp16"}) == {
        "a/Conv": "not reported",
        "b/Conv": "fp32",
    }


def test_wider_types_are_those_with_more_bits_than_requested(realised: ModuleType):
    requested = {"a": "int8", "b": "fp16", "c": "fp32", "d": "bf16", "e": "fp16"}
    types = {"a": "fp16", "b": "fp32", "c": "fp16", "d": "fp16", "e": "int8"}
    assert realised.wider_types(requested, types) == {"a": "fp16", "b": "fp32"}


@pytest.mark.parametrize("information", ["", "{}", "[]", json.dumps({"Layers": ["a/Conv", "b/Conv"]})])
def test_information_without_types_is_an_error(realised: ModuleType, information: str):
    with pytest.raises((ValueError, KeyError, TypeError)):
        realised.realised_types(information, REQUESTED)
