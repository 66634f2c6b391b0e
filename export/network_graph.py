"""The network as ONNX operators: one function per module class, which adds what its forward computes.

The layout of the network, that is which block follows which, is read from the torch modules, so it is
written down once. layer_graphs.py has the functions of single layers. A class without a function cannot be
exported; the error names it. All shapes are static except the batch size, which a 0 in Reshape copies.

Group normalisation is written as Reshape, InstanceNormalization, Reshape, Mul, Add, because ONNX Runtime
has no CPU kernel for the GroupNormalization of opset 21 and decomposes it. Float32 graphs, which CPUs play,
have one BatchNormalization in place of Mul and Add. 16-bit graphs, which GPUs play, have Mul and Add, which
TensorRT fuses. SiLU is x · sigmoid(x).

What depends only on t, u and the label is computed once for all residual blocks: one matrix product gives the
vectors of all of them, and one Split distributes these. Where the embedding scales and shifts a normalised
feature map, the scale and bias of the normalisation are part of this product.

Attention has the form that TensorRT fuses into one kernel: the scale is in q, the layout is [N, heads,
positions, channels of a head], and softmax(q kᵀ) v has one type.

In a 16-bit graph, feature maps, convolutions and attention have 16 bits. These parts stay float32:

- the preconditioning: |c_out| reaches 79 and multiplies every error
- the layers that depend only on t, u and the label: 250 log t needs 24 bits
- normalisation with its scale, shift and SiLU: it sums over 24,576 values. In float16 graphs, this part may
  have 16 bits, too (`norms`): devices compute the sums in float32 in any case
- the norms by which cosine attention divides

`GraphBuilder.low`, `full` and `convert` mark where a value changes its type. The arguments are the same
everywhere: `g` is the graph, `at` the path of the module, and strings are the names of values in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np
from torch import nn

from ..model.preconditioning import ConsistencyModel
from ..model.unet import AttentionBlock, Downsample, ResBlock, Stage, TimeEmbedding, UNet, Upsample
from ..runtime.schedule import SIGMA_DATA
from .layer_graphs import (
    Feature,
    activated,
    conv,
    group_norm,
    linear,
    norm_silu,
    normalised,
    resample,
    silu,
    split,
)
from .writer import FP32, GraphBuilder

# The path of a residual block → the names of its vectors.
Vectors = Mapping[str, Sequence[str]]


def consistency_model(
    g: GraphBuilder, model: ConsistencyModel, x: str, t: str, u: str, label: str | None
) -> str:
    """Add the consistency function f = c_skip x + c_out F(c_in x, τ(t), τ(u), label).

    The equations are those of model/preconditioning.py. x is divided by 1 / c_in, which is one node less.
    """
    at = "preconditioning"
    op = partial(g.op, at=at)
    per_image = g.constant([-1, 1, 1, 1], np.int64)
    t_image, u_image = op("Reshape", t, per_image), op("Reshape", u, per_image)
    sigma_d2 = g.constant(SIGMA_DATA**2)
    variance = op("Add", op("Mul", t_image, t_image), sigma_d2)
    root = op("Sqrt", variance)
    c_skip = op("Div", op("Add", op("Mul", t_image, u_image), sigma_d2), variance)
    c_out = op("Div", op("Mul", op("Sub", t_image, u_image), g.constant(SIGMA_DATA)), root)
    tau_t = op("Mul", op("Log", t), g.constant(250.0))
    tau_u = op("Mul", op("Log", u), g.constant(250.0))
    scaled = g.low(op("Div", x, root), at)
    output = g.full(unet(g, model.network, scaled, tau_t, tau_u, label), at)
    return op("Add", op("Mul", c_skip, x), op("Mul", c_out, output))


def unet(g: GraphBuilder, net: UNet, x: str, tau_t: str, tau_u: str, label: str | None) -> str:
    """Add the U-Net F(x, τ(t), τ(u), label)."""
    # Every block begins with SiLU(emb), which is computed once.
    emb = silu(g, condition(g, net, tau_t, tau_u, label), "condition")
    vectors = block_vectors(g, net, emb)
    feature = Feature(x, net.config.in_channels, net.config.image_size)
    skips = []
    for index, blocks in enumerate(net.input_blocks):
        feature = stage(g, blocks, feature, vectors, f"input_blocks.{index}")
        skips.append(feature)
    feature = stage(g, net.middle_block, feature, vectors, "middle_block")
    for index, blocks in enumerate(net.output_blocks):
        at = f"output_blocks.{index}"
        skip = skips.pop()
        joined = g.op("Concat", feature.name, skip.name, at=at, axis=1)
        feature = Feature(joined, feature.channels + skip.channels, feature.size)
        feature = stage(g, blocks, feature, vectors, at)
    norm, _, last = net.out
    patches = conv(g, last, norm_silu(g, norm, feature, "out"), "out.2").name
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


def joined_weights(net: UNet) -> dict[str, list[str]]:
    """Return the weights that are one tensor in a graph: its name → the names of its rows in a state dict.

    The rows are in the order of the residual blocks.
    """
    paths = [path for path, module in net.named_modules() if isinstance(module, ResBlock)]
    layers = ["emb_layers.1"]
    if net.config.use_scale_shift_norm:
        layers.append("out_layers.0")
    kinds = ("weight", "bias")
    return {
        f"{layer}.{kind}": [f"{path}.{layer}.{kind}" for path in paths] for layer in layers for kind in kinds
    }


def block_vectors(g: GraphBuilder, net: UNet, emb: str) -> Vectors:
    """Add what the residual blocks compute from SiLU(emb): the vectors of all blocks, by one matrix product.

    Returns the path of a block → its vectors, [N, channels, 1, 1] each, in the type of its feature map. They
    are one vector, which the block adds to its feature map, or the scale and the shift of its normalised
    feature map. The scale and bias of the normalisation are multiplied into these: in the graph, the weights
    of the product are computed from the stored weights, which runtimes do once when they load it.
    """
    at = "emb_layers.1"
    op = partial(g.op, at=at)
    blocks = {path: module for path, module in net.named_modules() if isinstance(module, ResBlock)}
    state = net.state_dict(keep_vars=True)
    weights = {
        name: g.joined_weight(name, {row: state[row] for row in rows})
        for name, rows in joined_weights(net).items()
    }
    weight, bias = weights[f"{at}.weight"], weights[f"{at}.bias"]
    widths = [cast(nn.Conv2d, block.out_layers[3]).in_channels for block in blocks.values()]
    number = g.compute
    if net.config.use_scale_shift_norm:
        # (w n + b)(1 + scale) + shift = w (1 + scale) n + (b (1 + scale) + shift), for n normalised
        pairs = [width for width in widths for _ in ("scale", "shift")]
        norm_scale, norm_bias = weights["out_layers.0.weight"], weights["out_layers.0.bias"]
        column = g.constant([-1, 1], np.int64)
        columns = op("Reshape", norm_scale, column), op("Reshape", norm_bias, column)
        scale, shift = alternating(g, weight, pairs, at)
        weight = op("Concat", *affine(g, scale, shift, *columns, at), axis=0)
        scale, shift = alternating(g, bias, pairs, at)
        scale = op("Add", scale, g.constant(1.0))
        bias = op("Concat", *affine(g, scale, shift, norm_scale, norm_bias, at), axis=0)
        widths = [*widths, *widths]
        number = g.norms
    vectors = op("Gemm", emb, weight, bias, transB=1)
    vectors = op("Reshape", vectors, g.constant([0, sum(widths), 1, 1], np.int64))
    parts = split(g, g.convert(vectors, FP32, number, at), widths, at)
    return {path: tuple(parts[index :: len(blocks)]) for index, path in enumerate(blocks)}


def alternating(g: GraphBuilder, rows: str, widths: Sequence[int], at: str) -> tuple[str, str]:
    """Join every other part of a weight, from the first and from the second on."""
    parts = split(g, rows, widths, at, axis=0)
    return g.op("Concat", *parts[::2], at=at, axis=0), g.op("Concat", *parts[1::2], at=at, axis=0)


def affine(
    g: GraphBuilder, scale: str, shift: str, norm_scale: str, norm_bias: str, at: str
) -> tuple[str, str]:
    """Add (norm_scale · scale, norm_bias · scale + shift)."""
    op = partial(g.op, at=at)
    return op("Mul", scale, norm_scale), op("Add", op("Mul", scale, norm_bias), shift)


def stage(g: GraphBuilder, blocks: nn.Module, x: Feature, vectors: Vectors, at: str) -> Feature:
    """The blocks of a stage, one after the other. vectors: those of `block_vectors`."""
    assert isinstance(blocks, Stage)
    for index, block in enumerate(blocks):
        x = _block(g, block, x, vectors, f"{at}.{index}")
    return x


def _block(g: GraphBuilder, block: nn.Module, x: Feature, vectors: Vectors, at: str) -> Feature:
    match block:
        case ResBlock():
            return res_block(g, block, x, vectors[at], at)
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


def res_block(g: GraphBuilder, block: ResBlock, x: Feature, vectors: Sequence[str], at: str) -> Feature:
    """Add two convolutions with a skip connection. vectors: those of the block, from `block_vectors`.

    Between the convolutions, the embedding scales and shifts x, or is added to x.
    """
    op = partial(g.op, at=at)
    h = norm_silu(g, block.in_layers[0], x, f"{at}.in_layers")
    h = conv(g, block.in_layers[2], resample(g, h, block.resample, at), f"{at}.in_layers.2")
    norm, layers = block.out_layers[0], f"{at}.out_layers"
    if block.scale_shift:
        scale, shift = vectors
        scaled = op("Mul", normalised(g, norm, h, f"{layers}.0"), scale)
        h = activated(g, Feature(op("Add", scaled, shift), h.channels, h.size), f"{layers}.1")
    else:
        (vector,) = vectors
        h = norm_silu(g, norm, Feature(op("Add", h.name, vector), h.channels, h.size), layers)
    h = conv(g, block.out_layers[3], h, f"{layers}.3")
    skip = resample(g, x, block.resample, at)
    if isinstance(block.skip_connection, nn.Conv2d):
        skip = conv(g, block.skip_connection, skip, f"{at}.skip_connection")
    return Feature(op("Add", skip.name, h.name), h.channels, h.size)


def attention_block(g: GraphBuilder, block: AttentionBlock, x: Feature, at: str) -> Feature:
    """Add self-attention over the pixels and a skip connection: softmax(q kᵀ / √d) v.

    Cosine attention normalises queries, keys and values. Queries are scaled before they are multiplied,
    because the range of fp16 is too small for some products.
    """
    op = partial(g.op, at=at)
    heads, d = block.heads, block.head_channels
    positions = x.size**2
    normed = group_norm(g, block.norm, x, f"{at}.norm")
    normed = g.convert(normed, g.norms, g.compute, at)
    qkv = conv(g, block.qkv, Feature(normed, x.channels, x.size), f"{at}.qkv").name
    qkv = op("Reshape", qkv, g.constant([0, 3 * heads, d, positions], np.int64))
    qkv = op("Transpose", qkv, perm=[0, 1, 3, 2])  # [N, 3 heads, positions, d]
    root = 1 / math.sqrt(d)
    if block.normalises:
        qkv = g.full(qkv, at)
        # ONNX Runtime computes these three faster than ReduceL2.
        square = op("ReduceSum", op("Mul", qkv, qkv), g.constant([3], np.int64), keepdims=1)
        norm = op("Sqrt", square)
        # The divisor of k and v is norm / √d + 1e-4, and that of q is larger by √d.
        larger = np.repeat([1 / root, 1, 1], heads).reshape(-1, 1, 1)
        divisor = op("Add", op("Mul", norm, g.constant(root * larger)), g.constant(1e-4 * larger))
        q, k, v = split(g, g.low(op("Div", qkv, divisor), at), [heads] * 3, at)
    else:
        q, k, v = split(g, qkv, [heads] * 3, at)
        q = g.low(op("Mul", g.full(q, at), g.constant(root)), at)
    weights = op("Softmax", op("MatMul", q, op("Transpose", k, perm=[0, 1, 3, 2])), axis=3)
    h = op("Transpose", op("MatMul", weights, v), perm=[0, 1, 3, 2])
    h = op("Reshape", h, g.constant([0, x.channels, x.size, x.size], np.int64))
    projected = conv(g, block.proj_out, Feature(h, x.channels, x.size), f"{at}.proj_out")
    return Feature(op("Add", x.name, projected.name), x.channels, x.size)
