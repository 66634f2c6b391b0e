"""benchmarks/gpu.py without a GPU: figures, the results file, and the processes of batch sizes.

The rehearsal runs the whole command over stand-ins for the hardware.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_figures import (
    BENCHMARKS,
    ENVIRONMENT,
    engine_beside_torch,
    gpu,
    limits,
    measured,
    measuring,
    results,
    row,
    work,
)

from bcm_edge.errors import BackendError
from bcm_edge.runtime.machine.gpu import probe
from bcm_edge.runtime.storage.bundle import open_bundle

CUDA = "ONNX Runtime CUDA fp16"


def no_gpu() -> str | None:
    """Return why there is no GPU, or None if there is one."""
    try:
        probe()
    except BackendError as error:
        return str(error)
    return None


without_gpu = pytest.mark.skipif(no_gpu() is None, reason="there is a GPU here")


def test_row_of_known_times():
    turns = [[0.002, 0.002, 0.004], [0.002, 0.002], [0.002, 0.012]]
    figures = measuring.row_of("TensorRT fp16", "mixture-4", 16, 4, turns, 200_000_000_000, 750.0, 1e-3, True)
    assert (figures.runs, figures.p50_ms, figures.p90_ms) == (7, pytest.approx(2.0), pytest.approx(7.2))
    assert figures.p99_ms == pytest.approx(11.52)
    assert figures.images_per_s == pytest.approx(8000)
    assert figures.tflops == pytest.approx(16 * 4 * 200e9 / 0.002 / 1e12)  # 6400
    assert figures.of_matmul == pytest.approx(6400 / 750)
    assert figures.in_turn


def test_matrix_product_in_tflops():
    assert work.product_tflops(8192, 1.0) == pytest.approx(2 * 8192**3 / 1e-3 / 1e12)


def test_chain_is_compared_with_the_sum_of_its_engines():
    assert results.Chain(4.4, 4.1, [1.0, 1.5, 0.5, 1.0]).ratio == pytest.approx(1.1)


def test_figures_are_the_same_after_writing_and_reading(tmp_path: Path):
    figures = engine_beside_torch(16, 2.0, 3.6)
    results.Results(tmp_path / "new" / "results.json", "digits").put(figures)
    assert results.Results(tmp_path / "new" / "results.json", "digits").batches == {16: figures}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["results.json"]


def test_later_call_replaces_only_its_batch_size(tmp_path: Path):
    path = tmp_path / "results.json"
    first, second = engine_beside_torch(16, 2.0, 3.6), engine_beside_torch(16, 1.9, 3.6)
    other = engine_beside_torch(1, 1.0, 1.8)
    for figures in (first, other, second):
        results.Results(path, "digits").put(figures)
    assert results.Results(path, "digits").batches == {1: other, 16: second}


def test_call_that_measures_nothing_keeps_earlier_figures(tmp_path: Path):
    file = results.Results(tmp_path / "results.json", "digits")
    before, nothing = engine_beside_torch(16, 2.0, 3.6), measured(16, [], None, {results.EAGER: "no memory"})
    file.put(before)
    file.put(nothing)
    assert results.Results(file.path, "digits").batches == {16: before}
    (line,) = gpu.earlier_figures([nothing], file)
    assert line == "batch 16 again, the figures are those of an earlier call: no memory"


def test_new_row_replaces_that_of_its_variant_and_schedule():
    figures = measured(1, [row(CUDA, "one-step", 9.0), row(CUDA, "mixture-4", 9.0)])
    figures.put(row(CUDA, "one-step", 8.0))
    assert [(r.schedule, r.p50_ms) for r in figures.rows] == [("one-step", 8.0), ("mixture-4", 9.0)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"network": "imagenet64", "batches": []}', "contains results of imagenet64; choose another file"),
        ('{"network": "digits", "batches": [{"batch": 1}]}', "is not a result of this benchmark"),
        ("not JSON", "is not a result of this benchmark"),
    ],
)
def test_file_that_is_not_of_this_benchmark_is_not_overwritten(text: str, reason: str, tmp_path: Path):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        results.Results(path, "digits")
    assert path.read_text() == text


CHILD = """
import json, os, sys
sys.path.insert(0, {benchmarks!r})
from pathlib import Path
from gpu_results import Measured, Row

state = Path(json.loads(sys.argv[3])["state"])
record = Measured.read(state)
for variant in record.variants:
    if variant not in record.not_run:
        record.doing = variant
        record.write(state)
        if variant == {killed!r}:
            os.kill(os.getpid(), 9)
        record.put(Row(variant, "one-step", 30, 1.9, 2.1, 2.0, 2.1, 2.2, 500.0, 300.0, 0.4, 1e-3, False))
record.doing = None
record.write(state)
"""


def test_variant_that_ends_its_process_is_skipped_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "child.py"
    program.write_text(CHILD.format(benchmarks=str(BENCHMARKS), killed=CUDA))
    monkeypatch.setattr(gpu, "PROGRAM", str(program))
    record = results.Measured(1, ENVIRONMENT, not_run={results.TENSORRT: "tensorrt is not installed"})
    record = gpu.measure_batch(record, limits.Budget.start(math.inf), tmp_path / "state.json", {})
    measured_variants = [
        "torch eager fp16",
        "ONNX Runtime TensorRT fp16",
        "ONNX Runtime TensorRT-RTX fp16",
        "torch.compile fp16",
    ]
    assert [r.variant for r in record.rows] == measured_variants
    assert record.not_run == {
        "TensorRT fp16": "tensorrt is not installed",
        "ONNX Runtime CUDA fp16": "its process was killed by SIGKILL",
    }
    assert record.doing is None


def test_process_that_fails_before_the_first_variant_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "child.py"
    program.write_text("print('out of memory')\nraise SystemExit(1)\n")
    monkeypatch.setattr(gpu, "PROGRAM", str(program))
    record = results.Measured(1, ENVIRONMENT)
    record = gpu.measure_batch(record, limits.Budget.start(math.inf), tmp_path / "state.json", {})
    assert record.not_run == dict.fromkeys(results.SETS["main"], "out of memory")


def test_batch_size_without_time_is_not_started(tmp_path: Path):
    budget = limits.Budget(300.0, time.monotonic() - 1, 0.0)
    record = gpu.measure_batch(results.Measured(1, ENVIRONMENT), budget, tmp_path / "state.json", {})
    reason = "the time budget of 300 s was used up (this batch size had 0 s)"
    assert record.not_run == dict.fromkeys(results.SETS["main"], reason)


def test_figures_stay_when_the_process_is_killed_at_the_end_of_its_time():
    record = measured(1, [row(results.EAGER, "one-step", 9.0)])
    record.doing = results.COMPILED
    assert not gpu.note_end(record, "the time budget of 20 s was used up", out_of_time=True)
    assert [r.variant for r in record.rows] == [results.EAGER]
    others = list(results.SETS["main"][1:])
    assert record.not_run == dict.fromkeys(others, "the time budget of 20 s was used up")


@pytest.mark.parametrize("work", [None, "all variants in turn, one-step"])
def test_only_a_variant_can_be_skipped(work: str | None):
    record = measured(1, [row(results.EAGER, "one-step", 9.0)])
    record.doing = work
    assert not gpu.note_end(record, "its process was killed by SIGKILL", out_of_time=False)
    assert results.EAGER not in record.not_run


@without_gpu
def test_without_a_gpu_one_line_names_the_reason():
    command = [sys.executable, BENCHMARKS / "gpu.py"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr == f"benchmarks/gpu.py needs an NVIDIA GPU: {no_gpu()}\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as the benchmark exports them."""
    folder = tmp_path_factory.mktemp("digits")
    gpu.export_network(str(folder), "digits")
    return folder / "bundle"


@pytest.mark.slow
def test_bundle_of_an_earlier_call_is_used_again(bundle: Path):
    before = (bundle / "manifest.json").stat().st_mtime_ns
    gpu.export_network(str(bundle.parent), "digits")
    assert (bundle / "manifest.json").stat().st_mtime_ns == before
    assert open_bundle(bundle).precisions == ["fp32", "fp16"]


@pytest.mark.slow
@without_gpu
def test_failed_engine_build_has_a_reason(bundle: Path):
    request = {"bundle": str(bundle), "variant": results.TENSORRT, "largest": 256}
    assert gpu.child("build", request, 600.0, "too long") == no_gpu()
