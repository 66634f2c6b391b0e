"""How the steps of a training run are computed. The weights depend on it only by rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import BackendError, InputError
from ..model.unet import ResBlock, UNet
from .processes import ALONE, Processes

VARIANTS = 64  # variants of a block for which torch.compile makes code


@dataclass(frozen=True)
class Execution:
    """The device of a training run, and how it computes a step."""

    # "cpu", a CUDA device of torch, or "auto": CUDA if torch finds it.
    device: str = "cpu"
    # Compile the residual blocks of the network with torch.compile.
    compile: bool = False
    # Parts of a batch that a process computes one after the other, which needs less memory.
    accumulate: int = 1
    # The processes that compute each step together.
    processes: Processes = ALONE

    def torch_device(self) -> str:
        """Return the device of torch that `device` means on this machine. Raises BackendError."""
        if self.processes.count > 1:
            return self.processes.device
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.device != "cpu" and not (self.device.startswith("cuda") and torch.cuda.is_available()):
            raise BackendError(
                f"unknown device {self.device!r}: torch does not find it on this machine; use auto or cpu"
            )
        return self.device

    def part_of(self, batch: int) -> int:
        """Return the number of images that are computed at once. Raises InputError for unequal parts."""
        if self.accumulate < 1 or batch % self.accumulate:
            raise InputError(
                f"accumulate must divide the batch of {batch} images into equal parts, not {self.accumulate}"
            )
        if batch % self.parts():
            raise InputError(
                f"the batch of {batch} images must have {self.parts()} equal parts: {self.accumulate} for "
                f"each of {self.processes.count} processes"
            )
        return batch // self.parts()

    def parts(self) -> int:
        """Return the number of parts of a batch, in all processes together."""
        return self.accumulate * self.processes.count

    def prepare(self, network: UNet) -> None:
        """Compile the network in place if `compile` is set.

        Only residual blocks are compiled. The compiled gradient of the attention block is NaN in bfloat16 on
        processors (torch 2.13).

        Blocks differ in sizes, strides, and whether they need gradients. torch compiles a function for 8
        variants by default, and computes the others slowly, so the limit is raised.
        """
        if not self.compile:
            return
        config = torch._dynamo.config  # torch 2.7 renamed the limit, and keeps this name as well
        config.cache_size_limit = max(config.cache_size_limit, VARIANTS)
        for layer in network.modules():
            if isinstance(layer, ResBlock):
                layer.compile()


DEFAULT = Execution()
