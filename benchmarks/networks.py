"""The networks that benchmarks run on: the shipped model, and the ImageNet-64 network with random weights.

A player runs a network in torch: whole schedules from arrays on the host to an array on the host, as
`DeviceBackend.play_moves` of runtime/backends/base.py does for the last state.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from bcm_edge.model.preconditioning import ConsistencyModel
    from bcm_edge.runtime.schedule import Move

    Array = np.ndarray

ROOT = Path(__file__).resolve().parent.parent


def use_this_checkout() -> None:
    """Make this checkout the package bcm_edge here and in child processes, unless it is installed."""
    if importlib.util.find_spec("bcm_edge") is None:
        place = ROOT / "build" / "here"
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "bcm_edge").exists():
            (place / "bcm_edge").symlink_to(ROOT)
        sys.path.insert(0, str(place))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH"))))


use_this_checkout()


def prepare(folder: Path, imagenet64: bool, precisions: str = "fp32") -> tuple[Path, str, Path]:
    """Export the network to measure.

    Returns the checkpoint as the authors save it, its configuration as JSON, and the bundle.
    """
    code = """
import json, sys, torch
from pathlib import Path
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint, shipped_checkpoint
from bcm_edge.model.config import NetworkConfig
from bcm_edge.model.preconditioning import ConsistencyModel
folder = Path(sys.argv[1])
if sys.argv[2] == "imagenet64":
    sizes = (64, 3, 192, 3, 3, (4, 8), (1, 2, 3, 4), 1000, 64)
    config = NetworkConfig(*sizes, resblock_updown=True, use_scale_shift_norm=False)
    checkpoint = Checkpoint("imagenet64.pt", config, ConsistencyModel(config).network.state_dict())
else:
    checkpoint = load_checkpoint(shipped_checkpoint())
torch.save(checkpoint.state_dict, folder / "checkpoint.pt")
precisions = tuple(sys.argv[3].split(","))
export(ExportPlan(checkpoint, folder / "bundle", verify="none", precisions=precisions), "0" * 64)
print(json.dumps(checkpoint.config.to_json()))
"""
    command = [sys.executable, "-c", code, str(folder), "imagenet64" if imagenet64 else "digits", precisions]
    config = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return folder / "checkpoint.pt", config, folder / "bundle"


def rounded(model: ConsistencyModel, dtype: torch.dtype) -> ConsistencyModel:
    """A copy with weights and activations in `dtype`, channels last, as a torch user would run it.

    The preconditioning and the sinusoids of τ, which reaches 1554, stay float32. The output of the network is
    `dtype` and becomes float32 in its product with c_out.
    """
    import torch
    from torch.nn.utils import convert_conv2d_weight_memory_format

    model = copy.deepcopy(model)
    for name, part in model.network.named_children():
        if name != "embedding":
            convert_conv2d_weight_memory_format(part.to(dtype), torch.channels_last)
    model.network.embedding.register_forward_hook(lambda _module, _inputs, features: features.to(dtype))
    model.network.register_forward_pre_hook(lambda _module, inputs: (inputs[0].to(dtype), *inputs[1:]))
    return model.eval().requires_grad_(False)


class TorchPlayer:
    """A network in torch. Compiled, each move is one CUDA graph, into which torch copies the inputs."""

    def __init__(self, model: ConsistencyModel, device: str, compiled: bool = False) -> None:
        import torch

        model = model.to(device)
        self._on, self._compiled = torch.device(device), compiled
        self._levels: dict[tuple[float, int], torch.Tensor] = {}
        self._call: Callable[..., torch.Tensor] = model
        if compiled:
            self._call = torch.compile(model, mode="max-autotune", fullgraph=True, dynamic=False)

    @property
    def device(self) -> str:
        """The device as text. Only after the first run it shows whether torch made a CUDA graph."""
        import torch
        from torch._dynamo.utils import counters

        where = f"{self._on}, torch {torch.__version__}"
        if not self._compiled:
            return where
        has_graph = self._on.type == "cuda" and not counters["inductor"]["cudagraph_skips"]
        return f"{where}, max-autotune, {'a CUDA graph per move' if has_graph else 'no CUDA graph'}"

    def play_moves(
        self,
        x: Array,
        moves: Sequence[Move],
        noises: Sequence[Array | None],
        labels: Array | None,
        every: bool,
    ) -> Array:
        """Return the last state, as `DeviceBackend.play_moves` does without `every`."""
        import torch

        with torch.no_grad() if self._compiled else torch.inference_mode():
            state, added = self._up(x), [None if noise is None else self._up(noise) for noise in noises]
            label = None if labels is None else self._up(labels)
            for move, noise in zip(moves, added, strict=True):
                state = state if noise is None else state + noise
                if self._compiled:  # a replay overwrites its output, and another layout is compiled again
                    state = state.clone(memory_format=torch.channels_last)
                state = self._call(state, self._level(move.t, len(x)), self._level(move.u, len(x)), label)
            state = state.contiguous().to("cpu", non_blocking=True)  # pinned memory
            if self._on.type == "cuda":
                torch.cuda.synchronize()
        return state.numpy()[None]

    def _up(self, values: Array) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(values)
        if self._on.type == "cuda":
            tensor = tensor.pin_memory().to(self._on, non_blocking=True)
        return tensor.clone(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def _level(self, level: float, n: int) -> torch.Tensor:
        import torch

        if (level, n) not in self._levels:
            self._levels[level, n] = torch.full((n,), level, dtype=torch.float32, device=self._on)
        return self._levels[level, n]
