"""The processes of a training run on several GPUs. Each computes a part of every step; the main one writes.

torchrun and `accelerate launch` start the same command in several processes, and number them in environment
variables. accelerate connects them: with NCCL on GPUs, with Gloo on processors. All processes draw the same
random numbers and make the same optimiser steps, so only gradients and losses are exchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BackendError
from ..runtime.checks.doctor import require_extra


@dataclass(frozen=True)
class Processes:
    """The position of this process among those of its run. All methods must be called in all of them.

    A process that ends makes the methods of the others raise BackendError.
    """

    # Number of this process, from 0 to count - 1.
    index: int = 0
    count: int = 1
    # Device of torch of this process, on which tensors are exchanged.
    device: str = "cpu"

    @property
    def main(self) -> bool:
        """Whether this process prints and writes files."""
        return self.index == 0

    def sum_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place. All are exchanged at once."""
        if self.count == 1:
            return
        from accelerate.utils import reduce  # here, because it is optional

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _peers():
            sums: Tensor = reduce(flat, "sum")  # type: ignore[assignment] # the type of its argument
        for tensor, part in zip(tensors, sums.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def largest(self, number: int) -> int:
        """Return the largest of the numbers of all processes, once all have called it."""
        if self.count == 1:
            return number
        from accelerate.utils import gather  # here, because it is optional

        with _peers():
            numbers: Tensor = gather(torch.tensor([number], device=self.device))  # type: ignore[assignment]
            return int(numbers.max())

    def wait(self) -> None:
        """Return once all processes have called it."""
        self.largest(0)


ALONE = Processes()


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Connect the processes of a run during a block, if a launcher started several of this command.

    device: "cpu" or "cuda". On GPUs, process i of a machine uses its GPU i.

    Raises MissingExtraError without accelerate, BackendError for another device or fewer GPUs than processes.
    """
    if "LOCAL_RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    require_extra("accelerate", "training in several processes")
    from accelerate import PartialState  # here, because it is optional

    if device not in ("cpu", "cuda"):
        raise BackendError(f"each process has its own GPU; give --device cuda or auto, not {device}")
    gpus, number = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
    if device == "cuda" and number >= gpus:
        raise BackendError(
            f"process {number + 1} of this machine has no GPU: torch finds {gpus}; start no more processes"
        )
    state = PartialState(cpu=device == "cpu")
    try:
        own = "cpu" if device == "cpu" else str(state.device)
        yield Processes(state.process_index, state.num_processes, own)
    finally:
        state.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    """Explain the error of an exchange. Raises BackendError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).split("\n")[0]
        raise BackendError(
            f"another process of the run has ended ({reason}); continue at the saved state with --resume"
        ) from error
