"""benchmarks/gpu.py on a simulated GPU: its environment, its engine, and the whole command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from gpu_figures import BENCHMARKS, gpu, results, variants

from bcm_edge.runtime.storage.bundle import open_bundle

pytestmark = pytest.mark.slow

Benchmark = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the digits model, as the benchmark exports it."""
    folder = tmp_path_factory.mktemp("digits")
    gpu.export_network(str(folder), "digits")
    return folder / "bundle"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of that bundle, which a test may change."""
    return shutil.copytree(exported, tmp_path / "bundle")


def test_environment_has_the_gpu_and_its_libraries(record: ModuleType) -> None:
    environment = gpu.environment()
    assert environment["gpu"].startswith("Fake Orin (compute capability 8.7, ")
    assert environment["versions"]["tensorrt"] == "10.3.0"
    assert environment["versions"]["torch"].startswith("2.")
    assert json.loads(json.dumps(environment)) == environment


def test_engine_is_built_once_for_all_batch_sizes(record: ModuleType, bundle: Path) -> None:
    variants.build_engine(str(bundle), results.TENSORRT, 256)
    (folder,) = (bundle / "engines").iterdir()
    facts = (folder / "engine.json").read_text()
    assert json.loads(facts)["options"]["profiles"] == [[1, 16, 256]]
    variants.build_engine(str(bundle), results.TENSORRT, 256)
    assert (folder / "engine.json").read_text() == facts


def test_build_that_runs_out_of_memory(
    record: ModuleType,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_BUILD", "memory")
    reason = gpu.child(
        "build", {"bundle": str(bundle), "variant": results.TENSORRT, "largest": 256}, 600.0, "too long"
    )
    assert reason.startswith("the build ran out of memory")


def test_session_accepts_the_largest_batch(onnxruntime_gpu: ModuleType, bundle: Path) -> None:
    player = variants.opened(results.CUDA, open_bundle(bundle), None, 256)
    assert player.max_batch == 256
    player.close()


# The whole command


@pytest.fixture
def benchmark(surroundings: dict[str, str], tmp_path: Path) -> Benchmark:
    """Run the benchmark; returns its exit code, standard output and the figures of its JSON file."""

    def run(*arguments: str, **environment: str) -> tuple[int, str, dict[str, Any]]:
        output = tmp_path / "results.json"
        small = ["--network", "digits", "--seconds", "0.02", "--matrix", "64"]
        command = [sys.executable, str(BENCHMARKS / "gpu.py"), *small, *arguments, "-o", str(output)]
        variables = {**os.environ, **surroundings, "OMP_NUM_THREADS": "1", **environment}
        completed = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert "Traceback" not in completed.stderr, completed.stderr
        return completed.returncode, completed.stdout, json.loads(output.read_text())

    return run


def test_variants_that_cannot_run_are_reported(benchmark: Benchmark) -> None:
    faults = {"FAKE_BUILD": "memory", "FAKE_CUDA_PROVIDER": "absent", "FAKE_RTX_PLUGIN": "broken"}
    faults["FAKE_CAPABILITY"] = "89"  # which TensorRT-RTX accepts
    status, report, figures = benchmark("--batch", "2", "--schedules", "one-step", **faults)
    assert status == 0
    (each,) = map(results.Measured.from_json, figures["batches"])
    assert [row.variant for row in each.rows] == [results.EAGER, results.COMPILED]
    assert list(each.not_run) == [results.TENSORRT, results.CUDA, results.ORT_TENSORRT, results.RTX]
    assert each.not_run["TensorRT fp16"].startswith("the build ran out of memory")
    assert "fallback to CPU EP has been explicitly disabled" in each.not_run["ONNX Runtime CUDA fp16"]
    assert "libnvidia-ml.so.1" in each.not_run["ONNX Runtime TensorRT-RTX fp16"]
    assert all(f"at batch 2: {reason}" in report for reason in each.not_run.values())


def test_budget_that_is_used_up_is_reported(benchmark: Benchmark) -> None:
    status, report, figures = benchmark("--batch", "1,2", "--budget", "1")
    assert (status, [each["rows"] for each in figures["batches"]]) == (1, [[], []])
    reason = "the bundle was not exported: the time budget of 1 s was used up"
    assert f"- every variant at batch 1, 2: {reason}\n" in report
