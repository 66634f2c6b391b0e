"""The networks that benchmarks run on: the shipped model, and the ImageNet-64 network with random weights.

And two players of a network on a GPU without this package's engines: torch, and ONNX Runtime's providers. Both play whole schedules, from
arrays on the host to an array there, as `DeviceBackend.play_moves` of runtime/backends/base.py does for the last state.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from onnxruntime import InferenceSession, OrtValue

    from bcm_edge.model.preconditioning import ConsistencyModel
    from bcm_edge.runtime.bundle import Bundle
    from bcm_edge.runtime.schedule import Move

    Array = np.ndarray


def use_this_checkout() -> None:
    """Where the package is not installed, as on a machine without network, have this checkout be it, here and in child processes."""
    if importlib.util.find_spec("bcm_edge") is None:
        root = Path(__file__).resolve().parent.parent
        place = root / "build" / "here"
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "bcm_edge").exists():
            (place / "bcm_edge").symlink_to(root)
        sys.path.insert(0, str(place))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH"))))


use_this_checkout()


def prepare(folder: Path, imagenet64: bool, precisions: str = "fp32") -> tuple[Path, str, Path]:
    """(checkpoint as the authors save it, its configuration as JSON, bundle in these precisions) of the network to measure."""
    code = """
import json, sys, torch
from pathlib import Path
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint, shipped_checkpoint
from bcm_edge.model.config import NetworkConfig
from bcm_edge.model.preconditioning import ConsistencyModel
folder = Path(sys.argv[1])
if sys.argv[2] == "imagenet64":
    config = NetworkConfig(64, 3, 192, 3, 3, (4, 8), (1, 2, 3, 4), 1000, 64, resblock_updown=True, use_scale_shift_norm=False)
    checkpoint = Checkpoint("imagenet64.pt", config, ConsistencyModel(config).network.state_dict())
else:
    checkpoint = load_checkpoint(shipped_checkpoint())
torch.save(checkpoint.state_dict, folder / "checkpoint.pt")
export(ExportPlan(checkpoint, folder / "bundle", verify="none", precisions=tuple(sys.argv[3].split(","))), "0" * 64)
print(json.dumps(checkpoint.config.to_json()))
"""
    command = [sys.executable, "-c", code, str(folder), "imagenet64" if imagenet64 else "digits", precisions]
    config = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return folder / "checkpoint.pt", config, folder / "bundle"


def rounded(model: ConsistencyModel, dtype: torch.dtype) -> ConsistencyModel:
    """A copy whose network has weights and activations in `dtype`, channels last: what a torch user would time.

    The preconditioning and the sinusoids of τ, which reaches 1554, stay float32. What leaves the network is `dtype` and becomes float32 at
    its product with c_out.
    """
    import torch

    model = copy.deepcopy(model)
    for name, part in model.network.named_children():
        if name != "embedding":
            part.to(dtype=dtype, memory_format=torch.channels_last)
    model.network.embedding.register_forward_hook(lambda _module, _given, features: features.to(dtype))
    model.network.register_forward_pre_hook(lambda _module, given: (given[0].to(dtype), *given[1:]))
    return model.eval().requires_grad_(False)


class TorchPlayer:
    """A network in torch. Compiled: one CUDA graph per move, whose inputs torch copies into it."""

    def __init__(self, model: ConsistencyModel, device: str, compiled: bool = False) -> None:
        import torch

        self._model, self._on, self._compiled = model.to(device), torch.device(device), compiled
        self._levels: dict[tuple[float, int], torch.Tensor] = {}
        if compiled:
            self._model = torch.compile(self._model, mode="max-autotune", fullgraph=True, dynamic=False)

    @property
    def device(self) -> str:
        """For people; of a compiled network whether torch made a CUDA graph of it, which is known once it has played."""
        import torch
        from torch._dynamo.utils import counters

        graphs = "no CUDA graph" if self._on.type != "cuda" or counters["inductor"]["cudagraph_skips"] else "a CUDA graph per move"
        return f"{self._on}, torch {torch.__version__}" + (f", max-autotune, {graphs}" if self._compiled else "")

    def play_moves(self, x: Array, moves: Sequence[Move], noises: Sequence[Array | None], labels: Array | None, every: bool) -> Array:
        import torch

        with torch.no_grad() if self._compiled else torch.inference_mode():
            state, *added = (None if values is None else self._up(values) for values in (x, *noises))
            label = None if labels is None else self._up(labels)
            for move, noise in zip(moves, added, strict=True):
                state = state if noise is None else state + noise
                if self._compiled:  # a replay writes where the one before did; and another layout would be compiled again
                    state = state.clone(memory_format=torch.channels_last)
                state = self._model(state, self._level(move.t, len(x)), self._level(move.u, len(x)), label)
            state = state.contiguous().to("cpu", non_blocking=True)  # pinned, as `_up` has it
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


class SessionPlayer:
    """A bundle's graphs in ONNX Runtime with one of its providers. With CUDA the states stay on the GPU."""

    def __init__(self, bundle: Bundle, precision: str, provider: str) -> None:
        import bcm_edge.export.engines

        graphs = {**bundle.graphs(precision), "add_noise": Path(bcm_edge.export.engines.__path__[0]) / "add_noise.onnx"}
        self._where = "cuda" if provider == "CUDAExecutionProvider" else "cpu"
        self._sessions = {name: _session(graph, provider) for name, graph in graphs.items()}
        self.device = f"{provider}, between moves on the {'GPU' if self._where == 'cuda' else 'host'}"

    def play_moves(self, x: Array, moves: Sequence[Move], noises: Sequence[Array | None], labels: Array | None, every: bool) -> Array:
        import numpy as np

        state, label = self._up(x), {} if labels is None else {"label": self._up(labels)}
        for move, noise in zip(moves, noises, strict=True):
            inputs = {"t": self._up(np.full(len(x), move.t, np.float32)), "u": self._up(np.full(len(x), move.u, np.float32)), **label}
            if move.graph == "inverse":
                inputs["noise"] = self._up(np.zeros_like(x) if noise is None else noise)
            elif noise is not None:
                state = self._run("add_noise", {"x": state, "noise": self._up(noise)})
            state = self._run(move.graph, {"x": state, **inputs})
        return state.numpy()[None]

    def _up(self, values: Array) -> OrtValue:
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_numpy(values, self._where, 0)

    def _run(self, name: str, inputs: dict[str, OrtValue]) -> OrtValue:
        session = self._sessions[name]
        binding = session.io_binding()
        for each, value in inputs.items():
            binding.bind_ortvalue_input(each, value)
        binding.bind_output(session.get_outputs()[0].name, self._where)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]


def providers() -> list[str]:
    """What onnxruntime can play on here, with the plugin of TensorRT-RTX where that is installed."""
    import onnxruntime

    names = onnxruntime.get_available_providers()
    if importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx"):
        plugin = importlib.import_module("onnxruntime_ep_nv_tensorrt_rtx")
        onnxruntime.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
        names = [*names, *sorted({device.ep_name for device in onnxruntime.get_ep_devices()} - set(names))]
    return names


def _session(graph: Path, provider: str) -> InferenceSession:
    """Raises RuntimeError where ONNX Runtime would go on without the provider."""
    import onnxruntime

    options, built_in = onnxruntime.SessionOptions(), provider in onnxruntime.get_available_providers()
    options.log_severity_level = 3
    if not built_in:
        options.add_provider_for_devices([device for device in onnxruntime.get_ep_devices() if device.ep_name == provider], {})
    session = onnxruntime.InferenceSession(graph, options, providers=[provider] if built_in else None)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"onnxruntime cannot use its {provider} here")
    return session
