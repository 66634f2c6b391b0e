"""Rehearse the GPU tests and the GPU benchmark on a processor: `make rehearse`.

It runs `make gpu-report` as a user does, which runs tests/gpu and benchmarks/gpu.py. The stand-ins of
tests/engines/fakes replace the hardware and the libraries that drive it: NVIDIA's driver, cuda-core,
TensorRT, torch's CUDA and ONNX Runtime's GPU providers. Everything above them is real. The printed times are
not times of a GPU.

It runs twice: with all stand-ins, and as on a machine with torch alone, which has neither TensorRT nor the
GPU packages of ONNX Runtime nor the plugins of pytest. With all stand-ins, every test and every variant of
the benchmark must be executed. With torch alone, only what needs an absent library may be skipped. Otherwise
the exit code is 1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bcm_edge.runtime.accuracy import BOUNDS
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.storage.manifest import PRECISIONS

ROOT = Path(__file__).resolve().parent.parent
FAKES = ROOT / "tests" / "engines" / "fakes"
WORK = ROOT / "build" / "rehearsal"
BUNDLE = WORK / "digits" / "bundle"  # where benchmarks/gpu.py --folder expects it

sys.path.insert(0, str(ROOT / "benchmarks"))
gpu_check: Any = import_module("gpu_check")
gpu_results: Any = import_module("gpu_results")

# Of a GPU that every backend supports; TensorRT-RTX needs 8.6, 8.9, or 12.0 and newer, fp8 needs 8.9.
GPU = {"FAKE_CAPABILITY": "89"}
WITHOUT = {
    "FAKE_ABSENT": "hypothesis,onnxruntime_ep_nv_tensorrt_rtx",
    "FAKE_ORT_PROVIDERS": "CPUExecutionProvider",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}
ABSENT = (  # in the reason of a test or variant that may be skipped
    "tensorrt is not installed",
    "which computes on the CPU only",
    "onnxruntime-ep-nv-tensorrt-rtx-cu12 is not installed",
)
BENCHMARK = "--network digits --seconds 0.01 --matrix 64 --budget 7200"
CHAINED = "mixture-4"  # the schedule whose engines are timed one by one


def main() -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    make_driver()
    make_bundle()
    problems = [
        *rehearse("all", environment(FAKES), False, "1,2", ["one-step", "mixture-4"]),
        *rehearse(
            "torch", {**environment(stand_ins_without("tensorrt")), **WITHOUT}, True, "1", ["invert-2"]
        ),
    ]
    for problem in problems:
        print(f"rehearsal failed: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


def rehearse(
    title: str, variables: dict[str, str], may_skip: bool, sizes: str, schedules: list[str]
) -> list[str]:
    """Run `make gpu-report`, and return the problems.

    Every variant that can run must be measured on every schedule at every batch size.
    """
    folder = WORK / title
    arguments = f"{BENCHMARK} --batch {sizes} --schedules {','.join(schedules)} --folder {WORK}"
    command = ["make", "--no-print-directory", "gpu-report", f"PYTHON={sys.executable}", f"OUT={folder}"]
    environment = {**variables, "OMP_NUM_THREADS": "1"}  # fp16 in torch is slow on a busy CPU
    completed = subprocess.run([*command, f"ARGUMENTS={arguments}"], cwd=ROOT, env=environment, check=False)
    summary = folder / "summary.json"
    if not summary.is_file():
        return [f"make gpu-report with {title} ended with {completed.returncode} before its first step"]
    logs = {step.name: step.log for step in gpu_check.steps(folder, [])}
    problems = []
    for step in json.loads(summary.read_text())["steps"]:
        if step["exit_code"] != 0 and not (may_skip and step["name"] == "benchmark, options"):
            problems.append(f"{step['name']} ended with {step['exit_code']}: {step['reason']}")
            print((folder / logs[step["name"]]).read_text()[-20_000:], file=sys.stderr)
    problems += check_tests(folder / "tests.xml", may_skip)
    for name in gpu_results.SETS:
        problems += check_benchmark(folder / f"{name}.json", name, may_skip, sizes, schedules)
    return [f"with {title}: {problem}" for problem in problems]


def make_driver() -> None:
    """Compile the stub of NVIDIA's driver."""
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("the rehearsal needs a C compiler (cc) for the stub of NVIDIA's driver")
    command = [compiler, "-shared", "-fPIC", "-o", str(WORK / "libcuda.so.1"), str(FAKES / "libcuda.c")]
    subprocess.run(command, check=True)


def make_bundle() -> None:
    """Make a bundle in all precisions, where the tests and the benchmark find it.

    BCM_EDGE_TEST_BUNDLE may name one in the precisions for CPUs.
    """
    program = [sys.executable, "-m", "bcm_edge.cli"]
    BUNDLE.parent.mkdir(parents=True)
    if existing := os.environ.get("BCM_EDGE_TEST_BUNDLE"):
        shutil.copytree(existing, BUNDLE)
    else:
        export = [*program, "export", "-o", str(BUNDLE), "--precision", "all", "--data", "digits"]
        subprocess.run(export, check=True)
    if missing := set(PRECISIONS) - set(open_bundle(BUNDLE).precisions):
        command = [*program, "calibrate", str(BUNDLE), "--precision", ",".join(sorted(missing))]
        subprocess.run(command, check=True)


def stand_ins_without(library: str) -> Path:
    """Return a folder with all stand-ins except that of one library."""
    folder = WORK / f"without-{library}"
    folder.mkdir()
    for entry in FAKES.iterdir():
        if entry.name not in (library, "__pycache__"):
            (folder / entry.name).symlink_to(entry)
    return folder


def environment(stand_ins: Path) -> dict[str, str]:
    """Return the environment variables with which a process finds the driver and the stand-ins.

    Variables of the `make` that may run the rehearsal are left out, so that `make gpu-report` does not see
    them.
    """
    places = {"PYTHONPATH": stand_ins, "LD_LIBRARY_PATH": WORK}
    paths = {name: f"{place}:{os.environ.get(name, '')}".rstrip(":") for name, place in places.items()}
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    own = {"BCM_EDGE_CACHE_DIR": str(WORK / "cache"), "BCM_EDGE_TEST_BUNDLE": str(BUNDLE)}
    return {**inherited, **paths, **GPU, **own}


def check_tests(report: Path, may_skip: bool) -> list[str]:
    """Print the executed tests, and return the problems."""
    if not report.is_file():
        return ["the tests wrote no report"]
    problems, executed = [], 0
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        if skipped is not None:
            reason = skipped.get("message", "")
            if not (may_skip and any(absent in reason for absent in ABSENT)):
                problems.append(f"{name} was skipped: {reason}")
        elif case.find("failure") is None and case.find("error") is None:
            executed += 1
            print(f"executed over stand-ins, {report.parent.name}: {name}")
    return problems or ([] if executed else ["no test was executed"])


def check_benchmark(results: Path, name: str, may_skip: bool, sizes: str, schedules: list[str]) -> list[str]:
    """Return the problems of the figures of a set of variants."""
    if not results.is_file():
        return [f"benchmark, {name}: no results"]
    batches = json.loads(results.read_text())["batches"]
    variants = {
        each
        for each in gpu_results.SETS[name]
        if not may_skip or each in (gpu_results.EAGER, gpu_results.COMPILED)
    }
    problems = [problem for batch in batches for problem in check_batch(batch, variants, schedules, may_skip)]
    if [str(batch["batch"]) for batch in batches] != sizes.split(","):
        problems.append(f"not every batch size of {sizes} was measured")
    return [f"benchmark, {name}: {problem}" for problem in problems]


def check_batch(batch: dict[str, Any], variants: set[str], schedules: list[str], may_skip: bool) -> list[str]:
    """Return the problems of the figures of one batch size."""
    problems = []
    for variant in set(batch["variants"]) - variants:
        if not any(absent in batch["not_run"].get(variant, "") for absent in ABSENT):
            problems.append(f"{variant} has another reason: {batch['not_run'].get(variant)}")
    for schedule in schedules:
        rows = [row for row in batch["rows"] if row["schedule"] == schedule]
        missing = variants - {row["variant"] for row in rows}
        problems += [f"{schedule}: {name} was not measured: {batch['not_run'].get(name)}" for name in missing]
        for row in rows:
            times_fit = row["in_turn"] and 0 < row["low_ms"] <= row["high_ms"]
            if not (
                times_fit and 1e-6 < row["relative_l2"] < BOUNDS[gpu_results.precision_of(row["variant"])]
            ):
                problems.append(f"{schedule}: {row['variant']} has wrong figures: {row}")
    if CHAINED in schedules and not may_skip and len((batch["chain"] or {}).get("engines_ms", [])) != 4:
        problems.append(f"the four engines of {CHAINED} were not timed: {batch['chain']}")
    return [f"batch {batch['batch']}: {problem}" for problem in problems]


if __name__ == "__main__":
    main()
