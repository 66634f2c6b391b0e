"""Measure matrix products in the libraries that run bundles, for comparison with the speed of a network.

The library with the fastest product differs from machine to machine. So every installed library is measured,
and the fastest product counts as the peak. A product is a small graph, opened with the threads and the
settings of the library's backend. The onnx package writes the graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..backends import backend_module
from ..backends.openvino import compile_properties
from ..backends.sessions import open_serialised
from ..machine.placement import ANYWHERE, Placement
from ..wording import first_line
from .benchmark import Result, Turns

if TYPE_CHECKING:
    import onnx

MATRIX = 1024  # rows and columns of every matrix
LIBRARIES = {"onnxruntime": ("fp32", "int8"), "openvino": ("fp32", "bf16", "int8"), "torch": ("fp32",)}
COMPUTED_IN_FLOAT32 = ("onnxruntime", "fp16")  # a backend and a precision


@dataclass(frozen=True)
class Product:
    """A product of two matrices in a library."""

    library: str
    precision: str
    # Computes the product once, from float32 to float32.
    run: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Peak:
    """The speed of the fastest matrix product."""

    # 10⁹ operations per second.
    gflops: float
    library: str
    precision: str

    def __str__(self) -> str:
        return f"{self.gflops:.0f} GFLOP/s ({self.library}, {self.precision})"


def comparable(backend: str, precision: str) -> str | None:
    """Return the precision of the products that a variant is compared with; None if there are none."""
    if (backend, precision) == COMPUTED_IN_FLOAT32:
        return "fp32"
    return precision if precision in LIBRARIES.get(backend, ()) else None


def open_products(
    variants: Collection[tuple[str, str]], placement: Placement = ANYWHERE
) -> tuple[list[Product], list[str]]:
    """Return the products that variants are compared with, and why others could not be opened.

    variants: pairs of a backend and a precision. Products are opened in every library whose backend can run
    on this machine, and in torch if torch is among the variants.
    """
    precisions = {comparable(backend, precision) for backend, precision in variants} - {None}
    if not precisions:
        return [], []
    libraries = [name for name in ("onnxruntime", "openvino") if not backend_module(name).unavailable("fp32")]
    if any(backend == "torch" for backend, _ in variants):
        libraries.append("torch")
    products: list[Product] = []
    problems: list[str] = []
    for library in libraries:
        for precision in LIBRARIES[library]:
            if precision not in {"fp32", *precisions}:
                continue
            try:
                run = opened(library, precision, placement)
                run()
                products.append(Product(library, precision, run))
            except Exception as error:  # the errors of the libraries share no base class
                problems.append(f"{precision} matrix product in {library}: {first_line(error)}")
    return products, problems


def opened(library: str, precision: str, placement: Placement = ANYWHERE) -> Callable[[], np.ndarray]:
    """Return the function that computes the product once. Raises the errors of the library."""
    a = np.random.default_rng(1).normal(size=(MATRIX, MATRIX)).astype(np.float32)
    if library == "torch":
        import torch

        left, right = torch.from_numpy(a), torch.randn(MATRIX, MATRIX)
        return lambda: torch.matmul(left, right).numpy()
    model = graph(precision).SerializeToString()
    if library == "onnxruntime":
        session = open_serialised(model, Path(), placement)  # the graph has no external weights
        return lambda: np.asarray(session.run(None, {"a": a})[0])
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", compile_properties(placement))
    request = compiled.create_infer_request()
    return lambda: request.infer({"a": a}, share_inputs=True, share_outputs=True)[0]


def graph(precision: str) -> onnx.ModelProto:
    """Return the graph of y = a · b with a constant b.

    As in the graphs of a bundle, bf16 has casts at its input and output, and int8 has a quantised input and
    quantised weights.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    b = rng.normal(size=(MATRIX, MATRIX)).astype(np.float32)
    constants: dict[str, np.ndarray | np.generic] = {"b": b}
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    if precision == "bf16":
        nodes = [
            helper.make_node("Cast", ["a"], ["a bf16"], to=TensorProto.BFLOAT16),
            helper.make_node("Cast", ["b"], ["b bf16"], to=TensorProto.BFLOAT16),
            helper.make_node("MatMul", ["a bf16", "b bf16"], ["y bf16"]),
            helper.make_node("Cast", ["y bf16"], ["y"], to=TensorProto.FLOAT),
        ]
    if precision == "int8":
        # Values up to 63, because AVX2 adds two products in 16 bits.
        constants["b"] = rng.integers(-63, 64, b.shape, np.int8)
        constants |= {"scale": np.float32(1 / 32), "zero": np.int8(0)}
        nodes = [
            helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["a int8"]),
            helper.make_node("DequantizeLinear", ["a int8", "scale", "zero"], ["a rounded"]),
            helper.make_node("DequantizeLinear", ["b", "scale", "zero"], ["b float"]),
            helper.make_node("MatMul", ["a rounded", "b float"], ["y"]),
        ]
    a, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [MATRIX, MATRIX]) for name in "ay")
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    product = helper.make_graph(nodes, "product", [a], [y], initializers)
    return helper.make_model(product, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def peaks(products: Sequence[Product], turns: Sequence[Turns]) -> dict[str, Peak]:
    """Return precision → the fastest product.

    A float32 product counts for every precision, because it can replace a product in any of them.
    """
    measured = []
    for product, own_turns in zip(products, turns, strict=True):
        seconds = float(np.median(np.concatenate(own_turns)))
        measured.append(Peak(2 * MATRIX**3 / seconds / 1e9, product.library, product.precision))
    fastest = {}
    for precision in dict.fromkeys(peak.precision for peak in measured):
        eligible = [peak for peak in measured if peak.precision in (precision, "fp32")]
        fastest[precision] = max(eligible, key=lambda peak: peak.gflops)
    return fastest


def peak_for(backend: str, precision: str, peaks: Mapping[str, Peak]) -> Peak | None:
    """Return the peak that a variant is compared with; None if there is no comparable product."""
    compared = comparable(backend, precision)
    return None if compared is None else peaks.get(compared)


def without_share_above_peak(result: Result, peak: Peak | None) -> tuple[Result, str]:
    """Return the result without its share of the peak if that is above 1, and a message about it.

    A network that is faster than every product shows that none of them is a peak. The message is "" if the
    share is kept, or if operations are not counted.
    """
    if result.gflops is None or (result.of_matmul is not None and result.of_matmul <= 1):
        return result, ""
    if peak is None:
        reason = "no comparable matrix product was measured"
    else:
        reason = f"its {result.gflops:.0f} GFLOP/s are more than the fastest matrix product reached: {peak}"
    return replace(result, of_matmul=None), f"of matmul for {result} at batch {result.batch}: {reason}"
