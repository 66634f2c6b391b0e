"""Memory of the tensorrt backend on a simulated GPU: allocations, pools, pinned memory, out of memory."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from agreement import assert_images_agree
from device_schedules import IMAGE, MIXTURE

import bcm_edge
from bcm_edge.errors import BackendError
from bcm_edge.runtime.backends.base import on_device
from bcm_edge.runtime.chain import start_state
from bcm_edge.runtime.schedule import parse_schedule


def test_both_engines_share_one_scratch_allocation(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    bcm.reconstruct(np.full((1, 1, 8, 8), -1, np.float32), labels=3)
    assert record.calls.count("allocate 4096") == 1


def test_integrated_gpu_uses_pinned_memory_without_copies(
    built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    discrete = bcm_edge.load(built_bundle, "tensorrt", precision="fp16").generate(
        3, schedule=MIXTURE, labels=3
    )
    monkeypatch.setenv("FAKE_INTEGRATED", "1")
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    assert_images_agree(bcm.generate(3, schedule=MIXTURE, labels=3), discrete, "fp16")
    record.calls.clear()
    assert_images_agree(bcm.generate(3, schedule=MIXTURE, labels=3), discrete, "fp16")
    assert record.calls == ["set current", "launch", "sync"]


def test_out_of_memory_reports_the_free_memory(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.memory = record.allocated
    with pytest.raises(
        BackendError,
        match=r"playing 1 move at batch 2 on Fake Orin: "
        r"out of GPU memory \(6.00 GB free of 8.0\); play fewer",
    ):
        bcm.generate(2, labels=3)
    record.faults.memory = 1 << 30
    # The memory that was allocated before the failure is free again.
    assert bcm.generate(2, labels=3).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("message", ["Cuda Runtime (out of memory)", "CUDA_ERROR_OUT_OF_MEMORY"])
def test_out_of_memory_in_tensorrt_is_reported(built_bundle: Path, record: ModuleType, message: str):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.recorded = message
    with pytest.raises(
        BackendError, match=r"out of GPU memory \(6.00 GB free of 8.0\); play fewer images at once"
    ):
        bcm.generate(2, labels=3)


def test_old_recordings_are_removed_and_close_frees_all_memory(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    for level in range(1, 13):
        bcm.generate(1, labels=3, schedule=f"80>{level}>0.002")
    # Of twelve recordings, ten are kept: two for each of five batch sizes.
    assert record.calls.count("close graph") == 2
    bcm.close()
    assert record.calls.count("close graph") == 12
    assert record.live == {} and record.allocated == 0
    assert record.calls[-1] == "close pool"


def test_only_inputs_and_outputs_have_pinned_memory(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    bcm.generate(4, schedule=MIXTURE, labels=3)
    pinned = [
        len(memory) - record.ALIGNMENT for address, memory in record.live.items() if address in record.pinned
    ]
    # The seeds, and at the next address the labels; the last state.
    assert sorted(pinned) == [256 + 4 * 8, 4 * IMAGE]


def test_results_are_not_overwritten_by_the_next_call(built_bundle: Path, record: ModuleType):
    backend = bcm_edge.load(built_bundle, "tensorrt").backend
    assert on_device(backend)
    program, labels = parse_schedule("80>0.002"), np.array([3, 3])

    def play(seed: int) -> list[np.ndarray]:
        x = start_state(program, backend, [seed, seed + 1])
        states = backend.play_moves(x, program.moves, [None], labels, every=False)
        pixels, finite = backend.play_to_pixels(x, program.moves, [None], labels)
        return [states, pixels, finite]

    first = play(1)
    copies = [array.copy() for array in first]
    play(10)
    assert all(np.array_equal(array, copy) for array, copy in zip(first, copies, strict=True))


@pytest.mark.parametrize("fault", ["create", "allocate", "absent"])
def test_memory_is_allocated_without_a_pool_if_pools_fail(
    built_bundle: Path, record: ModuleType, fault: str, monkeypatch: pytest.MonkeyPatch
):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, labels=3)
    record.calls.clear()
    if fault == "absent":
        monkeypatch.setattr(
            importlib.import_module("cuda.core").DeviceProperties, "memory_pools_supported", False
        )
    else:
        record.faults.pool = fault
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert_images_agree(bcm.generate(2, labels=3), expected, "fp16")
    assert "cuMemAlloc 4096" in record.calls and "allocate 4096" not in record.calls
    allocations = len([call for call in record.calls if call.startswith("cuMemAlloc")])
    before = record.allocated
    bcm.close()
    assert record.calls.count("cuMemFree") == allocations and record.allocated < before


def test_other_recordings_are_removed_when_memory_runs_out(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    before = record.allocated
    expected = bcm.generate(16, seed=1, labels=3)
    bcm.generate(16, seed=1, labels=3, schedule=MIXTURE)
    record.faults.memory = before + 2 * (record.allocated - before) // 3  # not enough for a third recording
    assert np.abs(bcm.generate(16, seed=1, labels=3, schedule="80>0.002 +0.1 0.1>2>0.002").mean()) < 1
    assert record.calls.count("close graph") == 2
    assert_images_agree(bcm.generate(16, seed=1, labels=3), expected, "fp16")


def test_pool_is_kept_when_memory_runs_out(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.memory = record.allocated
    with pytest.raises(BackendError, match="out of GPU memory"):
        bcm.generate(2, labels=3)
    assert not any(call.startswith("cuMemAlloc") for call in record.calls)
