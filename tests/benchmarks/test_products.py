"""The matrix products that the speed of a network is compared with: their results, and the fastest one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from agreement import relative_l2

from bcm_edge.runtime.backends import openvino
from bcm_edge.runtime.checks import products
from bcm_edge.runtime.checks.benchmark import Result
from bcm_edge.runtime.checks.products import (
    LIBRARIES,
    Peak,
    Product,
    comparable,
    open_products,
    peak_for,
    peaks,
    without_share_above_peak,
)

ERRORS = {"fp32": 1e-5, "bf16": 1e-2, "int8": 2e-2}  # relative L2; int8 rounds a to 1/32
SIZE = 64
COMPUTED = [(name, precision) for name in ("onnxruntime", "openvino") for precision in LIBRARIES[name]]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiply small matrices."""
    monkeypatch.setattr(products, "MATRIX", SIZE)


def product(library: str, precision: str) -> Product:
    """Return a product that computes nothing."""
    return Product(library, precision, lambda: np.zeros(1))


def result(gflops: float | None, of_matmul: float | None) -> Result:
    """Return the result of int8 on openvino at batch 8."""
    times = (1.0, 1.0, 1.0, 1.0, 1.0)
    return Result("openvino", "int8", 8, "CPU", 9, *times, 1e3, 1e3, 1.0, 50.0, gflops, of_matmul)


def expected(precision: str) -> np.ndarray:
    """Return a · b in float64 for the inputs of the product."""
    a = np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32)
    initializers = products.graph(precision).graph.initializer
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in initializers}
    return a.astype(np.float64) @ (constants["b"] * constants.get("scale", np.float64(1)))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("library", "precision"), COMPUTED)
def test_every_library_computes_the_product(library: str, precision: str):
    pytest.importorskip(library)
    run = products.opened(library, precision)
    assert relative_l2(run(), expected(precision)) < ERRORS[precision]


@pytest.mark.usefixtures("small")
def test_torch_multiplies_matrices_of_the_same_size():
    assert products.opened("torch", "fp32")().shape == (SIZE, SIZE)


@pytest.mark.usefixtures("small")
def test_int8_product_is_computed_in_8_bits(tmp_path: Path):
    """ONNX Runtime replaces the float32 MatMul by one on integers."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    graph = products.graph("int8").SerializeToString()
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "MatMul" not in operators
    assert any("MatMul" in operator for operator in operators)


# Which products are measured


@pytest.mark.usefixtures("small")
def test_variants_are_compared_with_products_of_their_precision_and_of_float32():
    pytest.importorskip("openvino")
    opened, problems = open_products([("openvino", "int8")])
    assert [(p.library, p.precision) for p in opened] == [
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int8"),
        ("openvino", "fp32"),
        ("openvino", "int8"),
    ]
    assert problems == []


@pytest.mark.usefixtures("small")
def test_torch_is_measured_only_beside_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openvino, "unavailable", lambda precision, bundle=None: "openvino is not installed")
    assert [p.library for p in open_products([("onnxruntime", "fp32")])[0]] == ["onnxruntime"]
    beside_torch, _ = open_products([("onnxruntime", "fp32"), ("torch", "fp32")])
    assert [p.library for p in beside_torch] == ["onnxruntime", "torch"]


def test_no_product_is_measured_for_backends_that_are_not_comparable():
    assert open_products([("null", "fp32"), ("tensorrt", "fp16"), ("typed", "bf16")]) == ([], [])


@pytest.mark.usefixtures("small")
def test_product_that_fails_is_named_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch):
    opened = products.opened

    def failing(library: str, precision: str, *placement: Any) -> Callable[[], np.ndarray]:
        if precision == "int8":
            raise RuntimeError("no kernel\nat line 7")
        return opened(library, precision, *placement)

    monkeypatch.setattr(products, "opened", failing)
    monkeypatch.setattr(openvino, "unavailable", lambda precision, bundle=None: "openvino is not installed")
    measured, problems = open_products([("onnxruntime", "fp32"), ("onnxruntime", "int8")])
    assert [p.precision for p in measured] == ["fp32"]
    assert problems == ["int8 matrix product in onnxruntime: no kernel"]


def test_fp16_on_onnxruntime_is_computed_and_compared_in_float32():
    assert comparable("onnxruntime", "fp16") == "fp32"
    assert comparable("openvino", "bf16") == "bf16"
    assert comparable("tensorrt", "fp16") is None


# Peaks


def test_fastest_product_of_a_precision_is_its_peak(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(products, "MATRIX", 1000)  # 2·10⁹ operations
    openvinos = [product("openvino", precision) for precision in ("fp32", "int8", "bf16")]
    turns = [[[0.03], [0.02, 0.02]], [[0.04, 0.04]], [[0.005]], [[0.1]]]
    fastest = peaks([product("onnxruntime", "fp32"), *openvinos], turns)
    assert {name: str(peak) for name, peak in fastest.items()} == {
        "fp32": "100 GFLOP/s (onnxruntime, fp32)",
        "int8": "400 GFLOP/s (openvino, int8)",
        "bf16": "100 GFLOP/s (onnxruntime, fp32)",  # faster than the bfloat16 product
    }
    assert peak_for("onnxruntime", "fp16", fastest) == fastest["fp32"]
    assert peak_for("tensorrt", "fp16", fastest) is None
    assert peak_for("openvino", "int8", {}) is None


def test_network_faster_than_every_product_has_no_share_but_a_reason():
    checked, problem = without_share_above_peak(result(420.4, 1.05), Peak(400.3, "openvino", "int8"))
    assert (checked.gflops, checked.of_matmul) == (420.4, None)
    reason = "its 420 GFLOP/s are more than the fastest matrix product reached: 400 GFLOP/s (openvino, int8)"
    assert problem == f"of matmul for int8 on openvino at batch 8: {reason}"


def test_network_without_a_comparable_product_has_no_share_but_a_reason():
    checked, problem = without_share_above_peak(result(420.4, None), None)
    assert checked.of_matmul is None
    reason = "no comparable matrix product was measured"
    assert problem == f"of matmul for int8 on openvino at batch 8: {reason}"


@pytest.mark.parametrize(("gflops", "share"), [(200.0, 0.5), (400.0, 1.0), (None, None)])
def test_share_up_to_the_peak_stays(gflops: float | None, share: float | None):
    measured = result(gflops, share)
    assert without_share_above_peak(measured, Peak(400.0, "openvino", "int8")) == (measured, "")
