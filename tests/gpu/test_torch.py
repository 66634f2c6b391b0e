"""The network on the GPU without engines: torch and ONNX Runtime's CUDA provider, against torch in float32 on the processor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bcm_edge.runtime.accuracy import BOUNDS
from bcm_edge.runtime.chain import injected_noises, start_state
from bcm_edge.runtime.checks.recording import Recording, load_recording
from bcm_edge.runtime.machine.gpu import Gpu, free_memory
from bcm_edge.runtime.machine.installed import missing_tensorrt
from bcm_edge.runtime.schedule import parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle

Far = Callable[[np.ndarray, np.ndarray], float]


@pytest.fixture(scope="module")
def torch() -> Iterator[ModuleType]:
    """torch with CUDA, float32 computed as float32."""
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip(f"torch {module.__version__} has no CUDA here")
    kept, module.backends.cudnn.allow_tf32 = module.backends.cudnn.allow_tf32, False
    yield module
    module.backends.cudnn.allow_tf32 = kept


@pytest.fixture(scope="module")
def recording(digits_bundle: Path) -> Recording:
    """What torch played on the processor in float32."""
    return load_recording(open_bundle(digits_bundle))


@pytest.fixture(scope="module")
def model(digits_bundle: Path, torch: ModuleType) -> Any:
    from bcm_edge.export.restore import restored_model

    return restored_model(open_bundle(digits_bundle))


def strays(player: Any, backend: Any, recording: Recording, far: Far) -> dict[str, float]:
    """Schedule → how far the state after any of its moves is from the recording, at most, at the batch sizes 1, 2 and 5."""
    worst: dict[str, float] = {}
    assert recording.labels is not None
    for text, states in recording.states.items():
        program = parse_schedule(text)
        for n in (1, 2, 5):
            seeds, labels = recording.seeds[:n], recording.labels[:n]
            x = recording.images[:n] if program.from_image else start_state(program, backend, seeds)
            noises = injected_noises(program, backend, seeds)
            for k in range(1, program.nfe + 1):
                state = player.play_moves(x, program.moves[:k], noises[:k], labels, every=False)[-1]
                worst[text] = max(worst.get(text, 0.0), far(state, states[k - 1, :n]))
    return worst


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_torch_on_the_gpu_keeps_to_the_bound(
    torch: ModuleType, players: ModuleType, model: Any, recording: Recording, far: Far, precision: str
) -> None:
    from bcm_edge.model.player import TorchBackend

    moved = players.rounded(model, torch.float16 if precision == "fp16" else torch.float32)
    worst = strays(players.TorchPlayer(moved, "cuda"), TorchBackend(model), recording, far)
    assert {text: error for text, error in worst.items() if error > BOUNDS[precision]} == {}


def test_onnxruntime_on_the_gpu_keeps_to_the_bound(
    players: ModuleType, recording: Recording, model: Any, far: Far, request: pytest.FixtureRequest
) -> None:
    from bcm_edge.model.player import TorchBackend

    if reason := players.providers()["CUDAExecutionProvider"]:
        pytest.skip(reason)
    player = players.SessionPlayer(
        open_bundle(request.getfixturevalue("typed_bundle")), "fp16", "CUDAExecutionProvider"
    )
    worst = strays(player, TorchBackend(model), recording, far)
    assert {text: error for text, error in worst.items() if error > BOUNDS["fp16"]} == {}


def test_the_driver_tells_the_same_as_torch(gpu: Gpu, torch: ModuleType) -> None:
    properties = torch.cuda.get_device_properties(0)
    assert (gpu.name, gpu.capability) == (properties.name, f"{properties.major}.{properties.minor}")
    assert abs(gpu.memory - properties.total_memory) <= 1 << 20
    assert gpu.integrated == bool(getattr(properties, "is_integrated", gpu.integrated))
    assert re.fullmatch(r"\d+\.\d+", gpu.cuda)
    free = free_memory(gpu)
    assert free is not None and 0 < free < gpu.memory


def test_the_gpu_is_told_by_doctor(cli: Callable[..., Any], gpu: Gpu) -> None:
    said = " ".join(cli("doctor").output.split())
    if missing_tensorrt(gpu):
        assert "tensorrt is not installed" in said
    assert gpu.name in said
