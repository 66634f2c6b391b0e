"""Write the layers that the parts of the network consist of: convolutions, normalisations, and others.

The arguments are those of network_graph.py: `g` is the graph, `at` the path of the module, and strings are
the names of values in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import nn

from .writer import FP32, GraphBuilder


@dataclass(frozen=True)
class Feature:
    """A feature map of shape [N, channels, size, size], in the compute type unless stated otherwise."""

    name: str
    channels: int
    size: int


def resample(g: GraphBuilder, x: Feature, direction: str | None, at: str) -> Feature:
    """Return x at twice the size ("up", nearest neighbour), the means of 2×2 pixels ("down"), or x."""
    if direction == "up":
        name = g.op(
            "Resize",
            x.name,
            "",
            g.constant([1, 1, 2, 2]),
            at=at,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return Feature(name, x.channels, 2 * x.size)
    if direction == "down":
        name = g.op("AveragePool", x.name, at=at, kernel_shape=[2, 2], strides=[2, 2])
        return Feature(name, x.channels, x.size // 2)
    return x


def conv(g: GraphBuilder, module: nn.Module, x: Feature, at: str) -> Feature:
    """A convolution with a bias, both in the compute type."""
    assert isinstance(module, nn.Conv2d) and module.bias is not None
    kernel, stride, padding = module.kernel_size[0], module.stride[0], int(module.padding[0])
    weight = g.low_weight(f"{at}.weight", module.weight)
    bias = g.low_weight(f"{at}.bias", module.bias)
    name = g.op(
        "Conv",
        x.name,
        weight,
        bias,
        at=at,
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[padding] * 4,
    )
    return Feature(name, module.out_channels, x.size // stride)


def linear(g: GraphBuilder, module: nn.Module, x: str, at: str) -> str:
    """A linear layer, in float32."""
    assert isinstance(module, nn.Linear)
    inputs = [x, g.weight(f"{at}.weight", module.weight)]
    if module.bias is not None:
        inputs.append(g.weight(f"{at}.bias", module.bias))
    return g.op("Gemm", *inputs, at=at, transB=1)


def normalised(g: GraphBuilder, module: nn.Module, x: Feature, at: str) -> str:
    """Add group normalisation without its scale and bias. The result has the type of normalisations."""
    assert isinstance(module, nn.GroupNorm)
    op = partial(g.op, at=at)
    groups = module.num_groups
    values = g.convert(x.name, g.compute, g.norms, at)
    grouped = op("Reshape", values, g.constant([0, groups, -1], np.int64))
    ones, zeros = g.norm_constant(np.ones(groups)), g.norm_constant(np.zeros(groups))
    normed = op("InstanceNormalization", grouped, ones, zeros, epsilon=module.eps)
    return op("Reshape", normed, g.constant([0, x.channels, x.size, x.size], np.int64))


def group_norm(g: GraphBuilder, module: nn.Module, x: Feature, at: str) -> str:
    """Add group normalisation with scale and bias. The result has the type of normalisations.

    It is PATH/Affine in graphs of all types.
    """
    assert isinstance(module, nn.GroupNorm)
    normed = normalised(g, module, x, at)
    in_float32 = g.compute is FP32
    per_channel = (x.channels,) if in_float32 else (x.channels, 1, 1)
    scale = g.norm_weight(f"{at}.weight", module.weight, per_channel)
    bias = g.norm_weight(f"{at}.bias", module.bias, per_channel)
    if in_float32:
        mean, variance = g.constant(np.zeros(x.channels)), g.constant(np.ones(x.channels))
        statistics = (mean, variance)
        return g.op("BatchNormalization", normed, scale, bias, *statistics, at=at, name="Affine", epsilon=0.0)
    return g.op("Add", g.op("Mul", normed, scale, at=at), bias, at=at, name="Affine")


def norm_silu(g: GraphBuilder, module: nn.Module, x: Feature, at: str) -> Feature:
    """Add the layers 0 and 1 at a path: group normalisation and SiLU. The result has the compute type."""
    return activated(g, Feature(group_norm(g, module, x, f"{at}.0"), x.channels, x.size), f"{at}.1")


def activated(g: GraphBuilder, x: Feature, at: str) -> Feature:
    """Add SiLU to a normalised feature map. The result has the compute type."""
    return Feature(g.convert(silu(g, x.name, at), g.norms, g.compute, at), x.channels, x.size)


def silu(g: GraphBuilder, x: str, at: str) -> str:
    """Add SiLU: x · sigmoid(x)."""
    return g.op("Mul", x, g.op("Sigmoid", x, at=at), at=at)


def split(g: GraphBuilder, x: str, widths: Sequence[int], at: str, axis: int = 1) -> list[str]:
    """Split x along an axis into parts of these widths."""
    first = g.op("Split", x, g.constant(widths, np.int64), at=at, outputs=len(widths), axis=axis)
    return [first, *(f"{first}:{index}" for index in range(1, len(widths)))]
