"""The network as ONNX operators: one function per module class, which adds what its forward computes.

The layout of the network, that is which block follows which, is read from the torch modules, so it is
written down once. A class without a function here cannot be exported; the error names it. All shapes are
static except the batch size, which a 0 in Reshape copies.

Group normalisation is written as Reshape, InstanceNormalization, Reshape, Mul, Add, because ONNX Runtime
has no CPU kernel for the GroupNormalization of opset 21 and decomposes it. SiLU is x · sigmoid(x).

In a 16-bit graph, feature maps, convolutions and attention products have 16 bits. These parts stay float32:

- the preconditioning: |c_out| reaches 79 and multiplies every error
- the layers that depend only on t, u and the label: 250 log t needs 24 bits
- normalisation with its scale, shift and SiLU: it sums over 24,576 values
- the softmax and the norms before it

`GraphBuilder.low` and `full` mark where a value changes its type. The arguments are the same everywhere:
`g` is the graph, `at` the path of the module, and strings are the names of values in the graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import nn

from ..model.preconditioning import ConsistencyModel
from ..model.unet import AttentionBlock, Downsample, ResBlock, Stage, TimeEmbedding, UNet, Upsample
from ..runtime.schedule import SIGMA_DATA
from .writer import GraphBuilder


@dataclass(frozen=True)
class Feature:
    """A feature map of shape [N, channels, size, size], in the compute type unless stated otherwise."""

    name: str
    channels: int
    size: int


def consistency_model(
    g: GraphBuilder, model: ConsistencyModel, x: str, t: str, u: str, label: str | None
) -> str:
    """Add the consistency function f = c_skip x + c_out F(c_in x, τ(t), τ(u), label).

    The equations are those of model/preconditioning.py, in the same order, so that they round equally.
    """
    at = "preconditioning"
    op = partial(g.op, at=at)
    sigma_d2 = g.constant(SIGMA_DATA**2)
    variance = op("Add", op("Mul", t, t), sigma_d2)
    root = op("Sqrt", variance)
    c_skip = op("Div", op("Add", op("Mul", t, u), sigma_d2), variance)
    c_out = op("Div", op("Mul", op("Sub", t, u), g.constant(SIGMA_DATA)), root)
    c_in = op("Reciprocal", root)
    per_image = g.constant([-1, 1, 1, 1], np.int64)
    c_skip = op("Reshape", c_skip, per_image)
    c_out = op("Reshape", c_out, per_image)
    c_in = op("Reshape", c_in, per_image)
    tau_t = op("Mul", op("Log", t), g.constant(250.0))
    tau_u = op("Mul", op("Log", u), g.constant(250.0))
    scaled = g.low(op("Mul", c_in, x), at)
    output = g.full(unet(g, model.network, scaled, tau_t, tau_u, label), at)
    return op("Add", op("Mul", c_skip, x), op("Mul", c_out, output))


def unet(g: GraphBuilder, net: UNet, x: str, tau_t: str, tau_u: str, label: str | None) -> str:
    """Add the U-Net F(x, τ(t), τ(u), label)."""
    # Every block begins with SiLU(emb), which is computed once.
    emb = silu(g, condition(g, net, tau_t, tau_u, label), "condition")
    feature = Feature(x, net.config.in_channels, net.config.image_size)
    skips = []
    for index, blocks in enumerate(net.input_blocks):
        feature = stage(g, blocks, feature, emb, f"input_blocks.{index}")
        skips.append(feature)
    feature = stage(g, net.middle_block, feature, emb, "middle_block")
    for index, blocks in enumerate(net.output_blocks):
        at = f"output_blocks.{index}"
        skip = skips.pop()
        joined = g.op("Concat", feature.name, skip.name, at=at, axis=1)
        feature = Feature(joined, feature.channels + skip.channels, feature.size)
        feature = stage(g, blocks, feature, emb, at)
    norm, _, last = net.out
    patches = conv(g, last, norm_silu(g, norm, feature, "out.0"), "out.2").name
    patch_size = net.config.patch_size
    if patch_size == 1:
        return patches
    return g.op("DepthToSpace", patches, at="out", blocksize=patch_size, mode="CRD")


def condition(g: GraphBuilder, net: UNet, tau_t: str, tau_u: str, label: str | None) -> str:
    """The embedding of both levels and the label, a vector per sample."""
    embeddings = []
    for mlp, tau, at in (
        (net.time_embed, tau_t, "time_embed"),
        (net.time_embed_end, tau_u, "time_embed_end"),
    ):
        hidden = linear(g, mlp[0], time_embedding(g, net.embedding, tau, at), f"{at}.0")
        hidden = silu(g, hidden, f"{at}.1")
        embeddings.append(linear(g, mlp[2], hidden, f"{at}.2"))
    at = "time_embed_align"
    emb = linear(g, net.time_embed_align, g.op("Concat", *embeddings, at=at, axis=1), at)
    if label is None:
        return emb
    table = g.weight("label_emb.weight", net.label_emb.weight)
    row = g.op("Gather", table, label, at="label_emb")
    return g.op("Add", emb, row, at="label_emb")


def time_embedding(g: GraphBuilder, module: TimeEmbedding, tau: str, at: str) -> str:
    """Add the cosines and sines of a level."""
    column = g.op("Reshape", tau, g.constant([-1, 1], np.int64), at=at)
    frequencies = g.weight("embedding.frequencies", module.frequencies, (1, len(module.frequencies)))
    angles = g.op("Mul", column, frequencies, at=at)
    return g.op("Concat", g.op("Cos", angles, at=at), g.op("Sin", angles, at=at), at=at, axis=1)


def stage(g: GraphBuilder, blocks: nn.Module, x: Feature, emb: str, at: str) -> Feature:
    """The blocks of a stage, one after the other. emb: SiLU of the embedding."""
    assert isinstance(blocks, Stage)
    for index, block in enumerate(blocks):
        x = _block(g, block, x, emb, f"{at}.{index}")
    return x


def _block(g: GraphBuilder, block: nn.Module, x: Feature, emb: str, at: str) -> Feature:
    match block:
        case ResBlock():
            return res_block(g, block, x, emb, at)
        case AttentionBlock():
            return attention_block(g, block, x, at)
        case Upsample():
            return conv(g, block.conv, resample(g, x, "up", at), f"{at}.conv")
        case Downsample():
            return conv(g, block.op, x, f"{at}.op")
        case nn.Conv2d():
            return conv(g, block, x, at)
    raise TypeError(
        f"{type(block).__name__} at {at} cannot be exported: network_graph.py has no function for it"
    )


def res_block(g: GraphBuilder, block: ResBlock, x: Feature, emb: str, at: str) -> Feature:
    """Add two convolutions with a skip connection. Between them, the embedding scales and shifts x, or is
    added to x.
    """
    op = partial(g.op, at=at)
    h = norm_silu(g, block.in_layers[0], x, f"{at}.in_layers.0")
    h = conv(g, block.in_layers[2], resample(g, h, block.resample, at), f"{at}.in_layers.2")
    vector = linear(g, block.emb_layers[1], emb, f"{at}.emb_layers.1")
    column = g.constant([0, -1, 1, 1], np.int64)
    if block.scale_shift:
        scale = op("Split", vector, outputs=2, axis=1, num_outputs=2)
        shift = f"{scale}:1"
        scale, shift = op("Reshape", scale, column), op("Reshape", shift, column)
        normed = group_norm(g, block.out_layers[0], h, f"{at}.out_layers.0")
        scaled = op("Mul", normed, op("Add", scale, g.constant(1.0)))
        activated = silu(g, op("Add", scaled, shift), at)
        h = Feature(g.low(activated, at), h.channels, h.size)
    else:
        conditioned = op("Add", h.name, g.low(op("Reshape", vector, column), at))
        h = norm_silu(g, block.out_layers[0], Feature(conditioned, h.channels, h.size), f"{at}.out_layers.0")
    h = conv(g, block.out_layers[3], h, f"{at}.out_layers.3")
    skip = resample(g, x, block.resample, at)
    if isinstance(block.skip_connection, nn.Conv2d):
        skip = conv(g, block.skip_connection, skip, f"{at}.skip_connection")
    return Feature(op("Add", skip.name, h.name), h.channels, h.size)


def attention_block(g: GraphBuilder, block: AttentionBlock, x: Feature, at: str) -> Feature:
    """Add self-attention over the pixels and a skip connection.

    Cosine attention normalises queries, keys and values. Otherwise queries and keys are scaled before they
    are multiplied, because the range of fp16 is too small for some products.
    """
    op = partial(g.op, at=at)
    heads, d = block.heads, block.head_channels
    normed = Feature(g.low(group_norm(g, block.norm, x, f"{at}.norm"), at), x.channels, x.size)
    qkv = g.full(conv(g, block.qkv, normed, f"{at}.qkv").name, at)
    qkv = op("Reshape", qkv, g.constant([0, 3 * heads, d, x.size**2], np.int64))
    scale = g.constant(1 / math.sqrt(d))
    if block.normalises:
        norm = op("ReduceL2", qkv, g.constant([2], np.int64), keepdims=1)
        divisor = op("Add", op("Mul", norm, scale), g.constant(1e-4))
        q = op("Split", g.low(op("Div", qkv, divisor), at), outputs=3, axis=1, num_outputs=3)
        k, v = f"{q}:1", f"{q}:2"  # [N, heads, d, pixels] each
        logits = op("Mul", g.full(op("MatMul", op("Transpose", q, perm=[0, 1, 3, 2]), k), at), scale)
    else:
        q = op("Split", qkv, outputs=3, axis=1, num_outputs=3)
        root = g.constant(d**-0.25)
        q, k, v = g.low(op("Mul", q, root), at), g.low(op("Mul", f"{q}:1", root), at), g.low(f"{q}:2", at)
        logits = g.full(op("MatMul", op("Transpose", q, perm=[0, 1, 3, 2]), k), at)
    weights = g.low(op("Softmax", logits, axis=3), at)
    h = op("MatMul", v, op("Transpose", weights, perm=[0, 1, 3, 2]))
    h = op("Reshape", h, g.constant([0, x.channels, x.size, x.size], np.int64))
    projected = conv(g, block.proj_out, Feature(h, x.channels, x.size), f"{at}.proj_out")
    return Feature(op("Add", x.name, projected.name), x.channels, x.size)


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


def group_norm(g: GraphBuilder, module: nn.Module, x: Feature, at: str) -> str:
    """Add group normalisation with scale and bias. The result is float32."""
    assert isinstance(module, nn.GroupNorm)
    op = partial(g.op, at=at)
    groups = module.num_groups
    grouped = op("Reshape", g.full(x.name, at), g.constant([0, groups, -1], np.int64))
    ones, zeros = g.constant(np.ones(groups)), g.constant(np.zeros(groups))
    normed = op("InstanceNormalization", grouped, ones, zeros, epsilon=module.eps)
    normed = op("Reshape", normed, g.constant([0, x.channels, x.size, x.size], np.int64))
    per_channel = (x.channels, 1, 1)
    scale = g.weight(f"{at}.weight", module.weight, per_channel)
    bias = g.weight(f"{at}.bias", module.bias, per_channel)
    return op("Add", op("Mul", normed, scale), bias)


def norm_silu(g: GraphBuilder, module: nn.Module, x: Feature, at: str) -> Feature:
    """Add group normalisation and SiLU in float32. The result has the compute type."""
    activated = silu(g, group_norm(g, module, x, at), at)
    return Feature(g.low(activated, at), x.channels, x.size)


def silu(g: GraphBuilder, x: str, at: str) -> str:
    """Add SiLU: x · sigmoid(x)."""
    return g.op("Mul", x, g.op("Sigmoid", x, at=at), at=at)
