"""The variants that `bench` measures: a bundle in each precision on each backend, and in torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..runtime.backends import backend_module, open_backend, wrong_device
from ..runtime.backends.base import Backend
from ..runtime.checks import starts
from ..runtime.checks.doctor import require_extra
from ..runtime.machine.placement import ANYWHERE, Placement
from ..runtime.machine.temporary import temporary_folder
from ..runtime.schedule import Schedule
from ..runtime.storage.bundle import Bundle

# The program of a process that makes its first images with torch. PROLOGUE of runtime/checks/starts.py
# stands before it.
TORCH_FIRST_IMAGE = """
import json, torch
from bcm_edge.model.config import NetworkConfig
from bcm_edge.model.player import TorchBackend
from bcm_edge.model.preconditioning import ConsistencyModel
checkpoint, config, threads, schedule, batch = arguments
torch.set_num_threads(int(threads))
model = ConsistencyModel(NetworkConfig.from_json(json.loads(config)))
model.network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
player(TorchBackend(model), parse_schedule(schedule), int(batch))()
print(peak_mb(), flush=True)
"""


@dataclass(frozen=True)
class Variant:
    """A backend in a precision."""

    # Name of the backend, or "torch".
    name: str
    precision: str
    # Opens the backend in this process.
    open: Callable[[], Backend]
    # Returns the command of a process that makes its first images, for a schedule and a batch size.
    start: Callable[[Schedule, int], list[str]]


@dataclass(frozen=True)
class NotRun:
    """A variant that cannot run here."""

    backend: str
    precision: str
    # The batch size at which it cannot run; None if it is every size.
    batch: int | None
    reason: str


@contextmanager
def variants(
    bundle: Bundle,
    backends: Sequence[str],
    precisions: Sequence[str],
    vs: str | None,
    placement: Placement = ANYWHERE,
) -> Iterator[tuple[list[Variant], list[NotRun]]]:
    """Yield the variants that can run here, backend by backend, and those that cannot.

    vs: "torch" to add the torch network, on the CPU.
    Raises BundleError for a precision that the bundle does not have.
    """
    runnable: list[Variant] = []
    not_run: list[NotRun] = []
    for name in backends:
        for precision in precisions:
            bundle.graphs(precision)
            unavailable = backend_module(name).unavailable
            if reason := wrong_device(name, placement) or unavailable(precision, None, placement):
                not_run.append(NotRun(name, precision, None, reason))
            else:
                runnable.append(_bundle_variant(bundle, name, precision, placement))
    if vs is None:
        yield runnable, not_run
        return
    require_extra("export")
    with temporary_folder() as folder:
        yield [*runnable, _torch_variant(bundle, folder, placement)], not_run


def _bundle_variant(bundle: Bundle, name: str, precision: str, placement: Placement) -> Variant:
    def start(schedule: Schedule, batch: int) -> list[str]:
        placed = (placement.threads or "", placement.device or "")
        options = (bundle.path, name, precision, *placed, schedule, batch)
        return starts.start_command(starts.FIRST_IMAGE, *options)

    return Variant(name, precision, lambda: open_backend(name, bundle, precision, placement), start)


def _torch_variant(bundle: Bundle, folder: Path, placement: Placement) -> Variant:
    """Return the bundle's weights in torch.

    For its first images they are saved as a checkpoint, which is what users of torch load.
    """
    import torch

    from ..export.restore import restored_model
    from ..model.player import TorchBackend

    threads = placement.cpu_threads
    torch.set_num_threads(threads)
    model = restored_model(bundle)
    checkpoint = folder / "checkpoint.pt"
    torch.save(model.network.state_dict(), checkpoint)

    def start(schedule: Schedule, batch: int) -> list[str]:
        config = json.dumps(model.config.to_json())
        return starts.start_command(TORCH_FIRST_IMAGE, checkpoint, config, threads, schedule, batch)

    return Variant("torch", "fp32", lambda: TorchBackend(model), start)
