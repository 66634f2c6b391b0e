"""Rehearse the GPU tests and the GPU benchmark on a processor: `make rehearse`.

It runs `make test-gpu` and benchmarks/gpu.py as a user does. The stand-ins of tests/engines/fakes replace
the hardware and the libraries that drive it: NVIDIA's driver, cuda-core, TensorRT, torch's CUDA and ONNX
Runtime's GPU providers. Everything above them is real. The printed times are not times of a GPU.

Both run twice: with all stand-ins, and as on a machine with torch alone, which has neither TensorRT nor the
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
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
FAKES = ROOT / "tests" / "engines" / "fakes"
WORK = ROOT / "build" / "rehearsal"

VARIANTS = {
    "torch eager fp16",
    "torch.compile fp16",
    "TensorRT fp16",
    "ONNX Runtime CUDA fp16",
    "ONNX Runtime TensorRT-RTX fp16",
}
BENCHMARK = ["--network", "digits", "--seconds", "0.01", "--matrix", "64", "--budget", "300"]
PYTEST_ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "FAKE_ABSENT": "hypothesis"}
CHAINED = "mixture-4"  # the schedule whose engines are timed one by one
ABSENT = "tensorrt is not installed"  # the reason of a skipped test or variant


def main() -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    make_driver()
    everything, without_tensorrt = environment(FAKES), environment(stand_ins_without("tensorrt"))
    problems = [
        *run_tests("with TensorRT", everything, may_skip=False),
        *run_tests("without TensorRT", {**without_tensorrt, **PYTEST_ALONE}, may_skip=True),
        *run_benchmark("with TensorRT", everything, VARIANTS, "1,2", ["one-step", "mixture-4"]),
        *run_benchmark("without TensorRT", without_tensorrt, VARIANTS - {"TensorRT fp16"}, "1", ["invert-2"]),
    ]
    for problem in problems:
        print(f"rehearsal failed: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


def make_driver() -> None:
    """Compile the stub of NVIDIA's driver."""
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("the rehearsal needs a C compiler (cc) for the stub of NVIDIA's driver")
    command = [compiler, "-shared", "-fPIC", "-o", str(WORK / "libcuda.so.1"), str(FAKES / "libcuda.c")]
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

    Variables of the `make` that may run the rehearsal are left out, so that `make test-gpu` does not see
    them.
    """
    places = {"PYTHONPATH": stand_ins, "LD_LIBRARY_PATH": WORK}
    paths = {name: f"{place}:{os.environ.get(name, '')}".rstrip(":") for name, place in places.items()}
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    return {**inherited, **paths, "BCM_EDGE_CACHE_DIR": str(WORK / "cache")}


def run_tests(title: str, variables: dict[str, str], may_skip: bool) -> list[str]:
    """Run `make test-gpu`, print the executed tests, and return the problems."""
    report = WORK / f"{title.replace(' ', '-')}.xml"
    command = ["make", "--no-print-directory", "test-gpu", f"PYTHON={sys.executable}"]
    environment = {**variables, "PYTEST_ADDOPTS": f"--junitxml={report}"}
    completed = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if not report.is_file():
        return [f"make test-gpu {title} ended with {completed.returncode} before its tests"]
    problems = []
    if completed.returncode:
        problems.append(f"make test-gpu {title} ended with {completed.returncode}")
    executed = 0
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        if skipped is not None:
            reason = skipped.get("message", "")
            if not (may_skip and reason.startswith(ABSENT)):
                problems.append(f"{name} was skipped {title}: {reason}")
        elif case.find("failure") is None and case.find("error") is None:
            executed += 1
            print(f"executed over stand-ins, {title}: {name}")
    return problems or ([] if executed else [f"no test was executed {title}"])


def run_benchmark(
    title: str, variables: dict[str, str], variants: set[str], sizes: str, schedules: list[str]
) -> list[str]:
    """Run benchmarks/gpu.py and return the problems.

    Every variant must be measured on every schedule at every batch size.
    """
    results = WORK / f"benchmark-{title.replace(' ', '-')}.json"
    work = ["--batch", sizes, "--schedules", ",".join(schedules), "-o", str(results)]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *BENCHMARK, *work]
    environment = {**variables, "OMP_NUM_THREADS": "1"}  # fp16 in torch is slow on a busy CPU
    completed = subprocess.run(command, env=environment, check=False)
    if completed.returncode or not results.is_file():
        return [f"benchmarks/gpu.py {title} ended with {completed.returncode}"]
    batches = json.loads(results.read_text())["batches"]
    problems = [problem for batch in batches for problem in check_batch(batch, variants, schedules)]
    if [str(batch["batch"]) for batch in batches] != sizes.split(","):
        problems.append(f"not every batch size of {sizes} was measured")
    return [f"benchmark {title}: {problem}" for problem in problems]


def check_batch(batch: dict[str, Any], variants: set[str], schedules: list[str]) -> list[str]:
    """Return the problems of the figures of one batch size."""
    problems = []
    for schedule in schedules:
        rows = [row for row in batch["rows"] if row["schedule"] == schedule]
        missing = variants - {row["variant"] for row in rows}
        problems += [f"{schedule}: {name} was not measured: {batch['not_run'].get(name)}" for name in missing]
        for row in rows:
            times_fit = row["in_turn"] and 0 < row["low_ms"] <= row["high_ms"]
            if not (times_fit and 1e-6 < row["relative_l2"] < 5e-3):
                problems.append(f"{schedule}: {row['variant']} has wrong figures: {row}")
    if CHAINED in schedules and len((batch["chain"] or {}).get("engines_ms", [])) != 4:
        problems.append(f"the four engines of {CHAINED} were not timed: {batch['chain']}")
    return [f"batch {batch['batch']}: {problem}" for problem in problems]


if __name__ == "__main__":
    main()
