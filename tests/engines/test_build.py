"""bcm-edge build on a simulated GPU: the engines that it writes, replaces and verifies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fixture_types import Cli, Process

from bcm_edge.runtime.storage.bundle import open_bundle


def folder_of(bundle: Path) -> Path:
    """The only folder of engines in a bundle."""
    (folder,) = (bundle / "engines").iterdir()
    return folder


def test_build_writes_plans_and_their_facts(typed_copy: Path, run: Process):
    completed = run(
        "build", typed_copy, "--batch", "1:2:8", "--workspace", "512M", "--opt-level", "2", "--json"
    )
    assert completed.returncode == 0, completed.stderr
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
        "profiles": [[1, 2, 8]],
        "workspace": 512 << 20,
        "opt_level": 2,
        "stripped": False,
        "single": False,
    }
    assert facts["graphs"] == open_bundle(typed_copy).hashes("fp16")
    assert facts["types"] == {"forward": {"fp16": 27}, "inverse": {"fp16": 27}}
    assert facts["scratch"] == 8 * 256
    result = json.loads(completed.stdout)
    assert result["built"] is True and result["engine"] == facts
    assert {move["batch"] for move in result["verification"]} == {1, 2, 8} and all(
        move["ok"] for move in result["verification"]
    )


def test_plan_file_contains_only_the_serialized_engine(typed_copy: Path, run: Process):
    run("build", typed_copy)
    plan = json.loads((folder_of(typed_copy) / "forward.plan").read_text())
    assert plan["graph"].endswith("forward.fp16.onnx")
    (shapes,) = plan["profiles"]
    assert shapes["x"] == [[1, 1, 8, 8], [4, 1, 8, 8], [16, 1, 8, 8]]
    assert shapes["label"] == [[1], [4], [16]]


def test_progress_and_result_are_printed(typed_copy: Path, run: Process):
    lines = run("build", typed_copy).stderr.splitlines()
    gpu = "Fake Orin (compute capability 8.7, 8.0 GB, driver for CUDA 12.6)"
    assert lines[0] == f"building fp16 for {gpu}, TensorRT 10.3.0"
    phases = [line.rpartition(" (")[0] for line in lines if "Building" in line]
    assert phases == ["forward: Building", "inverse: Building", "add_noise: Building", "to_uint8: Building"]
    assert any(
        line.startswith("fp16 on tensorrt against torch: ") and ": ok (48 moves in" in line for line in lines
    )
    assert "forward: convolutions requested in fp16 27, computed in fp16 27" in lines


def test_dla_report_counts_layers_and_builds_nothing(typed_copy: Path, run: Process):
    run("build", typed_copy)
    completed = run("build", typed_copy, "--dla", "report")  # although the engine exists already
    assert completed.stdout.splitlines() == [
        "forward: a DLA can run 27 of 283 layers; not other 256",
        "inverse: a DLA can run 27 of 284 layers; not other 257",
    ]
    result = json.loads(run("build", typed_copy, "--precision", "fp32", "--dla", "report", "--json").stdout)
    assert result["dla"]["forward"]["able"] == 27
    assert folder_of(typed_copy).name.startswith("fp16-")
    without_dla = run("build", typed_copy, "--dla", "report", FAKE_DLA_CORES="0")
    assert without_dla.returncode == 2
    assert without_dla.stderr == "error: TensorRT finds no DLA on this machine\n"


def test_second_build_is_up_to_date_and_force_builds_again(typed_copy: Path, run: Process):
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


def test_verdict_is_valid_only_for_its_plans(typed_copy: Path, run: Process):
    run("build", typed_copy)
    (verdict,) = [v for v in open_bundle(typed_copy).verdicts() if v.backend == "tensorrt"]
    assert verdict.ok and verdict.batches == [1, 4, 16]
    assert f"engines/{folder_of(typed_copy).name}/forward.plan" in verdict.files
    (folder_of(typed_copy) / "forward.plan").write_bytes(b"another")
    assert not [v for v in open_bundle(typed_copy).verdicts() if v.backend == "tensorrt"]


def test_engine_of_another_tensorrt_is_replaced(typed_copy: Path, run: Process):
    run("build", typed_copy)
    old = folder_of(typed_copy).name
    completed = run("build", typed_copy, FAKE_TENSORRT="10.16.1")
    reason = "built by TensorRT 10.3.0, but TensorRT 10.16.1 is installed here"
    assert f"stale: {old}: {reason}; rebuilt from the bundle's graphs\n" in completed.stderr
    assert f"removed: {old} ({reason})\n" in completed.stderr
    assert folder_of(typed_copy).name.startswith("fp16-sm87-trt10.16.1-")


def test_engine_of_another_gpu_is_kept(typed_copy: Path, run: Process):
    run("build", typed_copy)
    old = folder_of(typed_copy).name
    completed = run("build", typed_copy, FAKE_CAPABILITY="110")
    reason = "built for compute capability 8.7 (Fake Orin), but this GPU (Fake Orin) has 11.0"
    assert f"stale: {old}: {reason}; left as it is\n" in completed.stderr
    assert sorted(folder.name for folder in (typed_copy / "engines").iterdir())[0].startswith("fp16-sm110-")
    assert (typed_copy / "engines" / old).is_dir()


def test_damaged_engine_is_rebuilt(typed_copy: Path, run: Process):
    run("build", typed_copy)
    plan = folder_of(typed_copy) / "inverse.plan"
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-1] + b" ")
    completed = run("build", typed_copy)
    assert completed.returncode == 0 and "inverse.plan: not the file that was built" in completed.stderr
    assert plan.read_bytes() == whole


def test_engines_of_other_precisions_are_not_mentioned(typed_copy: Path, run: Process):
    run("build", typed_copy, "--precision", "fp32")
    completed = run("build", typed_copy, FAKE_TENSORRT="10.16.1")
    assert "stale" not in completed.stderr
    assert len(list((typed_copy / "engines").iterdir())) == 2


def test_engine_of_the_same_board_with_other_multiprocessors_is_stale(typed_copy: Path, run: Process):
    run("build", typed_copy)
    reason = "built on Fake Orin with 16 multiprocessors, but this GPU is Fake Orin with 8 multiprocessors"
    assert f"{reason}; left as it is" in run("build", typed_copy, FAKE_MULTIPROCESSORS="8").stderr


@pytest.mark.slow
def test_engines_stay_when_int8_is_added_to_the_bundle(tmp_path: Path, cli: Cli, run: Process):
    bundle = tmp_path / "digits.bundle"
    assert cli("export", "-o", bundle, "--precision", "fp32,fp16").exit_code == 0
    run("build", bundle)
    plan = (folder_of(bundle) / "forward.plan").read_bytes()
    assert cli("calibrate", bundle, "--data", "digits").exit_code == 0
    assert (folder_of(bundle) / "forward.plan").read_bytes() == plan
    assert "up to date" in run("build", bundle).stderr


def test_engines_folder_that_is_a_link_is_refused(typed_copy: Path, run: Process, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (typed_copy / "engines").symlink_to(tmp_path / "elsewhere")
    completed = run("build", typed_copy)
    assert completed.returncode == 2 and "engines is a link; replace it with a folder" in completed.stderr
    assert not list((tmp_path / "elsewhere").iterdir())


def test_verify_stays_within_a_small_profile(typed_copy: Path, run: Process):
    run("build", typed_copy, "--batch", "1:1:4")
    verified = run("verify", typed_copy, "--backend", "tensorrt", "--precision", "fp16", "--json")
    assert verified.returncode == 0 and json.loads(verified.stdout)["precisions"][0]["batches"] == [1, 2, 4]


def test_generate_prints_why_an_engine_is_not_used(built_copy: Path, run: Process, tmp_path: Path):
    completed = run("generate", built_copy, "--label", "3", "-o", tmp_path / "a.png", FAKE_TENSORRT="10.16.1")
    assert (
        "note: the bundle's engines are not used, onnxruntime-cuda runs instead: " in completed.stderr
        and "built by TensorRT 10.3.0, but TensorRT 10.16.1 is installed here" in completed.stderr
    )
    assert (
        "note"
        not in run(
            "generate", built_copy, "--label", "3", "-o", tmp_path / "b.png", LD_LIBRARY_PATH=""
        ).stderr
    )


def test_engine_from_another_machine_needs_the_option_backend(built_copy: Path, run: Process, tmp_path: Path):
    elsewhere = {"BCM_EDGE_CACHE_DIR": str(tmp_path / "cache")}  # of a machine that has built no engine
    completed = run("generate", built_copy, "--label", "3", "-o", tmp_path / "a.png", **elsewhere)
    assert (
        "not built on this machine; --backend tensorrt plays it nevertheless" in completed.stderr
        and "fp32 on onnxruntime" in completed.stderr
    )
    completed = run(
        "generate", built_copy, "--label", "3", "-o", tmp_path / "b.png", "--backend", "tensorrt", **elsewhere
    )
    assert completed.returncode == 0 and "fp16 on tensorrt" in completed.stderr


def test_verify_bench_and_inspect_support_engines(built_copy: Path, run: Process):
    verified = run("verify", built_copy, "--backend", "tensorrt", "--precision", "fp16")
    assert verified.returncode == 0 and "one CUDA graph per schedule" in verified.stdout
    output = run("inspect", built_copy).stdout
    assert "engines: 3\n" in output and "fp16, batch 1:4:16, TensorRT 10.3.0, Fake Orin" in output
    assert "fp16 on tensorrt against torch" in output
    result = run("inspect", built_copy, "--json")
    assert len(json.loads(result.stdout)["engines"]) == 3
    options = ("--backend", "tensorrt", "--precision", "fp16", "--batch", "2", "--seconds", "0.2", "--json")
    benchmark = run("bench", built_copy, *options)
    assert benchmark.returncode == 0 and json.loads(benchmark.stdout)["results"][0]["backend"] == "tensorrt"


def test_doctor_reports_whether_an_engine_fits(built_copy: Path, run: Process):
    fits = run("doctor", built_copy).stdout
    assert fits.count("fits this machine") == 3 and "✓ GPU: Fake Orin (compute capability 8.7" in fits
    other = run("doctor", built_copy, FAKE_TENSORRT="10.16.1").stdout
    reason = "built by TensorRT 10.3.0, but TensorRT 10.16.1 is installed here"
    assert f"does not run here: {reason}\n    fix: bcm-edge build" in other


@pytest.mark.parametrize(("precision", "type_"), [("int8-fp16", "int8"), ("fp8", "fp8")])
def test_8_bit_graphs_for_gpus_are_built_and_played(
    gpu_bundle: Path, tmp_path: Path, run: Process, precision: str, type_: str
):
    bundle = shutil.copytree(gpu_bundle, tmp_path / "digits.bundle")
    completed = run("build", bundle, "--precision", precision, FAKE_CAPABILITY="89")
    assert completed.returncode == 0, completed.stderr
    kept = len(json.loads((bundle / "calibration.json").read_text())["kept"])
    counts = f"{type_} {27 - kept}, fp16 {kept}"
    for direction in ("forward", "inverse"):
        line = f"{direction}: convolutions requested in {counts}, computed in {counts}"
        assert line in completed.stderr
    (folder,) = (bundle / "engines").iterdir()
    types = json.loads((folder / "engine.json").read_text())["types"]
    assert types == {name: {type_: 27 - kept, "fp16": kept} for name in ("forward", "inverse")}
    output = tmp_path / "x.png"
    options = ("--label", "3", "--precision", precision, "-o", output, "--json")
    played = run("generate", bundle, *options, FAKE_CAPABILITY="89")
    assert played.returncode == 0, played.stderr
    result = json.loads(played.stdout)
    assert (result["backend"], result["precision"]) == ("tensorrt", precision)


def test_fp8_needs_units_that_older_gpus_lack(gpu_bundle: Path, run: Process, tmp_path: Path):
    """Nothing is compiled, and the reason contains the alternative."""
    reason = (
        "fp8 needs a GPU of compute capability 8.9 or newer (Ada, Hopper, Blackwell, Thor), and Fake Orin "
        "has 8.7; use --precision int8-fp16"
    )
    bundle = shutil.copytree(gpu_bundle, tmp_path / "digits.bundle")
    completed = run("build", bundle, "--precision", "fp8")
    assert (completed.returncode, completed.stderr) == (2, f"error: {reason}\n")
    assert not (bundle / "engines").exists()
    options = ("--label", "3", "--precision", "fp8", "--backend", "tensorrt", "-o", tmp_path / "x.png")
    assert f"tensorrt: {reason}" in run("generate", bundle, *options).stderr
