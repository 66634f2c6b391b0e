"""Recordings and memory of the tensorrt backend, over a GPU that is not there: what is recorded, when it is trusted, what is allocated."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from agreement import assert_images_agree

import bcm_edge
from bcm_edge.errors import BackendError, NonFiniteError
from bcm_edge.runtime.backends.base import DeviceBackend
from bcm_edge.runtime.backends.tensorrt import batch_sizes
from bcm_edge.runtime.chain import start_state
from bcm_edge.runtime.schedule import parse_schedule

IMAGE = 4 * 8 * 8  # bytes of one float32 image
MIXTURE = "80>3>0.002 +0.12 0.12>0.4>0.002"
RENOISING = (
    "80>0.002 +2.4 2.4>0.002"  # noise before a move towards the image, whose graph has no addition in it
)


def test_a_projection_parts_the_schedule_where_it_comes_back_to_the_image(
    built_bundle: Path, record: ModuleType
):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    hole = np.eye(8)
    seen: list[int] = []
    for _ in range(2):  # the first records
        record.calls.clear()
        bcm.inpaint(
            np.full((2, 1, 8, 8), -1, np.float32), hole, labels=3, schedule="80>0.002 +0.2 0.2>1>0.002"
        )
    assert (
        record.calls.count("launch") == 2 and record.calls.count(f"download {2 * IMAGE}") == 2
    )  # 80>0.002, and the two moves behind it
    bcm.inpaint(
        np.full((2, 1, 8, 8), -1, np.float32),
        hole,
        labels=3,
        schedule=MIXTURE,
        on_move=lambda index, *_: seen.append(index),
    )
    assert seen == [0, 1, 2, 3]


def test_a_schedule_is_one_upload_one_graph_and_one_download(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    bcm.generate(4, schedule=MIXTURE, labels=3)
    record.calls.clear()
    bcm.generate(4, schedule=MIXTURE, labels=[1, 2, 3, 4], seed=9)
    inputs = 4 * IMAGE + 4 * IMAGE + 4 * 8  # the start, the noise of the injection, the labels
    assert record.calls == ["set current", f"upload {inputs}", "launch", f"download {4 * IMAGE}", "sync"]


def test_a_graph_is_recorded_once_after_a_run_of_its_engines(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    bcm.generate(2, schedule="80>2.4>0.002", labels=3)
    work = [call for call in record.calls if call.split()[0] in ("execute", "begin", "end", "launch", "sync")]
    move = "execute forward 2"
    assert work == [
        move,
        move,
        "sync",
        "begin recording",
        move,
        move,
        "end recording",
        "launch",
        "sync",
        "launch",
        "sync",
    ]
    bcm.generate(2, schedule="80>2.4>0.002", labels=4)
    assert record.calls.count("begin recording") == 1
    bcm.generate(4, schedule="80>2.4>0.002", labels=4)
    bcm.generate(2, schedule="80>1.5>0.002", labels=4)
    assert record.calls.count("begin recording") == 3  # one per schedule and batch size
    assert bcm.backend.device.endswith("one CUDA graph per schedule")  # each recorded in contexts of its own


def test_noise_before_a_move_down_is_added_on_the_device(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    bcm.generate(2, schedule=RENOISING, labels=3)
    executed = [call for call in record.calls if call.startswith("execute")]
    assert executed[:3] == ["execute forward 2", "execute add_noise 2", "execute forward 2"]


def test_whoever_watches_sees_the_states_of_the_graph(built_bundle: Path, record: ModuleType):
    seen: dict[str, list[np.ndarray]] = {"tensorrt": [], "onnxruntime": []}
    for name, states in seen.items():
        bcm_edge.load(built_bundle, name, precision="fp32").generate(
            3, schedule=MIXTURE, labels=3, on_move=lambda _i, _m, x, s=states: s.append(x)
        )
    assert [len(states) for states in seen.values()] == [4, 4]
    assert all(np.abs(ours - theirs).max() <= 1e-4 for ours, theirs in zip(*seen.values(), strict=True))
    every_state = [
        "launch",
        f"download {3 * 4 * IMAGE}",
        f"download {4 * IMAGE}",
        "sync",
    ]  # of four images: three and one repeated
    assert record.calls[-4:] == every_state


def test_both_engines_compute_in_one_scratch_allocation(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    bcm.reconstruct(np.full((1, 1, 8, 8), -1, np.float32), labels=3)
    assert record.calls.count("allocate 4096") == 1


def test_an_integrated_gpu_works_on_pinned_memory_and_copies_nothing(
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


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refused", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        ("invalidated", "TensorRT does not run forward at batch 2"),
    ],
)
def test_what_cannot_be_recorded_is_played_one_by_one_and_says_so(
    built_bundle: Path, record: ModuleType, fault: str, reason: str
):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, schedule=MIXTURE, labels=3)
    record.faults.capture = fault
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert_images_agree(bcm.generate(2, schedule=MIXTURE, labels=3), expected, "fp16")
    assert_images_agree(bcm.generate(2, schedule=MIXTURE, labels=3), expected, "fp16")
    assert f"one by one: no CUDA graph: {reason}" in bcm.backend.device


def test_a_recording_that_cannot_be_launched_is_played_one_by_one(built_bundle: Path, record: ModuleType):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, schedule=MIXTURE, labels=3)
    record.faults.launch = True
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert_images_agree(bcm.generate(2, schedule=MIXTURE, labels=3), expected, "fp16")
    assert "one by one: no CUDA graph: CUDA_ERROR_LAUNCH_FAILED" in bcm.backend.device


def test_after_a_failed_recording_the_engines_run_in_new_contexts(built_bundle: Path, record: ModuleType):
    record.faults.capture = "invalidated"
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    bcm.generate(2, labels=3)
    begun = record.calls.index("begin recording")
    assert record.calls[begun:][1:5] == ["execute forward 2", "sync", "context forward", "execute forward 2"]


def test_an_interrupted_recording_is_made_again_in_new_contexts(
    built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    builder = importlib.import_module("cuda.core").GraphBuilder

    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builder, "end_building", interrupt)
        with pytest.raises(KeyboardInterrupt):
            bcm.generate(2, labels=3)
    assert bcm.generate(2, labels=3).shape == (2, 1, 8, 8)
    assert record.calls.count("context forward") == 2
    assert bcm.backend.device.endswith("one CUDA graph per schedule")


def test_nothing_is_collected_while_a_graph_is_recorded(
    built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """A collection may free GPU memory of objects that were dropped, which breaks the recording."""
    collecting: list[bool] = []
    core = importlib.import_module("cuda.core")
    real = core.GraphBuilder.end_building
    monkeypatch.setattr(
        core.GraphBuilder, "end_building", lambda self: (collecting.append(gc.isenabled()), real(self))[1]
    )
    bcm_edge.load(built_bundle, "tensorrt").generate(2, labels=3)
    assert collecting == [False] and gc.isenabled()


@pytest.mark.parametrize("schedule", ["80>0.002", MIXTURE])
def test_a_recording_that_lacks_a_move_is_not_used(built_bundle: Path, record: ModuleType, schedule: str):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, schedule=schedule, labels=3)
    record.faults.stale_graph = True
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert_images_agree(bcm.generate(2, schedule=schedule, labels=3), expected, "fp16")
    assert "gave other images than its engines" in bcm.backend.device


def test_running_out_of_memory_says_what_is_free_and_what_helps(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.memory = record.allocated
    with pytest.raises(
        BackendError,
        match=r"playing 1 moves at batch 2 on Fake Orin: out of GPU memory \(6.00 GB free of 8.0\); play fewer",
    ):
        bcm.generate(2, labels=3)
    record.faults.memory = 1 << 30
    assert bcm.generate(2, labels=3).shape == (
        2,
        1,
        8,
        8,
    )  # what had been allocated before it failed is free again


def test_a_first_request_that_fails_does_not_vouch_for_a_recording(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp32")
    record.faults.stale_graph = True
    with pytest.raises(NonFiniteError):
        bcm.generate(latents=np.full((2, 1, 8, 8), 1e36, np.float32), schedule="80>2.4>0.002", labels=3)
    assert np.isfinite(bcm.generate(2, schedule="80>2.4>0.002", labels=3)).all()
    assert "gave other images than its engines" in bcm.backend.device


def test_one_wrong_image_in_a_batch_is_enough(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.wrong_pixel = True
    bcm.generate(16, schedule="80>0.002", labels=3)
    assert "gave other images than its engines" in bcm.backend.device


@pytest.mark.parametrize("said", ["Cuda Runtime (out of memory)", "CUDA_ERROR_OUT_OF_MEMORY"])
def test_memory_that_tensorrt_lacks_is_told_as_that(built_bundle: Path, record: ModuleType, said: str):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.recorded = said
    with pytest.raises(
        BackendError, match=r"out of GPU memory \(6.00 GB free of 8.0\); play fewer images at once"
    ):
        bcm.generate(2, labels=3)


def test_batches_are_filled_up_to_few_sizes():
    assert batch_sizes(1, 4, 16) == [1, 2, 4, 8, 16]
    assert batch_sizes(1, 6, 20) == [1, 2, 4, 6, 8, 16, 20]
    assert batch_sizes(3, 5, 7) == [3, 4, 5, 7]
    assert batch_sizes(4, 4, 4) == [4]
    assert batch_sizes(1, 16, 256) == [1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_changing_batch_sizes_share_recordings(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp32")
    theirs = bcm_edge.load(built_bundle, "onnxruntime", precision="fp32")
    for n in (*range(1, 17), *range(1, 17)):
        labels = np.arange(n) % 10
        images = bcm.generate(n, seed=n, labels=labels)
        assert images.shape == (n, 1, 8, 8)
        assert_images_agree(images, theirs.generate(n, seed=n, labels=labels))
    assert record.calls.count("begin recording") == 5  # at 1, 2, 4, 8 and 16
    assert record.calls.count("close graph") == 0


def test_old_recordings_make_room_and_closing_frees_everything(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    for level in range(1, 13):
        bcm.generate(1, labels=3, schedule=f"80>{level}>0.002")
    assert (
        record.calls.count("close graph") == 2
    )  # twelve schedules, of which ten are kept: two at each of five sizes
    bcm.close()
    assert record.calls.count("close graph") == 12
    assert record.live == {} and record.allocated == 0
    assert record.calls[-1] == "close pool"


def test_host_memory_is_pinned_for_inputs_and_outputs_alone(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    bcm.generate(4, schedule=MIXTURE, labels=3)
    pinned = [
        len(memory) - record.ALIGNMENT for address, memory in record.live.items() if address in record.pinned
    ]
    assert sorted(pinned) == [
        4 * IMAGE,
        2 * 4 * IMAGE + 4 * 8,
    ]  # the last state; the start, one noise and the labels


def test_results_are_not_overwritten_by_the_next(built_bundle: Path, record: ModuleType):
    backend = bcm_edge.load(built_bundle, "tensorrt").backend
    assert isinstance(backend, DeviceBackend)
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
def test_memory_is_allocated_plainly_where_pools_fail(
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


def test_other_recordings_make_room_when_memory_runs_out(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    before = record.allocated
    expected = bcm.generate(16, seed=1, labels=3)
    bcm.generate(16, seed=1, labels=3, schedule=MIXTURE)
    record.faults.memory = before + 2 * (record.allocated - before) // 3  # not enough for both and the next
    assert np.abs(bcm.generate(16, seed=1, labels=3, schedule="80>0.002 +0.1 0.1>2>0.002").mean()) < 1
    assert record.calls.count("close graph") == 2
    assert_images_agree(bcm.generate(16, seed=1, labels=3), expected, "fp16")


def test_a_pool_that_has_worked_is_not_given_up_when_memory_runs_out(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.memory = record.allocated
    with pytest.raises(BackendError, match="out of GPU memory"):
        bcm.generate(2, labels=3)
    assert not any(call.startswith("cuMemAlloc") for call in record.calls)
