"""CUDA graphs of the tensorrt backend on a simulated GPU: when a schedule is recorded, replayed or not."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from agreement import assert_images_agree
from device_schedules import IMAGE, MIXTURE, RENOISING

import bcm_edge
from bcm_edge.errors import NonFiniteError
from bcm_edge.runtime.batches import Batch
from bcm_edge.runtime.chain import play


def test_projection_splits_the_schedule_at_each_image(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    hole = np.eye(8)
    seen: list[tuple[int, int]] = []
    for _ in range(2):  # the first time records
        record.calls.clear()
        bcm.inpaint(
            np.full((2, 1, 8, 8), -1, np.float32), hole, labels=3, schedule="80>0.002 +0.2 0.2>1>0.002"
        )
    # One launch for 80>0.002, and one for the two moves after it.
    assert record.calls.count("launch") == 2 and record.calls.count(f"download {2 * IMAGE}") == 2
    bcm.inpaint(
        np.full((2, 1, 8, 8), -1, np.float32),
        hole,
        labels=3,
        schedule=MIXTURE,
        on_move=lambda call: seen.append((call.index, call.total)),
    )
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_schedule_is_one_upload_one_graph_and_one_download(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    bcm.generate(4, schedule=MIXTURE, labels=3)
    record.calls.clear()
    bcm.generate(4, schedule=MIXTURE, labels=[1, 2, 3, 4], seed=9)
    inputs = 256 + 4 * 8  # the seeds, and at the next address the labels
    assert record.calls == ["set current", f"upload {inputs}", "launch", f"download {4 * IMAGE}", "sync"]


def test_graph_is_recorded_once_per_schedule_and_batch_size(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    record.calls.clear()
    bcm.generate(2, schedule="80>2.4>0.002", labels=3)
    kinds = ("draw", "execute", "begin", "end", "launch", "sync")
    work = [call for call in record.calls if call.split()[0] in kinds]
    move = "execute forward 2"
    assert work == [
        "draw 2",
        move,
        move,
        "sync",
        "begin recording",
        "draw 2",
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
    # Each graph has its own execution contexts.
    assert bcm.backend.device.endswith("one CUDA graph per schedule")


def test_noise_is_added_on_the_device(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    bcm.generate(2, schedule=RENOISING, labels=3)
    executed = [call for call in record.calls if call.startswith("execute")]
    assert executed[:3] == ["execute forward 2", "execute add_noise 2", "execute forward 2"]


def test_callback_receives_every_state(built_bundle: Path, record: ModuleType):
    seen: dict[str, list[np.ndarray]] = {"tensorrt": [], "onnxruntime": []}
    for name, states in seen.items():
        bcm_edge.load(built_bundle, name, precision="fp32").generate(
            3, schedule=MIXTURE, labels=3, on_move=lambda call, s=states: s.append(call.state)
        )
    assert [len(states) for states in seen.values()] == [4, 4]
    assert all(
        np.abs(tensorrt - onnxruntime).max() <= 1e-4
        for tensorrt, onnxruntime in zip(*seen.values(), strict=True)
    )
    # The batch has four images: three and a repeated one.
    every_state = ["launch", f"download {3 * 4 * IMAGE}", f"download {4 * IMAGE}", "sync"]
    assert record.calls[-4:] == every_state


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refused", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        ("invalidated", "TensorRT cannot run forward at batch 2"),
    ],
)
def test_failed_recording_is_played_move_by_move_and_reported(
    built_bundle: Path, record: ModuleType, fault: str, reason: str
):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, schedule=MIXTURE, labels=3)
    record.faults.capture = fault
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert_images_agree(bcm.generate(2, schedule=MIXTURE, labels=3), expected, "fp16")
    assert_images_agree(bcm.generate(2, schedule=MIXTURE, labels=3), expected, "fp16")
    assert f"one by one: no CUDA graph: {reason}" in bcm.backend.device


def test_failed_launch_is_played_move_by_move(built_bundle: Path, record: ModuleType):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, schedule=MIXTURE, labels=3)
    record.faults.launch = True
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert_images_agree(bcm.generate(2, schedule=MIXTURE, labels=3), expected, "fp16")
    assert "one by one: no CUDA graph: CUDA_ERROR_LAUNCH_FAILED" in bcm.backend.device


def test_engines_run_in_new_contexts_after_a_failed_recording(built_bundle: Path, record: ModuleType):
    record.faults.capture = "invalidated"
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    bcm.generate(2, labels=3)
    start = record.calls.index("begin recording")
    draw, move = "draw 2", "execute forward 2"
    assert record.calls[start:][1:8] == [
        draw,
        move,
        "sync",
        draw,
        "context forward",
        "profile 0 of forward",
        move,
    ]


def test_interrupted_recording_is_repeated_in_new_contexts(
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


def test_garbage_collection_is_off_while_a_graph_is_recorded(
    built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """Garbage collection may free GPU memory, which would make the recording fail."""
    collecting: list[bool] = []
    core = importlib.import_module("cuda.core")
    end_building = core.GraphBuilder.end_building
    monkeypatch.setattr(
        core.GraphBuilder,
        "end_building",
        lambda self: (collecting.append(gc.isenabled()), end_building(self))[1],
    )
    bcm_edge.load(built_bundle, "tensorrt").generate(2, labels=3)
    assert collecting == [False] and gc.isenabled()


@pytest.mark.parametrize("schedule", ["80>0.002", MIXTURE])
def test_recording_without_a_move_is_not_used(built_bundle: Path, record: ModuleType, schedule: str):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, schedule=schedule, labels=3)
    record.faults.stale_graph = True
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert_images_agree(bcm.generate(2, schedule=schedule, labels=3), expected, "fp16")
    assert "gave other images than its engines" in bcm.backend.device


def test_failed_first_request_does_not_verify_a_recording(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp32")
    record.faults.stale_graph = True
    overflowing = np.full((2, 1, 8, 8), 1e38, np.float32)
    with pytest.raises(NonFiniteError):
        play(bcm.schedule("80>2.4>0.002"), bcm.backend, Batch([0, 1], np.array([3, 3])), overflowing)
    assert np.isfinite(bcm.generate(2, schedule="80>2.4>0.002", labels=3)).all()
    assert "gave other images than its engines" in bcm.backend.device


def test_one_wrong_image_in_a_batch_rejects_the_recording(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.wrong_pixel = True
    bcm.generate(16, schedule="80>0.002", labels=3)
    assert "gave other images than its engines" in bcm.backend.device


def test_batch_sizes_share_recordings(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp32")
    onnxruntime = bcm_edge.load(built_bundle, "onnxruntime", precision="fp32")
    for n in (*range(1, 17), *range(1, 17)):
        labels = np.arange(n) % 10
        images = bcm.generate(n, seed=n, labels=labels)
        assert images.shape == (n, 1, 8, 8)
        assert_images_agree(images, onnxruntime.generate(n, seed=n, labels=labels))
    assert record.calls.count("begin recording") == 5  # at 1, 2, 4, 8 and 16
    assert record.calls.count("close graph") == 0
