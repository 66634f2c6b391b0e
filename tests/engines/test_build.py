"""bcm-edge build, from a bundle to engines, with a driver, a cuda-core and a TensorRT that stand in for real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from bcm_edge.runtime.storage.bundle import open_bundle

Build = Callable[..., "CompletedProcess[str]"]


def folder_of(bundle: Path) -> Path:
    """The one folder of engines in a bundle."""
    (folder,) = (bundle / "engines").iterdir()
    return folder


def test_a_build_publishes_plans_with_what_they_are(typed_copy: Path, run: Build):
    ended = run("build", typed_copy, "--batch", "1:2:8", "--workspace", "512M", "--opt-level", "2", "--json")
    assert ended.returncode == 0, ended.stderr
    folder = folder_of(typed_copy)
    assert sorted(file.name for file in folder.iterdir()) == [
        "add_noise.plan",
        "engine.json",
        "forward.plan",
        "inverse.plan",
        "to_uint8.plan",
    ]
    facts = json.loads((folder / "engine.json").read_text())
    assert folder.name.startswith("fp16-sm87-trt10.3.0-")
    assert (facts["tensorrt"], facts["gpu"], facts["capability"], facts["system"]) == (
        "10.3.0",
        "Fake Orin",
        "8.7",
        "Linux x86_64",
    )
    assert facts["multiprocessors"] == 16
    assert facts["options"] == {
        "precision": "fp16",
        "batch": [1, 2, 8],
        "workspace": 512 << 20,
        "opt_level": 2,
        "stripped": False,
    }
    assert facts["graphs"] == open_bundle(typed_copy).hashes("fp16")
    assert facts["types"] == {"forward": {"fp16": 27}, "inverse": {"fp16": 27}}
    assert facts["scratch"] == 4096
    said = json.loads(ended.stdout)
    assert said["built"] is True and said["engine"] == facts
    assert {move["batch"] for move in said["verification"]} == {1, 2, 8} and all(
        move["ok"] for move in said["verification"]
    )


def test_the_forms_of_a_plan_are_bare(typed_copy: Path, run: Build):
    run("build", typed_copy)
    plan = json.loads(
        (folder_of(typed_copy) / "forward.plan").read_text()
    )  # nothing of ours before or after what TensorRT serialised
    assert plan["graph"].endswith("forward.fp16.onnx")
    assert plan["shapes"]["x"] == [[1, 1, 8, 8], [4, 1, 8, 8], [16, 1, 8, 8]] and plan["shapes"]["label"] == [
        [1],
        [4],
        [16],
    ]


def test_progress_and_outcome_are_told(typed_copy: Path, run: Build):
    lines = run("build", typed_copy).stderr.splitlines()
    assert (
        lines[0]
        == "fp16 for Fake Orin (compute capability 8.7, 8.0 GB, driver for CUDA 12.6), TensorRT 10.3.0"
    )
    phases = [line.rpartition(" (")[0] for line in lines if "Building" in line]
    assert phases == ["forward: Building", "inverse: Building", "add_noise: Building", "to_uint8: Building"]
    assert any(
        line.startswith("fp16 on tensorrt against torch: ") and ": ok (48 moves in" in line for line in lines
    )
    assert "forward: convolutions requested in fp16 27, computed in fp16 27" in lines


def test_a_dla_report_counts_and_builds_nothing(typed_copy: Path, run: Build):
    run("build", typed_copy)
    ended = run(
        "build", typed_copy, "--dla", "report"
    )  # an engine that is there already does not keep it from answering
    assert (
        ended.stdout
        == "forward: a DLA could take 27 of 321 layers; not other 294\ninverse: a DLA could take 27 of 322 layers; not other 295\n"
    )
    told = json.loads(run("build", typed_copy, "--precision", "fp32", "--dla", "report", "--json").stdout)
    assert told["dla"]["forward"]["able"] == 27
    assert folder_of(typed_copy).name.startswith("fp16-")
    without = run("build", typed_copy, "--dla", "report", FAKE_DLA_CORES="0")
    assert without.returncode == 2 and without.stderr == "error: TensorRT finds no DLA on this machine\n"


def test_a_second_build_finds_it_up_to_date_and_force_builds_again(typed_copy: Path, run: Build):
    run("build", typed_copy)
    built = json.loads((folder_of(typed_copy) / "engine.json").read_text())
    again = run("build", typed_copy, "--json")
    assert (
        again.returncode == 0
        and "up to date: fp16-sm87" in again.stderr
        and json.loads(again.stdout)["built"] is False
    )
    assert json.loads((folder_of(typed_copy) / "engine.json").read_text()) == built
    assert json.loads(run("build", typed_copy, "--force", "--json").stdout)["built"] is True


def test_the_verdict_is_bound_to_the_plans(typed_copy: Path, run: Build):
    run("build", typed_copy)
    (verdict,) = [v for v in open_bundle(typed_copy).verdicts() if v.backend == "tensorrt"]
    assert verdict.ok and verdict.batches == [1, 4, 16]
    assert f"engines/{folder_of(typed_copy).name}/forward.plan" in verdict.files
    (folder_of(typed_copy) / "forward.plan").write_bytes(b"another")
    assert not [v for v in open_bundle(typed_copy).verdicts() if v.backend == "tensorrt"]


def test_an_engine_of_another_tensorrt_is_named_rebuilt_and_removed(typed_copy: Path, run: Build):
    run("build", typed_copy)
    old = folder_of(typed_copy).name
    ended = run("build", typed_copy, FAKE_TENSORRT="10.16.1")
    reason = "built by TensorRT 10.3.0, but TensorRT 10.16.1 is installed here"
    assert f"stale: {old}: {reason}; rebuilt from the bundle's graphs\n" in ended.stderr
    assert f"removed: {old} ({reason})\n" in ended.stderr
    assert folder_of(typed_copy).name.startswith("fp16-sm87-trt10.16.1-")


def test_an_engine_of_another_gpu_is_named_and_left_for_its_owner(typed_copy: Path, run: Build):
    run("build", typed_copy)
    old = folder_of(typed_copy).name
    ended = run("build", typed_copy, FAKE_CAPABILITY="110")
    assert (
        f"stale: {old}: built for compute capability 8.7 (Fake Orin), but this GPU (Fake Orin) has 11.0; left as it is\n"
        in ended.stderr
    )
    assert sorted(folder.name for folder in (typed_copy / "engines").iterdir())[0].startswith("fp16-sm110-")
    assert (typed_copy / "engines" / old).is_dir()


def test_a_damaged_engine_is_named_and_rebuilt_in_its_place(typed_copy: Path, run: Build):
    run("build", typed_copy)
    plan = folder_of(typed_copy) / "inverse.plan"
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-1] + b" ")
    ended = run("build", typed_copy)
    assert ended.returncode == 0 and "inverse.plan: not the file that was built" in ended.stderr
    assert plan.read_bytes() == whole


def test_only_engines_of_the_precision_are_spoken_of(typed_copy: Path, run: Build):
    run("build", typed_copy, "--precision", "fp32")
    ended = run("build", typed_copy, FAKE_TENSORRT="10.16.1")
    assert "stale" not in ended.stderr
    assert len(list((typed_copy / "engines").iterdir())) == 2


def test_an_engine_of_the_same_board_with_more_multiprocessors_is_another(typed_copy: Path, run: Build):
    run("build", typed_copy)
    reason = "built on Fake Orin with 16 multiprocessors, but this GPU is Fake Orin with 8 multiprocessors"
    assert f"{reason}; left as it is" in run("build", typed_copy, FAKE_MULTIPROCESSORS="8").stderr


@pytest.mark.slow
def test_engines_stay_when_8_bits_join_the_bundle(tmp_path: Path, cli, run: Build):
    bundle = tmp_path / "digits.bundle"
    assert cli("export", "-o", bundle, "--precision", "fp32,fp16").exit_code == 0
    run("build", bundle)
    plan = (folder_of(bundle) / "forward.plan").read_bytes()
    assert cli("calibrate", bundle, "--data", "digits").exit_code == 0
    assert (folder_of(bundle) / "forward.plan").read_bytes() == plan
    assert "up to date" in run("build", bundle).stderr


def test_engines_that_are_a_link_are_not_followed(typed_copy: Path, run: Build, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (typed_copy / "engines").symlink_to(tmp_path / "elsewhere")
    ended = run("build", typed_copy)
    assert (
        ended.returncode == 2 and "engines is a link; engines are stored in the bundle itself" in ended.stderr
    )
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_small_profile_is_verified_within_it(typed_copy: Path, run: Build):
    run("build", typed_copy, "--batch", "1:1:4")
    verified = run("verify", typed_copy, "--backend", "tensorrt", "--precision", "fp16", "--json")
    assert verified.returncode == 0 and json.loads(verified.stdout)["precisions"][0]["batches"] == [1, 2, 4]


def test_generate_says_why_an_engine_is_not_played(built_copy: Path, run: Build, tmp_path: Path):
    ended = run("generate", built_copy, "--label", "3", "-o", tmp_path / "a.png", FAKE_TENSORRT="10.16.1")
    assert (
        "note: playing on onnxruntime, since " in ended.stderr
        and "built by TensorRT 10.3.0, but TensorRT 10.16.1 is installed here" in ended.stderr
    )
    assert (
        "note"
        not in run(
            "generate", built_copy, "--label", "3", "-o", tmp_path / "b.png", LD_LIBRARY_PATH=""
        ).stderr
    )


def test_an_engine_that_came_along_is_played_only_by_name(built_copy: Path, run: Build, tmp_path: Path):
    elsewhere = {"BCM_EDGE_CACHE_DIR": str(tmp_path / "cache")}  # of a machine that has built nothing
    ended = run("generate", built_copy, "--label", "3", "-o", tmp_path / "a.png", **elsewhere)
    assert (
        "not built on this machine; --backend tensorrt plays it nevertheless" in ended.stderr
        and "fp32 on onnxruntime" in ended.stderr
    )
    ended = run(
        "generate", built_copy, "--label", "3", "-o", tmp_path / "b.png", "--backend", "tensorrt", **elsewhere
    )
    assert ended.returncode == 0 and "fp16 on tensorrt" in ended.stderr


def test_verify_bench_and_inspect_know_engines(built_copy: Path, run: Build):
    verified = run("verify", built_copy, "--backend", "tensorrt", "--precision", "fp16")
    assert verified.returncode == 0 and "one CUDA graph per schedule" in verified.stdout
    shown = run("inspect", built_copy).stdout
    assert "engines: 3\n" in shown and "fp16, batch 1:4:16, TensorRT 10.3.0, Fake Orin" in shown
    assert "fp16 on tensorrt against torch" in shown
    told = run("inspect", built_copy, "--json")
    assert len(json.loads(told.stdout)["engines"]) == 3
    timed = run(
        "bench",
        built_copy,
        "--backend",
        "tensorrt",
        "--precision",
        "fp16",
        "--batch",
        "2",
        "--seconds",
        "0.2",
        "--json",
    )
    assert timed.returncode == 0 and json.loads(timed.stdout)["results"][0]["backend"] == "tensorrt"


def test_doctor_says_whether_an_engine_fits(built_copy: Path, run: Build):
    fits = run("doctor", built_copy).stdout
    assert fits.count("fits this machine") == 3 and "✓ GPU: Fake Orin (compute capability 8.7" in fits
    other = run("doctor", built_copy, FAKE_TENSORRT="10.16.1").stdout
    assert (
        "does not run here: built by TensorRT 10.3.0, but TensorRT 10.16.1 is installed here\n    fix: bcm-edge build"
        in other
    )
