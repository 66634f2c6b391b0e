"""Where the features that images are compared by come from: any Extractor, among them the Inception network that FID is defined on.

The network is written out here because every library that has it (torch-fidelity, pytorch-fid, clean-fid) imports torchvision, which
fails beside a torch of another build, and reads its weights with a loader that executes what a pickle says, or downloads them. Its
units bear the names of the published weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CheckpointError, ImageError
from ..model.weights_files import read_weights
from ..runtime.pixels import to_uint8
from ..runtime.storage.hashes import sha256

SIZE = 299  # pixels, height and width that the network sees
BATCH = 32  # images at a time: about 0.5 GB of activations
WANTED = (
    "give the FID Inception weights, the file pt_inception-2015-12-05-6726825d.pth of pytorch-fid "
    "(weights-inception-2015-12-05-6726825d.pth of torch-fidelity), or the same tensors as safetensors"
)

Kernel = int | tuple[int, int]
Shapes = Sequence[tuple[int, Kernel] | tuple[int, Kernel, int]]  # of units: channels out, kernel, stride
CROSS: tuple[tuple[int, Kernel], ...] = (
    (384, (1, 3)),
    (384, (3, 1)),
)  # the two units, side by side on one input, that end a branch of the last blocks


class Extractor(Protocol):
    """Images to features whose distances mean something."""

    @property
    def name(self) -> str:
        """What the features are, for reports."""
        ...

    def features(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, C, H, W] in [-1, 1], clipped → float32 [N, D]."""
        ...


class Inception:
    """The extractor of FID: pool3 of the Inception network of 2015-12-05, D = 2048. Grey or RGB images, as uint8, resized to 299×299."""

    def __init__(self, network: nn.Sequential, name: str) -> None:
        self.name = name
        self._layers = network[:-1]

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, 1 or 3, H, W] in [-1, 1], clipped → float32 [N, 2048]. Raises ImageError for other numbers of channels."""
        if images.shape[1] not in (1, 3):
            raise ImageError(
                f"images of {images.shape[1]} channels: the Inception network takes grey ones or RGB"
            )
        parts = torch.from_numpy(to_uint8(images)).split(BATCH)
        return torch.cat([self._layers((_resized(part.float()) - 128) / 128) for part in parts]).numpy()


def open_inception(weights: Path) -> Inception:
    """The network with these weights: a .pth file or safetensors. Nothing is downloaded, and nothing in the file executed.

    Raises CheckpointError where the file is missing, holds more than tensors, or holds those of another network.
    """
    try:
        tensors = read_weights(weights).content
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {WANTED}") from error
    with torch.device("meta"):
        network = _network()
    counters = {
        name for name in network.state_dict() if name.endswith("num_batches_tracked")
    }  # of training: old files lack them
    expected = {name: tensor.shape for name, tensor in network.state_dict().items() if name not in counters}
    found = tensors if isinstance(tensors, Mapping) else {}
    usable = {
        name
        for name, t in found.items()
        if isinstance(t, Tensor) and t.shape == expected.get(name) and bool(t.isfinite().all())
    }
    if wrong := sorted((expected.keys() | found.keys()) - usable - counters, key=str):
        names = ", ".join(map(str, wrong[:3])) + (", …" if len(wrong) > 3 else "")
        raise CheckpointError(
            f"{weights}: {len(wrong)} tensors are missing, extra, misshapen or not finite ({names}); {WANTED}"
        )
    network.load_state_dict({name: found[name].float() for name in expected}, assign=True)
    name = (
        f"2048 pool3 activations of the FID Inception network ({weights.name}, sha256 {sha256(weights)[:8]})"
    )
    return Inception(network.eval().requires_grad_(False), name)


def _resized(pixels: Tensor) -> Tensor:
    """float32 [N, 1 or 3, H, W] → [N, 3, 299, 299], bilinear as TensorFlow 1 did it: pixel i of the result lies at i · H / 299."""
    for axis in (3, 2):
        size = pixels.shape[axis]
        places = torch.arange(SIZE, dtype=torch.float32) * torch.tensor(size / SIZE)
        low = places.long()
        share = (places - low).reshape(-1, *[1] * (3 - axis))
        near, far = pixels.index_select(axis, low), pixels.index_select(axis, (low + 1).clamp(max=size - 1))
        pixels = near + (far - near) * share
    return pixels.expand(-1, 3, -1, -1)


class _Unit(nn.Sequential):
    """Convolution, batch normalisation, ReLU. Units of stride 2 are not padded, others are unless told."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padded: bool = True
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded and stride == 1 else 0
        convolution = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        super().__init__(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(outputs, eps=0.001), relu=nn.ReLU()))


class _Mixed(nn.Module):
    """Branches of units on one input, concatenated; the last branch pools, into as many channels as `pooled`, or those there are.

    crossed: branches that end in CROSS.
    """

    def __init__(
        self,
        inputs: int,
        branches: Mapping[str, Shapes],
        pool: Callable[[Tensor], Tensor],
        pooled: int | None = None,
        crossed: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.pool = pool
        self.paths = []  # names of the units, step by step
        for branch, shapes in branches.items():
            channels, path = inputs, []
            alone = len(shapes) == 1 and branch not in crossed
            for step, shape in enumerate(shapes, 1):
                outputs, kernel, stride = shape if len(shape) == 3 else (*shape, 1)
                path.append([branch if alone else f"{branch}_{step}"])
                self.add_module(path[-1][0], _Unit(channels, outputs, kernel, stride))
                channels = outputs
            if branch in crossed:
                path.append([f"{branch}_{len(shapes) + 1}{letter}" for letter in "ab"])
                for name, (outputs, kernel) in zip(path[-1], CROSS, strict=True):
                    self.add_module(name, _Unit(channels, outputs, kernel))
            self.paths.append(path)
        self.branch_pool = _Unit(inputs, pooled, 1) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(self._play(path, x) for path in self.paths), self.branch_pool(self.pool(x))], 1)

    def _play(self, path: list[list[str]], x: Tensor) -> Tensor:
        for names in path:
            x = torch.cat([self.get_submodule(name)(x) for name in names], 1)
        return x


def _network() -> nn.Sequential:
    """The whole network; its last layer, which features do without, tells these weights from torchvision's, which has 1000 classes."""
    average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    maximum = partial(
        F.max_pool2d, kernel_size=3, stride=1, padding=1
    )  # as in the published network, perhaps by mistake
    halve = partial(F.max_pool2d, kernel_size=3, stride=2)
    fine: dict[str, Shapes] = {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
    }
    coarse: dict[str, Shapes] = {
        "branch1x1": [(320, 1)],
        "branch3x3": [(384, 1)],
        "branch3x3dbl": [(448, 1), (384, 3)],
    }
    crossed = ("branch3x3", "branch3x3dbl")

    def middle(c: int) -> _Mixed:
        double: Shapes = [(c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))]
        return _Mixed(
            768,
            {
                "branch1x1": [(192, 1)],
                "branch7x7": [(c, 1), (c, (1, 7)), (192, (7, 1))],
                "branch7x7dbl": double,
            },
            average,
            192,
        )

    return nn.Sequential(
        OrderedDict(
            Conv2d_1a_3x3=_Unit(3, 32, 3, stride=2),
            Conv2d_2a_3x3=_Unit(32, 32, 3, padded=False),
            Conv2d_2b_3x3=_Unit(32, 64, 3),
            MaxPool_1=nn.MaxPool2d(3, stride=2),
            Conv2d_3b_1x1=_Unit(64, 80, 1),
            Conv2d_4a_3x3=_Unit(80, 192, 3, padded=False),
            MaxPool_2=nn.MaxPool2d(3, stride=2),
            Mixed_5b=_Mixed(192, fine, average, 32),
            Mixed_5c=_Mixed(256, fine, average, 64),
            Mixed_5d=_Mixed(288, fine, average, 64),
            Mixed_6a=_Mixed(
                288, {"branch3x3": [(384, 3, 2)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)]}, halve
            ),
            Mixed_6b=middle(128),
            Mixed_6c=middle(160),
            Mixed_6d=middle(160),
            Mixed_6e=middle(192),
            Mixed_7a=_Mixed(
                768,
                {
                    "branch3x3": [(192, 1), (320, 3, 2)],
                    "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)],
                },
                halve,
            ),
            Mixed_7b=_Mixed(1280, coarse, average, 192, crossed),
            Mixed_7c=_Mixed(2048, coarse, maximum, 192, crossed),
            AvgPool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(2048, 1008),
        )
    )
