"""The device, the CPU threads and the batch size that a caller chooses for a backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import InputError
from .gpu import parse_device
from .resources import MOST_THREADS, threads

CPU = "cpu"


@dataclass(frozen=True)
class Placement:
    """Where a backend computes. Backends get it from `open_backend`.

    Args:
        threads: CPU threads, from 1 to MOST_THREADS. None: $BCM_EDGE_THREADS, else the processors of this
            process.
        device: "cpu"; "gpu", which is the first NVIDIA GPU; or "cuda:N", the GPU with this number. None: the
            device of the backend.
        batch: the largest number of images of a network call, for backends on a GPU that prepare for it.

    Raises:
        InputError: threads or device has another value.
    """

    threads: int | None = None
    device: str | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise InputError(f"threads must be from 1 to {MOST_THREADS}, not {self.threads}")
        if self.device not in (None, CPU, "gpu"):
            if not isinstance(self.device, str):
                raise InputError(f"device must be a text such as 'cpu' or 'cuda:0', not {self.device!r}")
            try:
                parse_device(self.device)
            except InputError:
                raise InputError(
                    f"unknown device {self.device!r}; expected cpu, gpu or cuda:N, for example cuda:0"
                ) from None

    @property
    def kind(self) -> Literal["cpu", "gpu"] | None:
        """The kind of the device; None if every kind is accepted."""
        if self.device is None:
            return None
        return "cpu" if self.device == CPU else "gpu"

    @property
    def gpu(self) -> int:
        """The number of the GPU among those that CUDA_VISIBLE_DEVICES makes visible."""
        return parse_device(self.device) if self.device and self.device.startswith("cuda") else 0

    @property
    def cpu_threads(self) -> int:
        """The number of CPU threads. Raises BackendError if $BCM_EDGE_THREADS is not such a number."""
        return int(self.threads or threads())


# No device and no number of threads is specified.
ANYWHERE = Placement()
