"""Feature extractors: the features of images that distances compare, among them the Inception network of FID.

The network is implemented here because the libraries that contain it (torch-fidelity, pytorch-fid,
clean-fid) import torchvision, which fails with a torch of another build. They also download the weights, or
read them with a loader that can execute code from the file. The units have the names of the published
weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CheckpointError, ImageError
from ..model.weights_files import read_weights
from ..runtime.pixels import to_uint8
from ..runtime.storage.hashes import sha256

SIZE = 299  # pixels, height and width of the network's input
BATCH = 32  # images per call: about 0.5 GB of activations
WANTED = (
    "give the FID Inception weights, the file pt_inception-2015-12-05-6726825d.pth of pytorch-fid "
    "(weights-inception-2015-12-05-6726825d.pth of torch-fidelity), or the same tensors as safetensors"
)

Kernel = int | tuple[int, int]
Shapes = Sequence[tuple[int, Kernel] | tuple[int, Kernel, int]]  # units: output channels, kernel, stride
# The two units on one input that end some branches of the last blocks.
CROSS: tuple[tuple[int, Kernel], ...] = ((384, (1, 3)), (384, (3, 1)))


class Extractor(Protocol):
    """A network that computes features of images. Similar images have features at a small distance."""

    @property
    def name(self) -> str:
        """A description of the features, for reports."""
        ...

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features, float32 [N, D], of float32 [N, C, H, W]. Values are clipped to [-1, 1]."""
        ...


class Inception:
    """The extractor of FID: pool3 of the Inception network of 2015-12-05, D = 2048.

    Images are grey or RGB, as uint8, and are resized to 299×299.
    """

    def __init__(self, network: nn.Sequential, name: str) -> None:
        self.name = name
        self._layers = network[:-1]

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features, float32 [N, 2048], of float32 [N, 1 or 3, H, W].

        Values are clipped to [-1, 1]. Raises ImageError for another number of channels.
        """
        if images.shape[1] not in (1, 3):
            raise ImageError(
                f"the Inception network takes grey or RGB images, got images of {images.shape[1]} channels"
            )
        parts = torch.from_numpy(to_uint8(images)).split(BATCH)
        return torch.cat([self._layers((_resized(part.float()) - 128) / 128) for part in parts]).numpy()


def open_inception(weights: Path) -> Inception:
    """Return the network with the weights of a .pth file or of safetensors.

    Nothing is downloaded, and nothing in the file is executed. Raises CheckpointError if the file is missing,
    contains more than tensors, or contains the tensors of another network.
    """
    try:
        content = read_weights(weights).content
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {WANTED}") from error
    with torch.device("meta"):
        network = _network()
    tensors: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
    names = _check_tensors(weights, tensors, network)
    network.load_state_dict({name: tensors[name].float() for name in names}, assign=True)
    file = f"{weights.name}, sha256 {sha256(weights)[:8]}"
    name = f"2048 pool3 activations of the FID Inception network ({file})"
    return Inception(network.eval().requires_grad_(False), name)


def _check_tensors(weights: Path, tensors: Mapping[str, Any], network: nn.Sequential) -> list[str]:
    """The names of the network's tensors. Raises CheckpointError unless the file has exactly these.

    Counters of training may be in the file; old files lack them.
    """
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    expected = [name for name in shapes if name not in counters]

    def usable(name: str) -> bool:
        tensor = tensors.get(name)
        if not isinstance(tensor, Tensor) or tensor.shape != shapes.get(name):
            return False
        return bool(tensor.isfinite().all())

    names = {*expected, *tensors} - counters
    wrong = sorted((name for name in names if name not in expected or not usable(name)), key=str)
    if wrong:
        listed = ", ".join(map(str, wrong[:3])) + (", …" if len(wrong) > 3 else "")
        raise CheckpointError(
            f"{weights}: {len(wrong)} tensors are missing, unexpected, of a wrong shape, or not finite"
            f" ({listed}); {WANTED}"
        )
    return expected


def _resized(pixels: Tensor) -> Tensor:
    """Resize float32 [N, 1 or 3, H, W] to [N, 3, 299, 299].

    Bilinear as in TensorFlow 1: pixel i is at i · H / 299.
    """
    for axis in (3, 2):
        size = pixels.shape[axis]
        places = torch.arange(SIZE, dtype=torch.float32) * torch.tensor(size / SIZE)
        low = places.long()
        share = (places - low).reshape(-1, *[1] * (3 - axis))
        below = pixels.index_select(axis, low)
        above = pixels.index_select(axis, (low + 1).clamp(max=size - 1))
        pixels = below + (above - below) * share
    return pixels.expand(-1, 3, -1, -1)


class _Unit(nn.Sequential):
    """Convolution, batch normalisation, ReLU. Units of stride 2 have no padding, others do by default."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padded: bool = True
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded and stride == 1 else 0
        convolution = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        super().__init__(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(outputs, eps=0.001), relu=nn.ReLU()))


class _Mixed(nn.Module):
    """Branches of units on one input, with their outputs concatenated. The last branch is a pooling.

    pooled: the output channels of the unit after the pooling; None for no unit. crossed: the branches that
    end in CROSS.
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
        self.paths: list[list[list[str]]] = []  # of each branch, the names of the units of each step
        for branch, shapes in branches.items():
            self.paths.append(self._add_branch(inputs, branch, shapes, branch in crossed))
        self.branch_pool = _Unit(inputs, pooled, 1) if pooled else nn.Identity()

    def _add_branch(self, inputs: int, branch: str, shapes: Shapes, crossed: bool) -> list[list[str]]:
        channels, path = inputs, []
        alone = len(shapes) == 1 and not crossed
        for step, shape in enumerate(shapes, 1):
            outputs, kernel, stride = shape if len(shape) == 3 else (*shape, 1)
            name = branch if alone else f"{branch}_{step}"
            self.add_module(name, _Unit(channels, outputs, kernel, stride))
            path.append([name])
            channels = outputs
        if crossed:
            names = [f"{branch}_{len(shapes) + 1}{letter}" for letter in "ab"]
            for name, (outputs, kernel) in zip(names, CROSS, strict=True):
                self.add_module(name, _Unit(channels, outputs, kernel))
            path.append(names)
        return path

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all branches, concatenated."""
        return torch.cat([*(self._play(path, x) for path in self.paths), self.branch_pool(self.pool(x))], 1)

    def _play(self, path: list[list[str]], x: Tensor) -> Tensor:
        for names in path:
            x = torch.cat([self.get_submodule(name)(x) for name in names], 1)
        return x


_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
# The published network has a maximum here, perhaps by mistake.
_maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_halve = partial(F.max_pool2d, kernel_size=3, stride=2)


def _fine(inputs: int, pooled: int) -> _Mixed:
    """A block on 35×35 positions."""
    branches: dict[str, Shapes] = {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
    }
    return _Mixed(inputs, branches, _average, pooled)


def _middle(channels: int) -> _Mixed:
    """A block on 17×17 positions."""
    c = channels
    branches: dict[str, Shapes] = {
        "branch1x1": [(192, 1)],
        "branch7x7": [(c, 1), (c, (1, 7)), (192, (7, 1))],
        "branch7x7dbl": [(c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))],
    }
    return _Mixed(768, branches, _average, 192)


def _coarse(inputs: int, pool: Callable[[Tensor], Tensor]) -> _Mixed:
    """A block on 8×8 positions."""
    branches: dict[str, Shapes] = {
        "branch1x1": [(320, 1)],
        "branch3x3": [(384, 1)],
        "branch3x3dbl": [(448, 1), (384, 3)],
    }
    return _Mixed(inputs, branches, pool, 192, crossed=("branch3x3", "branch3x3dbl"))


def _network() -> nn.Sequential:
    """The whole network.

    Features do not need the last layer. It distinguishes these weights from those of torchvision, which have
    1000 classes.
    """
    to_middle: dict[str, Shapes] = {
        "branch3x3": [(384, 3, 2)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)],
    }
    to_coarse: dict[str, Shapes] = {
        "branch3x3": [(192, 1), (320, 3, 2)],
        "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)],
    }
    return nn.Sequential(
        OrderedDict(
            Conv2d_1a_3x3=_Unit(3, 32, 3, stride=2),
            Conv2d_2a_3x3=_Unit(32, 32, 3, padded=False),
            Conv2d_2b_3x3=_Unit(32, 64, 3),
            MaxPool_1=nn.MaxPool2d(3, stride=2),
            Conv2d_3b_1x1=_Unit(64, 80, 1),
            Conv2d_4a_3x3=_Unit(80, 192, 3, padded=False),
            MaxPool_2=nn.MaxPool2d(3, stride=2),
            Mixed_5b=_fine(192, 32),
            Mixed_5c=_fine(256, 64),
            Mixed_5d=_fine(288, 64),
            Mixed_6a=_Mixed(288, to_middle, _halve),
            Mixed_6b=_middle(128),
            Mixed_6c=_middle(160),
            Mixed_6d=_middle(160),
            Mixed_6e=_middle(192),
            Mixed_7a=_Mixed(768, to_coarse, _halve),
            Mixed_7b=_coarse(1280, _average),
            Mixed_7c=_coarse(2048, _maximum),
            AvgPool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(2048, 1008),
        )
    )
