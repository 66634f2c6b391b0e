"""The network in torch on the GPU, against torch in float32 on the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agreement import relative_l2
from fixture_types import Cli

from bcm_edge.runtime.accuracy import BOUNDS
from bcm_edge.runtime.chain import injected_noises, start_state
from bcm_edge.runtime.checks.recording import Recording, load_recording
from bcm_edge.runtime.machine.gpu import Gpu, free_memory
from bcm_edge.runtime.machine.installed import missing_tensorrt
from bcm_edge.runtime.schedule import parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle


@pytest.fixture(scope="module")
def torch() -> Iterator[ModuleType]:
    """torch with CUDA, which computes float32 without TF32."""
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip(f"torch {module.__version__} has no CUDA here")
    previous, module.backends.cudnn.allow_tf32 = module.backends.cudnn.allow_tf32, False
    yield module
    module.backends.cudnn.allow_tf32 = previous


@pytest.fixture(scope="module")
def recording(digits_bundle: Path) -> Recording:
    """The states that torch computed on the CPU in float32."""
    return load_recording(open_bundle(digits_bundle))


@pytest.fixture(scope="module")
def model(digits_bundle: Path, torch: ModuleType) -> Any:
    """The digits model in torch."""
    from bcm_edge.export.restore import restored_model

    return restored_model(open_bundle(digits_bundle))


def worst_errors(player: Any, backend: Any, recording: Recording) -> dict[str, float]:
    """Per schedule, the largest relative L2 distance of a state from the recording at batch sizes 1, 2, 5."""
    worst: dict[str, float] = {}
    assert recording.labels is not None
    for text, states in recording.states.items():
        program = parse_schedule(text)
        for n in (1, 2, 5):
            seeds, labels = recording.seeds[:n], recording.labels[:n]
            start = start_state(program, backend, seeds).values()
            x = recording.images[:n] if program.from_image else start
            draws = injected_noises(program, backend, seeds)
            noises = [None if draw is None else draw.values() for draw in draws]
            for k in range(1, program.nfe + 1):
                state = player.play_moves(x, program.moves[:k], noises[:k], labels, every=False)[-1]
                worst[text] = max(worst.get(text, 0.0), relative_l2(state, states[k - 1, :n]))
    return worst


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_torch_on_the_gpu_is_within_the_bound(
    torch: ModuleType, players: ModuleType, model: Any, recording: Recording, precision: str
) -> None:
    from bcm_edge.model.player import TorchBackend

    rounded = players.rounded(model, torch.float16 if precision == "fp16" else torch.float32)
    worst = worst_errors(players.TorchPlayer(rounded, "cuda"), TorchBackend(model), recording)
    assert {text: error for text, error in worst.items() if error > BOUNDS[precision]} == {}


def test_driver_and_torch_report_the_same_gpu(gpu: Gpu, torch: ModuleType) -> None:
    properties = torch.cuda.get_device_properties(0)
    assert (gpu.name, gpu.capability) == (properties.name, f"{properties.major}.{properties.minor}")
    assert abs(gpu.memory - properties.total_memory) <= 1 << 20
    assert gpu.integrated == bool(getattr(properties, "is_integrated", gpu.integrated))
    assert re.fullmatch(r"\d+\.\d+", gpu.cuda)
    free = free_memory(gpu)
    assert free is not None and 0 < free < gpu.memory


def test_doctor_reports_the_gpu(cli: Cli, gpu: Gpu) -> None:
    output = " ".join(cli("doctor").output.split())
    if missing_tensorrt(gpu):
        assert "tensorrt is not installed" in output
    assert gpu.name in output
