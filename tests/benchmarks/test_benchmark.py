"""The numbers of bcm-edge bench: percentiles, counted operations, turns, and verdicts."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint
from bcm_edge.model.preconditioning import ConsistencyModel
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.checks import benchmark
from bcm_edge.runtime.checks.benchmark import Result, differ, interleave, summarise, verdicts
from bcm_edge.runtime.checks.operations import flop_per_call
from bcm_edge.runtime.checks.starts import Start, first_images, start_command

NOTHING = NullBackend((1, 8, 8), 10)


def variant(backend: str, precision: str, p50: float, spread: float = 0.1) -> Result:
    """Return the result of a variant whose turns spread by ± `spread` ms around the median `p50`."""
    times = (p50 - spread, p50 + spread, p50, p50 + 1, p50 + 2)
    rates = (1e3 / p50, 1e3 / p50)
    return Result(backend, precision, 1, "CPU", 9, *times, *rates, 1.0, 50.0, None, None)


def test_summary_of_known_times():
    turns = [[0.001, 0.002, 0.003], [0.004, 0.005, 0.006], [0.007, 0.008, 0.009], [0.010, 0.011], [0.011]]
    summary = summarise(NOTHING, 8, 2, turns, Start(0.5, 70.0), 1_000_000, 4.0)
    assert (summary.runs, summary.p50_ms, summary.p90_ms) == (12, pytest.approx(6.5), pytest.approx(10.9))
    assert summary.p99_ms == pytest.approx(11.0)
    # The medians of the turns are 2, 5, 8, 10.5 and 11 ms.
    assert (summary.low_ms, summary.high_ms) == (pytest.approx(5.0), pytest.approx(10.5))
    assert summary.images_per_s == pytest.approx(8 / 0.0065)
    assert summary.nfe_per_s == pytest.approx(16 / 0.0065)
    assert summary.gflops == pytest.approx(16e6 / 0.0065 / 1e9)
    assert summary.of_matmul == pytest.approx(16e6 / 0.0065 / 4e9)
    assert (summary.first_image_s, summary.peak_mb) == (0.5, 70.0)


def test_summary_without_counted_operations_has_no_gflops():
    summary = summarise(NOTHING, 1, 1, [[0.001]], Start(0.5, 70.0), None, 4.0)
    assert (summary.gflops, summary.of_matmul) == (None, None)
    summary = summarise(
        NOTHING, 1, 1, [[0.001]], Start(0.5, 70.0), 1_000_000, None
    )  # without a matrix product
    assert (summary.gflops, summary.of_matmul) == (pytest.approx(1.0), None)


def test_operations_are_counted_as_torch_counts_them(digits_bundle: Path):
    checkpoint = load_checkpoint(shipped_checkpoint())
    model = ConsistencyModel(checkpoint.config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 8, 8), torch.tensor([80.0]), torch.tensor([0.002]), torch.tensor([0]))
    assert flop_per_call(digits_bundle / "forward.onnx") == counter.get_total_flops() == 30_810_112


def test_players_take_turns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(benchmark, "TURN", 0.0)
    order: list[str] = []
    turns = interleave([lambda: order.append("a"), lambda: order.append("b")], 1e-9)
    assert "".join(order) == "ab" * benchmark.ROUNDS
    assert [[len(turn) for turn in own] for own in turns] == [[1] * benchmark.ROUNDS] * 2


@pytest.mark.parametrize(("seconds", "counted"), [(0.25, 3), (2.0, 1)])
def test_first_of_several_runs_of_a_turn_does_not_count(
    monkeypatch: pytest.MonkeyPatch, seconds: float, counted: int
):
    """A turn takes one second here: four runs of 0.25 s, or a single one of 2 s, which counts."""
    now = 0.0

    def run() -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(benchmark, "TURN", 1.0)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: now))
    (turns,) = interleave([run], 1e-9)
    assert turns == [[seconds] * counted] * benchmark.ROUNDS


def test_difference_within_the_spread_is_not_claimed():
    assert not differ(variant("a", "fp32", 10.0, 1.0), variant("a", "int8", 11.9, 1.0))
    assert differ(variant("a", "fp32", 10.0, 1.0), variant("a", "int8", 12.1, 1.0))


def test_difference_of_a_few_percent_is_not_claimed_even_with_a_small_spread():
    assert not differ(variant("a", "fp32", 10.0, 0.01), variant("a", "int8", 10.4, 0.01))
    assert differ(variant("a", "int8", 10.6, 0.01), variant("a", "fp32", 10.0, 0.01))


def test_verdicts_on_fixed_numbers():
    measured = [
        variant("onnxruntime", "fp32", 21.0),
        variant("onnxruntime", "int8", 27.3),
        variant("openvino", "fp32", 20.95),
        variant("openvino", "bf16", 10.0),
        variant("openvino", "int8", 10.1),
        variant("torch", "fp32", 52.5),
    ]
    assert verdicts(measured) == [
        "int8 on onnxruntime is slower here than fp32 on onnxruntime (1.3×): use fp32",
        "fp32 on openvino and fp32 on onnxruntime: no difference beyond noise",
        "bf16 on openvino is 2.1× as fast as fp32 on openvino",
        "int8 on openvino is 2.1× as fast as fp32 on openvino",
        "fp32 on onnxruntime is 2.5× as fast as fp32 on torch",
        "fastest: bf16 on openvino; no difference beyond noise from int8 on openvino",
    ]


def test_verdict_recommends_torch_where_it_is_faster():
    sentences = verdicts([variant("onnxruntime", "fp32", 30.0), variant("torch", "fp32", 20.0)])
    assert sentences == [
        "fp32 on onnxruntime is slower here than fp32 on torch (1.5×): use torch",
        "fastest: fp32 on torch",
    ]


def test_verdict_on_a_busy_machine_has_a_caution():
    measured = [variant("onnxruntime", "fp32", 30.0)]
    assert verdicts(measured, 0.05) == ["fastest: fp32 on onnxruntime"]
    reason = "other processes took 62% of the processors meanwhile"
    assert verdicts(measured, 0.62)[-1] == f"caution: {reason}; measure again when the machine is quiet"


def test_failed_process_has_no_figures_but_a_reason():
    (start,) = first_images([[sys.executable, "-c", "raise SystemExit('no memory')"]])
    assert math.isnan(start.seconds)
    assert math.isnan(start.peak_mb)
    assert start.problem == "the process ended with exit code 1: no memory"


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the peak of a process may include memory of its parent"
)
def test_peak_memory_does_not_include_the_parent_process():
    memory = bytearray(400 << 20)  # memory of this process, which its child must not count
    command = start_command("print(peak_mb(), flush=True)")
    peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    del memory
    assert 5 < peak < 200
