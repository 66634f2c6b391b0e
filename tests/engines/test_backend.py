"""The tensorrt backend over a GPU that is not there: the same pictures as ONNX Runtime, in one upload, one graph, one download."""

from __future__ import annotations

import importlib
import json
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import bcm_edge
from bcm_edge.errors import BackendError, NonFiniteError
from bcm_edge.runtime.backends.base import DeviceBackend
from bcm_edge.runtime.backends.tensorrt import batch_sizes
from bcm_edge.runtime.bundle import open_bundle
from bcm_edge.runtime.images import to_uint8
from bcm_edge.runtime.parity import compare, load_recording

IMAGE = 4 * 8 * 8  # bytes of one float32 image
ROUNDING = {"fp32": 1e-5, "fp16": 1e-3, "int8": 5e-2}  # ONNX Runtime at batch 8 and at 5: 16 and 8 bits round to either side
MIXTURE = "80>3>0.002 +0.12 0.12>0.4>0.002"
RENOISING = "80>0.002 +2.4 2.4>0.002"  # noise before a move towards the image, whose graph has no addition in it


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("schedule", ["80>0.002", MIXTURE, RENOISING])
def test_images_equal_those_of_onnxruntime(built_bundle: Path, record: ModuleType, precision: str, schedule: str):
    with (
        bcm_edge.load(built_bundle, "tensorrt", precision=precision) as ours,
        bcm_edge.load(built_bundle, "onnxruntime", precision=precision) as theirs,
    ):
        for n in (1, 5, 16):
            labels = np.arange(n) % 10
            images = [each.generate(n, schedule=schedule, seed=7, labels=labels) for each in (ours, theirs)]
            assert np.abs(images[0] - images[1]).max() <= ROUNDING[precision]


def test_latents_and_reconstructions_equal_those_of_onnxruntime(built_bundle: Path, record: ModuleType):
    with (
        bcm_edge.load(built_bundle, "tensorrt", precision="fp32") as ours,
        bcm_edge.load(built_bundle, "onnxruntime", precision="fp32") as theirs,
    ):
        images = theirs.generate(6, labels=3)
        assert np.abs(ours.invert(images, labels=3) - theirs.invert(images, labels=3)).max() <= 1e-5
        assert np.abs(ours.reconstruct(images, labels=3) - theirs.reconstruct(images, labels=3)).max() <= 1e-5


def test_tasks_equal_those_of_onnxruntime(built_bundle: Path, record: ModuleType):
    hole = np.zeros((8, 8), bool)
    hole[4:] = True
    with (
        bcm_edge.load(built_bundle, "tensorrt", precision="fp32") as ours,
        bcm_edge.load(built_bundle, "onnxruntime", precision="fp32") as theirs,
    ):
        images = theirs.generate(6, labels=3)
        assert np.abs(ours.inpaint(images, hole, labels=3) - theirs.inpaint(images, hole, labels=3)).max() <= 1e-4
        assert np.abs(ours.restore(images, labels=3) - theirs.restore(images, labels=3)).max() <= 1e-5
        assert (ours.guess_labels(images) == theirs.guess_labels(images)).all()
        assert np.abs(ours.trace("mixture-4", labels=3).states - theirs.trace("mixture-4", labels=3).states).max() <= 1e-4


def test_a_projection_parts_the_schedule_where_it_comes_back_to_the_image(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    hole = np.eye(8)
    seen: list[int] = []
    for _ in range(2):  # the first records
        record.calls.clear()
        bcm.inpaint(np.zeros((2, 1, 8, 8), np.float32), hole, labels=3, schedule="80>0.002 +0.2 0.2>1>0.002")
    assert record.calls.count("launch") == 2 and record.calls.count(f"download {2 * IMAGE}") == 2  # 80>0.002, and the two moves behind it
    bcm.inpaint(np.zeros((2, 1, 8, 8), np.float32), hole, labels=3, schedule=MIXTURE, on_move=lambda index, *_: seen.append(index))
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
    assert work == [move, move, "sync", "begin recording", move, move, "end recording", "launch", "sync", "launch", "sync"]
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
    every_state = ["launch", f"download {3 * 4 * IMAGE}", f"download {4 * IMAGE}", "sync"]  # of four images: three and one repeated
    assert record.calls[-4:] == every_state


def test_whole_schedules_keep_to_the_bound_at_both_ends_of_the_profile(built_bundle: Path, record: ModuleType):
    bundle = open_bundle(built_bundle)
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    errors = compare(bcm.backend, load_recording(bundle), [1, 7, 16], 5e-3)
    assert len(errors) == 48 and all(e.ok for e in errors)
    assert {e.batch for e in errors} == {1, 7, 16}


def test_both_engines_compute_in_one_scratch_allocation(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    bcm.reconstruct(np.zeros((1, 1, 8, 8), np.float32), labels=3)
    assert record.calls.count("allocate 4096") == 1


def test_an_integrated_gpu_works_on_pinned_memory_and_copies_nothing(
    built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    discrete = bcm_edge.load(built_bundle, "tensorrt", precision="fp16").generate(3, schedule=MIXTURE, labels=3)
    monkeypatch.setenv("FAKE_INTEGRATED", "1")
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    assert np.array_equal(bcm.generate(3, schedule=MIXTURE, labels=3), discrete)
    record.calls.clear()
    assert np.array_equal(bcm.generate(3, schedule=MIXTURE, labels=3), discrete)
    assert record.calls == ["set current", "launch", "sync"]


def test_pixels_are_made_on_the_device(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp32")
    floats = bcm.generate(3, schedule=MIXTURE, labels=3)
    pixels = bcm.generate(3, schedule=MIXTURE, labels=3, uint8=True)
    assert pixels.dtype == np.uint8 and np.array_equal(pixels, to_uint8(floats))
    record.calls.clear()
    bcm.generate(3, schedule=MIXTURE, labels=3, uint8=True)
    assert record.calls[-2:] == [f"download {256 + 4 * 4}", "sync"]  # four images of 64 bytes, and four sums


def test_the_onnxruntime_backend_gives_pixels_too(built_bundle: Path):
    bcm = bcm_edge.load(built_bundle, "onnxruntime", precision="fp32")
    images = bcm.generate(2, labels=3)
    assert np.array_equal(bcm.generate(2, labels=3, uint8=True), to_uint8(images))
    assert np.array_equal(bcm.reconstruct(images, labels=3, uint8=True), to_uint8(bcm.reconstruct(images, labels=3)))


def test_requests_are_split_at_the_largest_batch_and_filled_up_to_the_smallest(typed_copy: Path, compile_engines, record: ModuleType):
    compile_engines(typed_copy, precision="fp16", batch=(4, 4, 4))
    bcm = bcm_edge.load(typed_copy, "tensorrt")
    assert (bcm.batch, bcm.backend.precision) == (4, "fp16")
    record.calls.clear()
    images = bcm.generate(6, labels=3)
    assert {call for call in record.calls if call.startswith("execute")} == {"execute forward 4"}
    assert np.abs(images - bcm_edge.load(typed_copy, "onnxruntime", precision="fp16").generate(6, labels=3)).max() <= 1e-5


def test_a_batch_outside_the_profile_is_refused_with_the_way_out(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", batch=32)
    with pytest.raises(BackendError, match=r"a batch of 20 is outside the engine's profile \(1 to 16\).*--batch 1:20:20"):
        bcm.generate(20, labels=3)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("refused", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"), ("invalidated", "TensorRT does not run forward at batch 2")],
)
def test_what_cannot_be_recorded_is_played_one_by_one_and_says_so(built_bundle: Path, record: ModuleType, fault: str, reason: str):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, schedule=MIXTURE, labels=3)
    record.faults.capture = fault
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert np.array_equal(bcm.generate(2, schedule=MIXTURE, labels=3), expected)
    assert np.array_equal(bcm.generate(2, schedule=MIXTURE, labels=3), expected)
    assert f"one by one: no CUDA graph: {reason}" in bcm.backend.device


def test_a_recording_that_cannot_be_launched_is_played_one_by_one(built_bundle: Path, record: ModuleType):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, schedule=MIXTURE, labels=3)
    record.faults.launch = True
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert np.array_equal(bcm.generate(2, schedule=MIXTURE, labels=3), expected)
    assert "one by one: the CUDA graph cannot be played: CUDA_ERROR_LAUNCH_FAILED" in bcm.backend.device


def test_after_a_failed_recording_the_engines_run_in_new_contexts(built_bundle: Path, record: ModuleType):
    record.faults.capture = "invalidated"
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    bcm.generate(2, labels=3)
    begun = record.calls.index("begin recording")
    assert record.calls[begun:][1:5] == ["execute forward 2", "sync", "context forward 2", "execute forward 2"]


def test_a_recording_that_lacks_a_move_is_not_used(built_bundle: Path, record: ModuleType):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, schedule=MIXTURE, labels=3)
    record.faults.stale_graph = True
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert np.array_equal(bcm.generate(2, schedule=MIXTURE, labels=3), expected)
    assert "gave other images than its engines" in bcm.backend.device


def test_an_engine_that_refuses_is_named(built_bundle: Path, record: ModuleType):
    record.faults.execute = {"inverse"}
    with pytest.raises(BackendError, match="TensorRT does not run inverse at batch 1: TensorRT gives no reason"):
        bcm_edge.load(built_bundle, "tensorrt").invert(np.zeros((1, 1, 8, 8), np.float32), labels=3)


def test_running_out_of_memory_says_what_is_free_and_what_helps(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.memory = record.allocated
    with pytest.raises(
        BackendError, match=r"playing 1 moves at batch 2 on Fake Orin: out of GPU memory \(6.00 GB free of 8.0\); play fewer"
    ):
        bcm.generate(2, labels=3)
    record.faults.memory = 1 << 30
    assert bcm.generate(2, labels=3).shape == (2, 1, 8, 8)  # what had been allocated before it failed is free again


def test_nan_is_named_with_the_move_it_began_at(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp32")
    latents = np.full((2, 1, 8, 8), 1e36, np.float32)
    latents[0] = 0.5
    for uint8 in (False, True):
        with pytest.raises(NonFiniteError, match=r"move 1 of 2 \(80>2.4\) on backend tensorrt gave NaN or infinity \(first in sample 1\)"):
            bcm.generate(latents=latents, schedule="80>2.4>0.002", labels=3, uint8=uint8)


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


def test_what_fails_in_the_middle_leaves_nothing_under_way(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.execute = {"inverse"}
    with pytest.raises(BackendError):
        bcm.reconstruct(np.zeros((2, 1, 8, 8), np.float32), labels=3)
    assert record.calls[-1] == "sync"
    record.faults.execute = set()
    images = np.full((2, 1, 8, 8), -0.5, np.float32)
    theirs = bcm_edge.load(built_bundle, "onnxruntime", precision="fp16")
    assert np.abs(bcm.reconstruct(images, labels=3) - theirs.reconstruct(images, labels=3)).max() <= 1e-5


def test_an_error_that_is_only_recorded_is_raised(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.recorded = "Cask convolution execution failed"
    with pytest.raises(BackendError, match="TensorRT runs forward at batch 2, but says: Cask convolution execution failed"):
        bcm.generate(2, labels=3)


@pytest.mark.parametrize("said", ["Cuda Runtime (out of memory)", "CUDA_ERROR_OUT_OF_MEMORY"])
def test_memory_that_tensorrt_lacks_is_told_as_that(built_bundle: Path, record: ModuleType, said: str):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.recorded = said
    with pytest.raises(BackendError, match=r"out of GPU memory \(6.00 GB free of 8.0\); play fewer images at once"):
        bcm.generate(2, labels=3)


def test_closing_twice_is_no_error(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    bcm.generate(1, labels=3)
    bcm.close()
    bcm.close()


def test_threads_take_turns(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    expected = [bcm.generate(2, seed=seed, labels=3) for seed in range(4)]
    found: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda s=seed: found.update({s: bcm.generate(2, seed=s, labels=3)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[seed], expected[seed]) for seed in range(4))


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
        assert np.abs(images - theirs.generate(n, seed=n, labels=labels)).max() <= 1e-5
    assert record.calls.count("begin recording") == 5  # at 1, 2, 4, 8 and 16
    assert record.calls.count("close graph") == 0


def test_old_recordings_make_room_and_closing_frees_everything(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    for level in range(1, 11):
        bcm.generate(1, labels=3, schedule=f"80>{level}>0.002")
    assert record.calls.count("close graph") == 2  # ten schedules, of which eight are kept
    bcm.close()
    assert record.calls.count("close graph") == 10
    assert record.live == {} and record.allocated == 0
    assert record.calls[-1] == "close pool"


def test_host_memory_is_pinned_for_inputs_and_outputs_alone(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    bcm.generate(4, schedule=MIXTURE, labels=3)
    pinned = [len(memory) - record.ALIGNMENT for address, memory in record.live.items() if address in record.pinned]
    assert sorted(pinned) == [4 * IMAGE, 2 * 4 * IMAGE + 4 * 8]  # the last state; the start, one noise and the labels


def test_results_are_not_overwritten_by_the_next(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    first = bcm.generate(2, seed=1, labels=3, uint8=True), bcm.generate(2, seed=1, labels=3)
    copies = [images.copy() for images in first]
    bcm.generate(2, seed=2, labels=3, uint8=True)
    bcm.generate(2, seed=2, labels=3)
    assert all(np.array_equal(images, copy) for images, copy in zip(first, copies, strict=True))


@pytest.mark.parametrize("fault", ["create", "allocate", "absent"])
def test_memory_is_allocated_plainly_where_pools_fail(built_bundle: Path, record: ModuleType, fault: str, monkeypatch: pytest.MonkeyPatch):
    expected = bcm_edge.load(built_bundle, "tensorrt").generate(2, labels=3)
    record.calls.clear()
    if fault == "absent":
        monkeypatch.setattr(importlib.import_module("cuda.core").DeviceProperties, "memory_pools_supported", False)
    else:
        record.faults.pool = fault
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    assert np.array_equal(bcm.generate(2, labels=3), expected)
    assert "cuMemAlloc 4096" in record.calls and "allocate 4096" not in record.calls
    allocations = len([call for call in record.calls if call.startswith("cuMemAlloc")])
    before = record.allocated
    bcm.close()
    assert record.calls.count("cuMemFree") == allocations and record.allocated < before


def test_a_pool_that_has_worked_is_not_given_up_when_memory_runs_out(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.memory = record.allocated
    with pytest.raises(BackendError, match="out of GPU memory"):
        bcm.generate(2, labels=3)
    assert not any(call.startswith("cuMemAlloc") for call in record.calls)


def test_a_plan_that_was_changed_is_not_given_to_tensorrt(built_copy: Path, record: ModuleType):
    plan = next(built_copy.glob("engines/fp16-*/inverse.plan"))
    plan.write_bytes(plan.read_bytes().replace(b"Half", b"HALF"))
    with pytest.raises(BackendError, match=r"inverse.plan: not the file that was built \(its sha256 differs"):
        bcm_edge.load(built_copy, "tensorrt", precision="fp16")
    assert not record.calls


def test_a_plan_of_another_model_is_refused_by_its_inputs(built_copy: Path, record: ModuleType):
    folder = next(built_copy.glob("engines/fp16-*"))
    _replace_plan(folder, "forward", (folder / "add_noise.plan").read_bytes())
    with pytest.raises(BackendError, match=r"forward\.plan: takes noise, sum, x, which is no engine of this bundle"):
        bcm_edge.load(built_copy, "tensorrt", precision="fp16")


def test_what_tensorrt_says_of_a_plan_it_does_not_take_is_passed_on(built_copy: Path, record: ModuleType):
    _replace_plan(next(built_copy.glob("engines/fp16-*")), "forward", b"no plan")
    with pytest.raises(BackendError, match=r"TensorRT 10\.3\.0 does not take it, though its engine.json fits: Serialization assertion"):
        bcm_edge.load(built_copy, "tensorrt", precision="fp16")


def test_stripped_plans_take_their_weights_from_the_bundle(typed_copy: Path, compile_engines, record: ModuleType):
    compile_engines(typed_copy, precision="fp16", stripped=True)
    images = bcm_edge.load(typed_copy, "tensorrt").generate(2, labels=3)
    assert np.abs(images - bcm_edge.load(typed_copy, "onnxruntime", precision="fp16").generate(2, labels=3)).max() <= 1e-5


def test_labels_go_in_as_the_engine_takes_them(typed_copy: Path, compile_engines, record: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_LABELS", "int32")
    compile_engines(typed_copy, precision="fp32")
    labels = [7, 1, 9]
    images = bcm_edge.load(typed_copy, "tensorrt").generate(3, labels=labels)
    assert np.abs(images - bcm_edge.load(typed_copy, "onnxruntime", precision="fp32").generate(3, labels=labels)).max() <= 1e-5


def test_auto_plays_an_engine_that_was_built_here(built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch):
    with bcm_edge.load(built_bundle) as bcm:
        assert (bcm.backend.name, bcm.backend.precision) == ("tensorrt", "fp16")  # the newest
        assert isinstance(bcm.backend, DeviceBackend)
        assert bcm.backend.device == "Fake Orin, TensorRT 10.3.0, one CUDA graph per schedule"
    assert bcm_edge.load(built_bundle, precision="int8").backend.name == "tensorrt"
    assert bcm_edge.load(built_bundle, precision="bf16").backend.name == "openvino"  # no engine in bf16
    monkeypatch.setenv("FAKE_CAPABILITY", "90")
    bcm = bcm_edge.load(built_bundle)
    assert (bcm.backend.name, bcm.backend.precision) == ("onnxruntime", "fp32")


def _replace_plan(folder: Path, name: str, content: bytes) -> None:
    """Another plan in place of one, and engine.json made to agree."""
    import hashlib

    (folder / f"{name}.plan").write_bytes(content)
    facts = json.loads((folder / "engine.json").read_text())
    facts["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "engine.json").write_text(json.dumps(facts))
