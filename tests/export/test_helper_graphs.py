"""The two helper graphs of a chain on a GPU: the files in the package, and their results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from bcm_edge.export.engines import helper_graphs
from bcm_edge.runtime.pixels import from_uint8, to_uint8

FOLDER = Path(helper_graphs.__file__).parent


def run(name: str, **inputs: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of a helper graph on ONNX Runtime."""
    session = onnxruntime.InferenceSession(FOLDER / f"{name}.onnx", providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, inputs)]


@pytest.mark.parametrize(
    "model", [helper_graphs.add_noise(), helper_graphs.to_uint8()], ids=lambda model: model.graph.name
)
def test_files_are_those_that_the_code_writes(model: onnx.ModelProto):
    assert onnx.load(FOLDER / f"{model.graph.name}.onnx") == model


# These graphs compute one element at a time, in a fixed order, so every processor gives the same bits.


def test_noise_is_added():
    x, noise = np.random.default_rng(0).normal(size=(2, 3, 3, 5, 4)).astype(np.float32)
    assert np.array_equal(run("add_noise", x=x, noise=noise)[0], x + noise)


def test_pixels_are_those_of_the_runtime():
    all_pixels = from_uint8(np.arange(256, dtype=np.uint8)).reshape(1, 1, 16, 16)
    assert np.array_equal(run("to_uint8", x=all_pixels)[0].ravel(), np.arange(256))
    x = np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype(np.float32)
    pixels, total = run("to_uint8", x=x)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, to_uint8(x))
    assert np.allclose(total, x.sum(axis=(1, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_sum_of_an_image_with_nan_or_infinity_is_not_finite(bad: float):
    x = np.zeros((3, 1, 4, 4), np.float32)
    x[1, 0, 2, 3] = bad
    assert np.isfinite(run("to_uint8", x=x)[1]).tolist() == [True, False, True]
