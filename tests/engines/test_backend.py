"""The tensorrt backend on a simulated GPU: the same images as ONNX Runtime, and clear errors."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from agreement import assert_images_agree, assert_pixels_show
from device_schedules import MIXTURE, RENOISING
from fixture_types import CompileEngines
from shared_use import assert_closing_is_safe, assert_threads_agree

import bcm_edge
from bcm_edge.errors import BackendError, NonFiniteError
from bcm_edge.runtime.backends.base import on_device
from bcm_edge.runtime.batches import Batch
from bcm_edge.runtime.chain import play, play_to_pixels
from bcm_edge.runtime.checks.parity import compare
from bcm_edge.runtime.checks.recording import load_recording
from bcm_edge.runtime.pixels import to_uint8
from bcm_edge.runtime.storage.bundle import open_bundle


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("schedule", ["80>0.002", MIXTURE, RENOISING])
def test_images_agree_with_onnxruntime(built_bundle: Path, record: ModuleType, precision: str, schedule: str):
    with (
        bcm_edge.load(built_bundle, "tensorrt", precision=precision) as tensorrt,
        bcm_edge.load(built_bundle, "onnxruntime", precision=precision) as onnxruntime,
    ):
        for n in (1, 5, 16):
            labels = np.arange(n) % 10
            actual, expected = (
                each.generate(n, schedule=schedule, seed=7, labels=labels) for each in (tensorrt, onnxruntime)
            )
            assert_images_agree(actual, expected, precision)


@pytest.mark.parametrize("value", ["1", None])
def test_engine_runs_with_any_setting_of_tf32(
    built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch, value: str | None
):
    """TensorRT refuses an engine if this variable has another value than when the engine was built."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", value or "")
    if value is None:
        del os.environ["NVIDIA_TF32_OVERRIDE"]
    with bcm_edge.load(built_bundle, "tensorrt", precision="fp32") as bcm:
        assert np.isfinite(bcm.generate(1, labels=3)).all()


def test_latents_and_reconstructions_agree_with_onnxruntime(built_bundle: Path, record: ModuleType):
    with (
        bcm_edge.load(built_bundle, "tensorrt", precision="fp32") as tensorrt,
        bcm_edge.load(built_bundle, "onnxruntime", precision="fp32") as onnxruntime,
    ):
        images = onnxruntime.generate(6, labels=3)
        assert_images_agree(tensorrt.invert(images, labels=3), onnxruntime.invert(images, labels=3))
        assert_images_agree(tensorrt.reconstruct(images, labels=3), onnxruntime.reconstruct(images, labels=3))


def test_tasks_agree_with_onnxruntime(built_bundle: Path, record: ModuleType):
    hole = np.zeros((8, 8), bool)
    hole[4:] = True
    with (
        bcm_edge.load(built_bundle, "tensorrt", precision="fp32") as tensorrt,
        bcm_edge.load(built_bundle, "onnxruntime", precision="fp32") as onnxruntime,
    ):
        images = onnxruntime.generate(6, labels=3)
        assert (
            np.abs(
                tensorrt.inpaint(images, hole, labels=3) - onnxruntime.inpaint(images, hole, labels=3)
            ).max()
            <= 1e-4
        )
        assert_images_agree(tensorrt.restore(images, labels=3), onnxruntime.restore(images, labels=3))
        assert (tensorrt.guess_labels(images) == onnxruntime.guess_labels(images)).all()
        assert (
            np.abs(
                tensorrt.trace("mixture-4", labels=3).states - onnxruntime.trace("mixture-4", labels=3).states
            ).max()
            <= 1e-4
        )


def test_schedules_are_within_the_bound_at_both_ends_of_the_profile(built_bundle: Path, record: ModuleType):
    bundle = open_bundle(built_bundle)
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp16")
    errors = compare(bcm.backend, load_recording(bundle), [1, 7, 16], 5e-3)
    assert len(errors) == 48 and all(e.ok for e in errors)
    assert {e.batch for e in errors} == {1, 7, 16}


def test_pixels_are_computed_on_the_device(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp32")
    floats = bcm.generate(3, schedule=MIXTURE, labels=3)
    pixels = bcm.generate(3, schedule=MIXTURE, labels=3, output_type="uint8")
    assert_pixels_show(pixels, floats)
    record.calls.clear()
    bcm.generate(3, schedule=MIXTURE, labels=3, output_type="uint8")
    assert record.calls[-2:] == [f"download {256 + 4 * 4}", "sync"]  # four images of 64 bytes, and four sums


def test_onnxruntime_returns_pixels_too(built_bundle: Path):
    bcm = bcm_edge.load(built_bundle, "onnxruntime", precision="fp32")
    images = bcm.generate(2, labels=3)
    assert np.array_equal(bcm.generate(2, labels=3, output_type="uint8"), to_uint8(images))
    assert np.array_equal(
        bcm.reconstruct(images, labels=3, output_type="uint8"), to_uint8(bcm.reconstruct(images, labels=3))
    )


def test_batches_are_split_and_padded_to_fit_the_profile(
    typed_copy: Path, compile_engines: CompileEngines, record: ModuleType
):
    compile_engines(typed_copy, precision="fp16", profiles=((4, 4, 4),))
    bcm = bcm_edge.load(typed_copy, "tensorrt")
    assert (bcm.batch, bcm.backend.precision) == (4, "fp16")
    record.calls.clear()
    images = bcm.generate(6, labels=3)
    assert {call for call in record.calls if call.startswith("execute")} == {"execute forward 4"}
    assert_images_agree(
        images, bcm_edge.load(typed_copy, "onnxruntime", precision="fp16").generate(6, labels=3), "fp16"
    )


def test_batch_outside_the_profile_is_refused(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", batch=32)
    with pytest.raises(
        BackendError, match=r"a batch of 20 is outside the engine's profiles \(1:4:16\).*--batch 1:20:20"
    ):
        bcm.generate(20, labels=3)


def test_engine_that_fails_is_named(built_bundle: Path, record: ModuleType):
    record.faults.execute = {"inverse"}
    with pytest.raises(
        BackendError, match="TensorRT cannot run inverse at batch 1: TensorRT reports no reason"
    ):
        bcm_edge.load(built_bundle, "tensorrt").invert(np.full((1, 1, 8, 8), -1, np.float32), labels=3)


def test_nan_is_reported_with_the_move_and_the_sample(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt", precision="fp32")
    x = np.full((2, 1, 8, 8), 1e38, np.float32)
    x[0] = 40
    batch = Batch([0, 1], np.array([3, 3]))
    for play_chain in (play, play_to_pixels):
        with pytest.raises(
            NonFiniteError,
            match=r"move 1 of 2 \(80>2.4\) on backend tensorrt gave NaN or infinity \(first in sample 1\)",
        ):
            play_chain(bcm.schedule("80>2.4>0.002"), bcm.backend, batch, x)


def test_backend_works_after_a_failure_in_the_middle(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.execute = {"inverse"}
    with pytest.raises(BackendError):
        bcm.reconstruct(np.full((2, 1, 8, 8), -1, np.float32), labels=3)
    assert record.calls[-1] == "sync"
    record.faults.execute = set()
    images = np.full((2, 1, 8, 8), -0.5, np.float32)
    onnxruntime = bcm_edge.load(built_bundle, "onnxruntime", precision="fp16")
    assert_images_agree(bcm.reconstruct(images, labels=3), onnxruntime.reconstruct(images, labels=3), "fp16")


def test_error_that_tensorrt_only_records_is_raised(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    record.faults.recorded = "Cask convolution execution failed"
    with pytest.raises(
        BackendError,
        match="TensorRT reported an error when it ran forward at batch 2: Cask convolution execution failed",
    ):
        bcm.generate(2, labels=3)


def test_close_may_be_called_twice(built_bundle: Path, record: ModuleType):
    bcm = bcm_edge.load(built_bundle, "tensorrt")
    bcm.generate(1, labels=3)
    bcm.close()
    bcm.close()


def test_threads_share_the_backend(built_bundle: Path, record: ModuleType):
    assert_threads_agree(built_bundle, "tensorrt", "fp32")


def test_model_can_be_closed_while_other_threads_play(built_bundle: Path, record: ModuleType):
    assert_closing_is_safe(built_bundle, "tensorrt", "fp32")


def test_changed_plan_is_not_passed_to_tensorrt(built_copy: Path, record: ModuleType):
    plan = next(built_copy.glob("engines/fp16-*/inverse.plan"))
    plan.write_bytes(plan.read_bytes().replace(b"Half", b"HALF"))
    with pytest.raises(
        BackendError, match=r"inverse.plan: not the file that was built \(its sha256 is not the one"
    ):
        bcm_edge.load(built_copy, "tensorrt", precision="fp16")
    assert not record.calls


def test_plan_of_another_model_is_refused(built_copy: Path, record: ModuleType):
    folder = next(built_copy.glob("engines/fp16-*"))
    _replace_plan(folder, "forward", (folder / "add_noise.plan").read_bytes())
    with pytest.raises(
        BackendError,
        match=r"forward\.plan: its inputs and outputs are noise, sum, x, "
        "but this bundle needs label, t, u, x, x_u",
    ):
        bcm_edge.load(built_copy, "tensorrt", precision="fp16")


def test_message_of_tensorrt_for_an_invalid_plan_is_shown(built_copy: Path, record: ModuleType):
    _replace_plan(next(built_copy.glob("engines/fp16-*")), "forward", b"no plan")
    with pytest.raises(
        BackendError,
        match=r"TensorRT 10\.3\.0 cannot load it, although engine.json fits this machine: "
        "Serialization assertion",
    ):
        bcm_edge.load(built_copy, "tensorrt", precision="fp16")


def test_stripped_plans_use_the_weights_of_the_bundle(
    typed_copy: Path, compile_engines: CompileEngines, record: ModuleType
):
    compile_engines(typed_copy, precision="fp16", stripped=True)
    images = bcm_edge.load(typed_copy, "tensorrt").generate(2, labels=3)
    assert_images_agree(
        images, bcm_edge.load(typed_copy, "onnxruntime", precision="fp16").generate(2, labels=3), "fp16"
    )


def test_labels_are_converted_to_the_type_of_the_engine(
    typed_copy: Path, compile_engines: CompileEngines, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_LABELS", "int32")
    compile_engines(typed_copy, precision="fp32")
    labels = [7, 1, 9]
    images = bcm_edge.load(typed_copy, "tensorrt").generate(3, labels=labels)
    assert_images_agree(
        images, bcm_edge.load(typed_copy, "onnxruntime", precision="fp32").generate(3, labels=labels)
    )


def test_auto_selects_an_engine_built_on_this_machine(
    built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    with bcm_edge.load(built_bundle) as bcm:
        assert (bcm.backend.name, bcm.backend.precision) == ("tensorrt", "fp16")  # the newest
        assert on_device(bcm.backend)
        assert bcm.backend.device == "Fake Orin, TensorRT 10.3.0, one CUDA graph per schedule"
    assert bcm_edge.load(built_bundle, precision="int8").backend.name == "tensorrt"
    assert bcm_edge.load(built_bundle, precision="bf16").backend.name == "openvino"  # no engine in bf16
    monkeypatch.setenv("FAKE_CAPABILITY", "90")
    bcm = bcm_edge.load(built_bundle)
    assert (bcm.backend.name, bcm.backend.precision) == ("onnxruntime", "fp32")


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
@pytest.mark.parametrize(("device", "number"), [("gpu", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_device_is_the_gpu_that_computes(
    built_bundle: Path,
    record: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    device: str,
    number: int,
):
    monkeypatch.setenv("FAKE_GPUS", "2")
    with bcm_edge.load(built_bundle, backend, device=device) as bcm:
        assert bcm.backend.name == "tensorrt"
        assert np.isfinite(bcm.generate(2, labels=3)).all()
    assert record.devices == {number}


def test_device_that_cannot_play_is_not_replaced(
    built_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    with bcm_edge.load(built_bundle, device="cpu") as bcm:
        assert (bcm.backend.name, bcm.backend.precision) == ("onnxruntime", "fp32")
    absent = "no GPU cuda:1 on this machine; available: cuda:0"
    with pytest.raises(BackendError, match=f"no backend can run on the device cuda:1 here; .*{absent}"):
        bcm_edge.load(built_bundle, device="cuda:1")
    with pytest.raises(BackendError, match=f"tensorrt: {absent}$"):
        bcm_edge.load(built_bundle, "tensorrt", device="cuda:1")
    monkeypatch.setenv("FAKE_GPUS", "2")
    message = r"tensorrt: .*: no engine in bf16 for this GPU .*--precision bf16 --device cuda:1"
    with pytest.raises(BackendError, match=message):
        bcm_edge.load(built_bundle, precision="bf16", device="cuda:1")
    assert not record.devices


def _replace_plan(folder: Path, name: str, content: bytes) -> None:
    """Replace a plan, and update engine.json accordingly."""
    (folder / f"{name}.plan").write_bytes(content)
    facts = json.loads((folder / "engine.json").read_text())
    facts["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "engine.json").write_text(json.dumps(facts))
