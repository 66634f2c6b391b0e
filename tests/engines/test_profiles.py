"""Engines with several optimisation profiles, and single engines, on a simulated GPU."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from agreement import assert_images_agree
from device_schedules import MIXTURE, RENOISING
from fixture_types import CompileEngines, Process

import bcm_edge
from bcm_edge.errors import BackendError
from bcm_edge.runtime.backends.tensorrt import TensorRtBackend
from bcm_edge.runtime.engines.profiles import batch_sizes, profile_of
from bcm_edge.runtime.storage.bundle import open_bundle

PROFILES = ((1, 1, 1), (2, 4, 8), (16, 32, 32))


def folder_of(bundle: Path) -> Path:
    """The only folder of engines in a bundle."""
    (folder,) = (bundle / "engines").iterdir()
    return folder


def plan_of(bundle: Path, name: str) -> dict[str, object]:
    """The content of a plan of the fake TensorRT."""
    return json.loads((folder_of(bundle) / f"{name}.plan").read_text())


def test_batches_are_padded_to_few_sizes():
    assert batch_sizes([(1, 4, 16)]) == [1, 2, 4, 8, 16]
    assert batch_sizes([(1, 6, 20)]) == [1, 2, 4, 6, 8, 16, 20]
    assert batch_sizes([(3, 5, 7)]) == [3, 4, 5, 7]
    assert batch_sizes([(4, 4, 4)]) == [4]
    assert batch_sizes([(1, 16, 256)]) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    # A gap from 33 to 63.
    assert batch_sizes([(1, 1, 1), (2, 16, 32), (64, 256, 256)]) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert batch_sizes([(6, 6, 6), (1, 1, 3)]) == [1, 2, 3, 6]


def test_profile_with_the_nearest_common_size_is_used():
    profiles = [(1, 1, 1), (2, 16, 32), (64, 256, 256)]
    assert [profile_of(size, profiles) for size in (1, 2, 32, 64, 256)] == [0, 1, 1, 2, 2]
    overlapping = [(1, 2, 64), (1, 32, 64)]
    assert [profile_of(size, overlapping) for size in (1, 2, 4, 8, 16, 64)] == [0, 0, 0, 0, 1, 1]


def test_every_plan_gets_the_profiles_in_ascending_order(typed_copy: Path, run: Process):
    profiles = ("--batch", "2:16:32", "--batch", "1:1:1", "--batch", "64")
    completed = run("build", typed_copy, *profiles, "--json")
    assert completed.returncode == 0, completed.stderr
    expected = [[1, 1, 1], [2, 16, 32], [64, 64, 64]]
    for name in ("forward", "inverse", "add_noise", "to_uint8"):
        shapes = plan_of(typed_copy, name)["profiles"]
        assert isinstance(shapes, list)
        assert [[size[0] for size in profile["x"]] for profile in shapes] == expected, name
    result = json.loads(completed.stdout)
    assert result["engine"]["options"]["profiles"] == expected
    assert result["engine"]["scratch"] == 64 * 256
    assert {move["batch"] for move in result["verification"]} == {1, 2, 16, 32, 64}
    assert ", batch 1:1:1 2:16:32 64:64:64, TensorRT" in run("inspect", typed_copy).stdout
    again = run("build", typed_copy, "--batch", "1", "--batch", "64", "--batch", "2:16:32")
    assert "up to date" in again.stderr


def test_images_of_every_profile_agree_with_onnxruntime(
    typed_copy: Path, compile_engines: CompileEngines, record: ModuleType
):
    compile_engines(typed_copy, precision="fp16", profiles=PROFILES)
    with (
        bcm_edge.load(typed_copy, "tensorrt", precision="fp16") as tensorrt,
        bcm_edge.load(typed_copy, "onnxruntime", precision="fp16") as onnxruntime,
    ):
        assert tensorrt.batch == 32
        # 9 images are in the gap between two profiles.
        for n, profile, size in ((1, 0, 1), (3, 1, 4), (8, 1, 8), (9, 2, 16), (32, 2, 32)):
            record.calls.clear()
            labels = np.arange(n) % 10
            actual, expected = (
                each.generate(n, schedule=MIXTURE, seed=7, labels=labels) for each in (tensorrt, onnxruntime)
            )
            assert f"profile {profile} of forward" in record.calls
            assert {call for call in record.calls if call.startswith("execute forward")} == {
                f"execute forward {size}"
            }
            assert_images_agree(actual, expected, "fp16")
        with pytest.raises(
            BackendError, match=r"a batch of 33 is outside the engine's profiles \(1:1:1 2:4:8 16:32:32\)"
        ):
            bcm_edge.load(typed_copy, "tensorrt", batch=33).generate(33, labels=3)


def test_scratch_memory_is_that_of_the_profiles_in_use(
    typed_copy: Path, compile_engines: CompileEngines, record: ModuleType
):
    compile_engines(typed_copy, precision="fp16", profiles=PROFILES)
    record.reset()
    bcm = bcm_edge.load(typed_copy, "tensorrt")

    def scratch() -> list[int]:
        """The sizes of the allocations, in images; the fake needs 256 bytes for each."""
        assert isinstance(bcm.backend, TensorRtBackend)
        return [buffer.size // 256 for buffer in bcm.backend._engines._scratch]

    assert scratch() == [1]
    bcm.generate(1, labels=3)
    assert scratch() == [1]
    bcm.generate(32, labels=3)
    assert scratch() == [1, 32]
    bcm.generate(8, labels=3)  # fits into that of the larger profile
    assert scratch() == [1, 32]
    bcm.close()
    assert record.allocated == 0


def test_number_of_profiles_is_checked(
    typed_copy: Path, compile_engines: CompileEngines, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    import tensorrt

    compile_engines(typed_copy, precision="fp16", profiles=PROFILES)
    monkeypatch.setattr(tensorrt.ICudaEngine, "num_optimization_profiles", 2)
    problem = r"forward\.plan: it has 2 optimisation profiles, but engine\.json lists 3"
    with pytest.raises(BackendError, match=problem):
        bcm_edge.load(typed_copy, "tensorrt")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_inverse_graph_without_noise_is_the_forward_graph(typed_bundle: Path, precision: str):
    """The inverse graph computes f(x + noise, t, u), and x + 0 is x."""
    import onnxruntime

    graphs = open_bundle(typed_bundle).graphs(precision)
    forward, inverse = (
        onnxruntime.InferenceSession(graphs[direction], providers=["CPUExecutionProvider"])
        for direction in ("forward", "inverse")
    )
    generator = np.random.default_rng(0)
    for t, u in ((80, 0.002), (2.4, 0.002), (80, 2.4)):
        x = (t * generator.standard_normal((6, 1, 8, 8))).astype(np.float32)
        inputs = {
            "x": x,
            "t": np.full(6, t, np.float32),
            "u": np.full(6, u, np.float32),
            "label": np.arange(6),
        }
        expected = np.asarray(forward.run(None, inputs)[0])
        actual = np.asarray(inverse.run(None, {**inputs, "noise": np.zeros_like(x)})[0])
        assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def test_single_engine_has_two_plans(typed_copy: Path, run: Process):
    completed = run("build", typed_copy, "--single-engine", "--json")
    assert completed.returncode == 0, completed.stderr
    assert sorted(file.name for file in folder_of(typed_copy).iterdir()) == [
        "engine.json",
        "inverse.plan",
        "to_uint8.plan",
    ]
    result = json.loads(completed.stdout)
    facts = result["engine"]
    assert facts["options"]["single"] is True
    assert sorted(facts["files"]) == ["inverse", "to_uint8"]
    assert facts["types"] == {"inverse": {"fp16": 27}}
    assert {move["schedule"].partition(">")[0] for move in result["verification"]} > {"80"}
    assert all(move["ok"] for move in result["verification"])
    assert ", batch 1:4:16, single engine, TensorRT" in run("inspect", typed_copy).stdout
    (verdict,) = [each for each in open_bundle(typed_copy).verdicts() if each.backend == "tensorrt"]
    assert verdict.ok and not any("forward.plan" in name for name in verdict.files)
    assert "fits this machine" in run("doctor", typed_copy).stdout


@pytest.mark.parametrize("schedule", ["80>0.002", MIXTURE, RENOISING])
def test_single_engine_generates_the_same_images(
    typed_copy: Path, compile_engines: CompileEngines, record: ModuleType, schedule: str
):
    compile_engines(typed_copy, precision="fp16", single=True)
    with (
        bcm_edge.load(typed_copy, "tensorrt", precision="fp16") as tensorrt,
        bcm_edge.load(typed_copy, "onnxruntime", precision="fp16") as onnxruntime,
    ):
        for n in (1, 5):
            actual, expected = (
                each.generate(n, schedule=schedule, seed=7, labels=3) for each in (tensorrt, onnxruntime)
            )
            assert_images_agree(actual, expected, "fp16")
        pixels, expected = (
            each.generate(5, schedule=schedule, seed=7, labels=3, output_type="uint8")
            for each in (tensorrt, onnxruntime)
        )
        assert np.abs(pixels.astype(int) - expected).max() <= 1
        images = onnxruntime.generate(3, labels=3)
        assert_images_agree(
            tensorrt.reconstruct(images, labels=3), onnxruntime.reconstruct(images, labels=3), "fp16"
        )
    executed = {call.split()[1] for call in record.calls if call.startswith("execute")}
    assert executed == {"inverse", "to_uint8"}


def test_single_engine_may_be_stripped(typed_copy: Path, compile_engines: CompileEngines, record: ModuleType):
    compile_engines(typed_copy, precision="fp16", single=True, stripped=True)
    assert bcm_edge.load(typed_copy, "tensorrt").generate(2, labels=3).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(("integrated", "streams"), [("1", 0), ("", None)])
def test_integrated_gpu_uses_no_auxiliary_streams(
    typed_copy: Path, run: Process, integrated: str, streams: int | None
):
    completed = run("build", typed_copy, FAKE_INTEGRATED=integrated or "0")
    assert completed.returncode == 0, completed.stderr
    assert plan_of(typed_copy, "forward")["max_aux_streams"] == streams


def test_engine_of_an_older_version_is_replaced(typed_copy: Path, run: Process):
    run("build", typed_copy)
    old = folder_of(typed_copy).rename(folder_of(typed_copy).with_name("fp16-sm87-trt10.3.0-0123456789"))
    facts = json.loads((old / "engine.json").read_text())
    facts["schema"] = 2
    (old / "engine.json").write_text(json.dumps(facts))
    reason = "built by an older version of bcm-edge; run bcm-edge build again"
    assert f"  {old.name}: {reason}\n" in run("inspect", typed_copy).stdout
    completed = run("build", typed_copy)
    assert f"removed: {old.name} ({reason})\n" in completed.stderr
    assert folder_of(typed_copy).name != old.name
