"""The network in ONNX operators: one function per module class of model/, each emitting what that module's forward computes.

The layout of the network (which block follows which) is read off the torch modules, so it exists once. A class without a
function here cannot be exported and says so. Shapes are static but for the batch, which a 0 in Reshape copies.

Group normalisation is written Reshape, InstanceNormalization, Reshape, Mul, Add: ONNX Runtime has no CPU kernel
for the GroupNormalization of opset 21 and decomposes it. SiLU is x · sigmoid(x).

In a graph of 16 bits the feature maps, convolutions and attention products are of that type. Float32 stay: the preconditioning
(|c_out| reaches 79 and multiplies every error), all that hangs on t, u and label alone (250 log t needs 24 bits), normalisation
with its scale, shift and SiLU (sums over 24,576 terms), and the softmax with the norms before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import nn

from ..model.preconditioning import ConsistencyModel
from ..model.unet import AttentionBlock, Downsample, ResBlock, Stage, TimeEmbedding, UNet, Upsample
from ..runtime.schedule import SIGMA_DATA
from .writer import GraphBuilder


@dataclass(frozen=True)
class Feature:
    """A feature map [N, channels, size, size], in the type of computation unless said otherwise."""

    name: str
    channels: int
    size: int


def consistency_model(
    g: GraphBuilder, model: ConsistencyModel, x: str, t: str, u: str, label: str | None
) -> str:
    """f = c_skip x + c_out F(c_in x, τ(t), τ(u), label); the equations of model/preconditioning.py, in their order of rounding."""
    at = "preconditioning"
    sigma_d2 = g.constant(SIGMA_DATA**2)
    variance = g.op("Add", g.op("Mul", t, t, at=at), sigma_d2, at=at)
    root = g.op("Sqrt", variance, at=at)
    c_skip = g.op("Div", g.op("Add", g.op("Mul", t, u, at=at), sigma_d2, at=at), variance, at=at)
    c_out = g.op("Div", g.op("Mul", g.op("Sub", t, u, at=at), g.constant(SIGMA_DATA), at=at), root, at=at)
    c_in = g.op("Reciprocal", root, at=at)
    per_image = g.constant([-1, 1, 1, 1], np.int64)
    c_skip, c_out, c_in = (g.op("Reshape", c, per_image, at=at) for c in (c_skip, c_out, c_in))
    taus = [g.op("Mul", g.op("Log", level, at=at), g.constant(250.0), at=at) for level in (t, u)]
    scaled = g.op("Mul", c_in, x, at=at)
    output = g.full(unet(g, model.network, g.low(scaled, at), taus[0], taus[1], label), at)
    return g.op("Add", g.op("Mul", c_skip, x, at=at), g.op("Mul", c_out, output, at=at), at=at)


def unet(g: GraphBuilder, net: UNet, x: str, tau_t: str, tau_u: str, label: str | None) -> str:
    """F(x, τ(t), τ(u), label)."""
    emb = silu(
        g, condition(g, net, tau_t, tau_u, label), "condition"
    )  # every block begins with SiLU(emb): computed once
    feature = Feature(x, net.config.in_channels, net.config.image_size)
    skips = []
    for index, stage_ in enumerate(net.input_blocks):
        feature = stage(g, stage_, feature, emb, f"input_blocks.{index}")
        skips.append(feature)
    feature = stage(g, net.middle_block, feature, emb, "middle_block")
    for index, stage_ in enumerate(net.output_blocks):
        skip = skips.pop()
        joined = g.op("Concat", feature.name, skip.name, at=f"output_blocks.{index}", axis=1)
        feature = stage(
            g,
            stage_,
            Feature(joined, feature.channels + skip.channels, feature.size),
            emb,
            f"output_blocks.{index}",
        )
    norm, _, last = net.out
    patches = conv(g, last, norm_silu(g, norm, feature, "out.0"), "out.2").name
    p = net.config.patch_size
    return patches if p == 1 else g.op("DepthToSpace", patches, at="out", blocksize=p, mode="CRD")


def condition(g: GraphBuilder, net: UNet, tau_t: str, tau_u: str, label: str | None) -> str:
    halves = []
    for mlp, tau, at in (
        (net.time_embed, tau_t, "time_embed"),
        (net.time_embed_end, tau_u, "time_embed_end"),
    ):
        hidden = linear(g, mlp[0], time_embedding(g, net.embedding, tau, at), f"{at}.0")
        halves.append(linear(g, mlp[2], silu(g, hidden, f"{at}.1"), f"{at}.2"))
    emb = linear(
        g, net.time_embed_align, g.op("Concat", *halves, at="time_embed_align", axis=1), "time_embed_align"
    )
    if label is None:
        return emb
    return g.op(
        "Add",
        emb,
        g.op("Gather", g.weight("label_emb.weight", net.label_emb.weight), label, at="label_emb"),
        at="label_emb",
    )


def time_embedding(g: GraphBuilder, module: TimeEmbedding, tau: str, at: str) -> str:
    column = g.op("Reshape", tau, g.constant([-1, 1], np.int64), at=at)
    angles = g.op(
        "Mul",
        column,
        g.weight("embedding.frequencies", module.frequencies, (1, len(module.frequencies))),
        at=at,
    )
    return g.op("Concat", g.op("Cos", angles, at=at), g.op("Sin", angles, at=at), at=at, axis=1)


def stage(g: GraphBuilder, blocks: nn.Module, x: Feature, emb: str, at: str) -> Feature:
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
    raise TypeError(f"no ONNX form for {type(block).__name__} at {at}")


def res_block(g: GraphBuilder, block: ResBlock, x: Feature, emb: str, at: str) -> Feature:
    h = norm_silu(g, block.in_layers[0], x, f"{at}.in_layers.0")
    h = conv(g, block.in_layers[2], resample(g, h, block.resample, at), f"{at}.in_layers.2")
    vector = linear(g, block.emb_layers[1], emb, f"{at}.emb_layers.1")
    column = g.constant([0, -1, 1, 1], np.int64)
    if block.scale_shift:
        halves = g.op("Split", vector, at=at, outputs=2, axis=1, num_outputs=2)
        scale, shift = (g.op("Reshape", half, column, at=at) for half in (halves, f"{halves}:1"))
        normed = group_norm(g, block.out_layers[0], h, f"{at}.out_layers.0")
        scaled = g.op("Mul", normed, g.op("Add", scale, g.constant(1.0), at=at), at=at)
        h = Feature(g.low(silu(g, g.op("Add", scaled, shift, at=at), at), at), h.channels, h.size)
    else:
        conditioned = g.op("Add", h.name, g.low(g.op("Reshape", vector, column, at=at), at), at=at)
        h = norm_silu(g, block.out_layers[0], Feature(conditioned, h.channels, h.size), f"{at}.out_layers.0")
    h = conv(g, block.out_layers[3], h, f"{at}.out_layers.3")
    skip = resample(g, x, block.resample, at)
    if isinstance(block.skip_connection, nn.Conv2d):
        skip = conv(g, block.skip_connection, skip, f"{at}.skip_connection")
    return Feature(g.op("Add", skip.name, h.name, at=at), h.channels, h.size)


def attention_block(g: GraphBuilder, block: AttentionBlock, x: Feature, at: str) -> Feature:
    heads, d = block.heads, block.head_channels
    normed = Feature(g.low(group_norm(g, block.norm, x, f"{at}.norm"), at), x.channels, x.size)
    qkv = g.full(conv(g, block.qkv, normed, f"{at}.qkv").name, at)
    qkv = g.op("Reshape", qkv, g.constant([0, 3 * heads, d, x.size**2], np.int64), at=at)
    norm = g.op("ReduceL2", qkv, g.constant([2], np.int64), at=at, keepdims=1)
    divisor = g.op("Add", g.op("Mul", norm, g.constant(1 / math.sqrt(d)), at=at), g.constant(1e-4), at=at)
    q = g.op("Split", g.low(g.op("Div", qkv, divisor, at=at), at), at=at, outputs=3, axis=1, num_outputs=3)
    k, v = f"{q}:1", f"{q}:2"  # [N, heads, d, pixels] each
    logits = g.full(g.op("MatMul", g.op("Transpose", q, at=at, perm=[0, 1, 3, 2]), k, at=at), at)
    weights = g.low(
        g.op("Softmax", g.op("Mul", logits, g.constant(1 / math.sqrt(d)), at=at), at=at, axis=3), at
    )
    h = g.op("MatMul", v, g.op("Transpose", weights, at=at, perm=[0, 1, 3, 2]), at=at)
    h = g.op("Reshape", h, g.constant([0, x.channels, x.size, x.size], np.int64), at=at)
    projected = conv(g, block.proj_out, Feature(h, x.channels, x.size), f"{at}.proj_out")
    return Feature(g.op("Add", x.name, projected.name, at=at), x.channels, x.size)


def resample(g: GraphBuilder, x: Feature, direction: str | None, at: str) -> Feature:
    """Nearest-neighbour ×2 ("up"), mean of 2×2 ("down"), or nothing."""
    if direction == "up":
        twice = g.constant([1, 1, 2, 2])
        name = g.op(
            "Resize",
            x.name,
            "",
            twice,
            at=at,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return Feature(name, x.channels, 2 * x.size)
    if direction == "down":
        return Feature(
            g.op("AveragePool", x.name, at=at, kernel_shape=[2, 2], strides=[2, 2]), x.channels, x.size // 2
        )
    return x


def conv(g: GraphBuilder, module: nn.Module, x: Feature, at: str) -> Feature:
    assert isinstance(module, nn.Conv2d) and module.bias is not None
    (kernel, _), (stride, _), pad = module.kernel_size, module.stride, module.padding[0]
    inputs = [x.name, g.low_weight(f"{at}.weight", module.weight), g.low_weight(f"{at}.bias", module.bias)]
    name = g.op("Conv", *inputs, at=at, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[int(pad)] * 4)
    return Feature(name, module.out_channels, x.size // stride)


def linear(g: GraphBuilder, module: nn.Module, x: str, at: str) -> str:
    assert isinstance(module, nn.Linear)
    inputs = [x, g.weight(f"{at}.weight", module.weight)]
    if module.bias is not None:
        inputs.append(g.weight(f"{at}.bias", module.bias))
    return g.op("Gemm", *inputs, at=at, transB=1)


def group_norm(g: GraphBuilder, module: nn.Module, x: Feature, at: str) -> str:
    """The normalised feature map, in float32."""
    assert isinstance(module, nn.GroupNorm)
    groups = module.num_groups
    grouped = g.op("Reshape", g.full(x.name, at), g.constant([0, groups, -1], np.int64), at=at)
    ones, zeros = g.constant(np.ones(groups)), g.constant(np.zeros(groups))
    normed = g.op("InstanceNormalization", grouped, ones, zeros, at=at, epsilon=module.eps)
    normed = g.op("Reshape", normed, g.constant([0, x.channels, x.size, x.size], np.int64), at=at)
    scale, bias = (g.weight(f"{at}.{k}", getattr(module, k), (x.channels, 1, 1)) for k in ("weight", "bias"))
    return g.op("Add", g.op("Mul", normed, scale, at=at), bias, at=at)


def norm_silu(g: GraphBuilder, module: nn.Module, x: Feature, at: str) -> Feature:
    return Feature(g.low(silu(g, group_norm(g, module, x, at), at), at), x.channels, x.size)


def silu(g: GraphBuilder, x: str, at: str) -> str:
    return g.op("Mul", x, g.op("Sigmoid", x, at=at), at=at)
