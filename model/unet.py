"""The network of a BCM: an ADM U-Net with two time embeddings.

Modules have the names of the authors' state dict (input_blocks.3.0.in_layers.2.weight, …), so their files can
be loaded without renaming. Noise levels enter the network only through their embeddings. preconditioning.py
makes f(x, t, u) from the network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import COSINE, NetworkConfig


class TimeEmbedding(nn.Module):
    """Sinusoidal features of a warped noise level τ, in float32.

    They are [cos(τ w_k), sin(τ w_k)] with w_k = 10000^(-k / (dim/2)), for k = 0, …, dim/2 - 1.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        # device="cpu": the network may be built on the meta device, and no checkpoint contains this constant.
        exponent = torch.arange(dim // 2, dtype=torch.float32, device="cpu") / (dim // 2)
        self.register_buffer("frequencies", torch.exp(-math.log(10000) * exponent), persistent=False)

    def forward(self, tau: Tensor) -> Tensor:
        """Return the features [N, dim] of warped noise levels tau [N]."""
        angles = tau[:, None] * self.frequencies[None]  # [N, dim/2]
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class Upsample(nn.Module):
    """Upsampling by nearest neighbour and a 3×3 convolution, for networks without residual resampling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return x [N, C, H, W] at twice the resolution."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """Downsampling by a 3×3 convolution with stride 2, for networks without residual resampling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return x [N, C, H, W] at half the resolution."""
        return self.op(x)


class ResBlock(nn.Module):
    """A residual block: x + conv(SiLU(GN(conv(SiLU(GN(x))) + W SiLU(emb)))).

    resample: "up" or "down" changes the resolution on both paths; None keeps it.
    """

    def __init__(self, config: NetworkConfig, c_in: int, c_out: int, resample: str | None = None) -> None:
        super().__init__()
        self.scale_shift = config.use_scale_shift_norm
        self.resample = resample
        emb_out = 2 * c_out if self.scale_shift else c_out
        self.in_layers = nn.Sequential(
            nn.GroupNorm(config.norm_groups, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(config.embedding_channels, emb_out))
        # Index 2 is dropout in the authors' network. The placeholder keeps the name out_layers.3.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(config.norm_groups, c_out),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(c_out, c_out, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the output of the block for x [N, C, H, W] and the conditioning vector emb."""
        norm, silu, conv = self.in_layers
        h = conv(self._resampled(silu(norm(x))))
        condition = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            norm, *rest = self.out_layers
            h = norm(h) * (1 + scale) + shift
            for layer in rest:
                h = layer(h)
        else:
            h = self.out_layers(h + condition)
        return self.skip_connection(self._resampled(x)) + h


class AttentionBlock(nn.Module):
    """Self-attention over pixels.

    With config.attention "cosine", q, k and v are normalised to a root mean square of 1 per head (EDM2,
    arXiv 2312.02696). With "dot_product", they are not (ADM, arXiv 2105.05233). The channels of qkv are
    [q of all heads | k of all heads | v of all heads].
    """

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        self.heads = channels // config.num_head_channels
        self.head_channels = config.num_head_channels
        self.normalises = config.attention == COSINE
        self.norm = nn.GroupNorm(config.norm_groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return x [N, C, H, W] with attention added."""
        _, c, height, width = x.shape
        d = self.head_channels
        qkv = self.qkv(self.norm(x)).reshape(-1, 3 * self.heads, d, height * width)
        if self.normalises:
            rms = qkv.square().sum(dim=2, keepdim=True).sqrt() * (1 / math.sqrt(d))
            qkv = qkv / (rms + 1e-4)
        q, k, v = qkv.chunk(3, dim=1)  # [N, heads, d, pixels] each
        weights = torch.matmul(q.transpose(2, 3), k) * (1 / math.sqrt(d))  # cosine: logits √d cos θ
        h = torch.matmul(v, weights.softmax(dim=3).transpose(2, 3))
        return x + self.proj_out(h.reshape(-1, c, height, width))


class Stage(nn.ModuleList):
    """A sequence of blocks. Each gets the conditioning vector."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the output of the last block."""
        for block in self:
            x = block(x, emb)
        return x


class StemConv(nn.Conv2d):
    """The first convolution: 3×3 over patches of p×p pixels, with one output per patch.

    It ignores the conditioning vector.
    """

    def __init__(self, config: NetworkConfig) -> None:
        p = config.patch_size
        super().__init__(config.in_channels, config.model_channels, 3 * p, stride=p, padding=p)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        """Return one value per patch and channel."""
        return super().forward(x)


class UNet(nn.Module):
    """The raw network F(x, τ(t), τ(u), label).

    x: float32 [N, C, H, W], scaled by c_in.
    tau_t, tau_u: float32 [N], warped noise levels.
    label: int64 [N] in [0, num_classes) for a network with classes, otherwise None.

    Returns float32 [N, C, H, W].
    """

    label_emb: nn.Embedding

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        base, emb = config.model_channels, config.embedding_channels
        self.embedding = TimeEmbedding(base)
        self.time_embed = nn.Sequential(nn.Linear(base, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.time_embed_end = nn.Sequential(nn.Linear(base, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.time_embed_align = nn.Linear(2 * emb, emb, bias=False)
        if config.num_classes is not None:
            self.label_emb = nn.Embedding(config.num_classes, emb)
        self.input_blocks, skip_channels = _encoder(config)
        bottom = skip_channels[-1]
        self.middle_block = Stage(
            [
                ResBlock(config, bottom, bottom),
                AttentionBlock(config, bottom),
                ResBlock(config, bottom, bottom),
            ]
        )
        self.output_blocks = _decoder(config, skip_channels)
        patch = config.out_channels * config.patch_size**2
        self.out = nn.Sequential(
            nn.GroupNorm(config.norm_groups, base), nn.SiLU(), nn.Conv2d(base, patch, 3, padding=1)
        )

    def condition(self, tau_t: Tensor, tau_u: Tensor, label: Tensor | None) -> Tensor:
        """Return the conditioning vector [N, embedding_channels]: align([MLP_t ; MLP_u]) + the label's."""
        halves = [self.time_embed(self.embedding(tau_t)), self.time_embed_end(self.embedding(tau_u))]
        emb = self.time_embed_align(torch.cat(halves, dim=1))
        return emb if label is None else emb + self.label_emb(label)

    def forward(self, x: Tensor, tau_t: Tensor, tau_u: Tensor, label: Tensor | None = None) -> Tensor:
        """Return F(x, τ(t), τ(u), label), float32 [N, C, H, W]."""
        emb = self.condition(tau_t, tau_u, label)
        skips = []
        for stage in self.input_blocks:
            x = stage(x, emb)
            skips.append(x)
        x = self.middle_block(x, emb)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb)
        return F.pixel_shuffle(self.out(x), self.config.patch_size)


def _encoder(config: NetworkConfig) -> tuple[nn.ModuleList, list[int]]:
    """Return the input blocks, and the number of channels of each one's skip connection."""
    c = config.model_channels
    stages, skips = [Stage([StemConv(config)])], [c]
    for level, mult in enumerate(config.channel_mult):
        c_level = mult * config.model_channels
        for _ in range(config.num_res_blocks):
            stages.append(Stage([ResBlock(config, c, c_level)]))
            c = c_level
            if 2**level in config.attention_resolutions:
                stages[-1].append(AttentionBlock(config, c))
            skips.append(c)
        if level != len(config.channel_mult) - 1:
            block = ResBlock(config, c, c, "down") if config.resblock_updown else Downsample(c)
            stages.append(Stage([block]))
            skips.append(c)
    return nn.ModuleList(stages), skips


def _decoder(config: NetworkConfig, skips: list[int]) -> nn.ModuleList:
    """Return the output blocks. Each takes the encoder's skip of the same position, counted from the end."""
    skips = list(skips)
    stages: list[Stage] = []
    c = skips[-1]
    for level in reversed(range(len(config.channel_mult))):
        c_level = config.channel_mult[level] * config.model_channels
        for index in range(config.num_res_blocks + 1):
            stages.append(Stage([ResBlock(config, c + skips.pop(), c_level)]))
            c = c_level
            if 2**level in config.attention_resolutions:
                stages[-1].append(AttentionBlock(config, c))
            if level and index == config.num_res_blocks:
                block = ResBlock(config, c, c, "up") if config.resblock_updown else Upsample(c)
                stages[-1].append(block)
    return nn.ModuleList(stages)
