"""bcm-edge bench: percentiles and verdicts on fixed numbers, counting operations, a real run, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result as Ended
from torch.utils.flop_counter import FlopCounterMode

from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint
from bcm_edge.model.preconditioning import ConsistencyModel
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.checks import benchmark, operations, starts
from bcm_edge.runtime.checks.benchmark import Result, differ, interleave, summarise, verdicts
from bcm_edge.runtime.checks.operations import flop_per_call
from bcm_edge.runtime.checks.starts import Start, first_images, start_command

Cli = Callable[..., Ended]

NOTHING = NullBackend((1, 8, 8), 10)
FEW = ("--seconds", 0.01, "--batch", 1)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of a few milliseconds and one process per variant."""
    monkeypatch.setattr(benchmark, "TURN", 0.005)
    monkeypatch.setattr(starts, "STARTS", 1)


def result(backend: str, precision: str, p50: float, spread: float = 0.1) -> Result:
    """A variant whose turns spread by ± `spread` ms around their median."""
    rates = (1e3 / p50, 1e3 / p50)
    return Result(
        backend,
        precision,
        1,
        "CPU",
        9,
        p50 - spread,
        p50 + spread,
        p50,
        p50 + 1,
        p50 + 2,
        *rates,
        1.0,
        50.0,
        None,
        None,
    )


# Numbers


def test_summary_of_known_times() -> None:
    turns = [[0.001, 0.002, 0.003], [0.004, 0.005, 0.006], [0.007, 0.008, 0.009], [0.010, 0.011], [0.011]]
    summary = summarise(NOTHING, 8, 2, turns, Start(0.5, 70.0), 1_000_000, 4.0)
    assert (summary.runs, summary.p50_ms, summary.p90_ms) == (12, pytest.approx(6.5), pytest.approx(10.9))
    assert summary.p99_ms == pytest.approx(11.0)
    assert (summary.low_ms, summary.high_ms) == (
        pytest.approx(5.0),
        pytest.approx(10.5),
    )  # of the medians 2, 5, 8, 10.5, 11
    assert summary.images_per_s == pytest.approx(8 / 0.0065)
    assert summary.nfe_per_s == pytest.approx(16 / 0.0065)
    assert summary.gflops == pytest.approx(16e6 / 0.0065 / 1e9)
    assert summary.of_matmul == pytest.approx(16e6 / 0.0065 / 4e9)
    assert (summary.first_image_s, summary.peak_mb) == (0.5, 70.0)


def test_summary_without_counted_operations_has_no_rate_of_them() -> None:
    summary = summarise(NOTHING, 1, 1, [[0.001]], Start(0.5, 70.0), None, 4.0)
    assert (summary.gflops, summary.of_matmul) == (None, None)
    summary = summarise(NOTHING, 1, 1, [[0.001]], Start(0.5, 70.0), 1_000_000, None)  # no matrix product
    assert (summary.gflops, summary.of_matmul) == (pytest.approx(1.0), None)


def test_operations_counted_are_those_torch_counts(digits_bundle: Path) -> None:
    checkpoint = load_checkpoint(shipped_checkpoint())
    model = ConsistencyModel(checkpoint.config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 8, 8), torch.tensor([80.0]), torch.tensor([0.002]), torch.tensor([0]))
    assert flop_per_call(digits_bundle / "forward.onnx") == counter.get_total_flops() == 30_810_112


def test_players_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "TURN", 0.0)
    order: list[str] = []
    turns = interleave([lambda: order.append("a"), lambda: order.append("b")], 1e-9)
    assert "".join(order) == "ab" * benchmark.ROUNDS
    assert [[len(turn) for turn in own] for own in turns] == [[1] * benchmark.ROUNDS] * 2


def test_first_run_of_a_turn_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "TURN", 0.02)
    runs: list[float] = []
    (turns,) = interleave([lambda: runs.append(time.sleep(0.004) or 0)], 1e-9)
    assert sum(map(len, turns)) == len(runs) - benchmark.ROUNDS


# Verdicts


def test_difference_within_the_spread_is_not_claimed() -> None:
    assert not differ(result("a", "fp32", 10.0, 1.0), result("a", "int8", 11.9, 1.0))
    assert differ(result("a", "fp32", 10.0, 1.0), result("a", "int8", 12.1, 1.0))


def test_difference_of_a_few_percent_is_not_claimed_however_small_the_spread() -> None:
    assert not differ(result("a", "fp32", 10.0, 0.01), result("a", "int8", 10.4, 0.01))
    assert differ(result("a", "int8", 10.6, 0.01), result("a", "fp32", 10.0, 0.01))


def test_verdicts_on_fixed_numbers() -> None:
    measured = [
        *(result("onnxruntime", "fp32", 21.0), result("onnxruntime", "int8", 27.3)),
        *(
            result("openvino", "fp32", 20.95),
            result("openvino", "bf16", 10.0),
            result("openvino", "int8", 10.1),
        ),
        result("torch", "fp32", 52.5),
    ]
    assert verdicts(measured) == [
        "int8 on onnxruntime is slower here than fp32 on onnxruntime (1.3×): use fp32",
        "fp32 on openvino and fp32 on onnxruntime: no difference beyond noise",
        "bf16 on openvino is 2.1× as fast as fp32 on openvino",
        "int8 on openvino is 2.1× as fast as fp32 on openvino",
        "fp32 on onnxruntime is 2.5× as fast as fp32 on torch",
        "fastest: bf16 on openvino; no difference beyond noise from int8 on openvino",
    ]


def test_verdict_where_torch_is_faster_says_so() -> None:
    said = verdicts([result("onnxruntime", "fp32", 30.0), result("torch", "fp32", 20.0)])
    assert said == [
        "fp32 on onnxruntime is slower here than fp32 on torch (1.5×): use torch",
        "fastest: fp32 on torch",
    ]


def test_verdict_on_a_busy_machine_is_cautious() -> None:
    measured = [result("onnxruntime", "fp32", 30.0)]
    assert verdicts(measured, 0.05) == ["fastest: fp32 on onnxruntime"]
    caution = "caution: other processes took 62% of the processors meanwhile; measure again when the machine is quiet"
    assert verdicts(measured, 0.62)[-1] == caution


# Processes of their own


def test_failed_process_has_no_figures_and_says_why() -> None:
    (start,) = first_images([[sys.executable, "-c", "raise SystemExit('no memory')"]])
    assert math.isnan(start.seconds)
    assert math.isnan(start.peak_mb)
    assert start.problem == "the process ended with exit code 1: no memory"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process may count what its parent held")
def test_peak_memory_is_the_processes_own() -> None:
    held = bytearray(400 << 20)  # of this process, whose child must not count it
    command = start_command("print(peak_mb(), flush=True)")
    peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    del held
    assert 5 < peak < 200


# The command


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_bench_measures_every_backend_and_torch(digits_bundle: Path, cli: Cli) -> None:
    ended = cli(
        "bench",
        digits_bundle,
        *FEW,
        "--schedule",
        "ancestral-2",
        "--precision",
        "fp32",
        "--vs",
        "torch",
        "--json",
    )
    assert ended.exit_code == 0, ended.stderr
    values = json.loads(ended.stdout)
    measured = {(r["backend"], r["precision"], r["batch"]): r for r in values["results"]}
    reasons = {n["backend"]: n["reason"] for n in values["not_run"]}
    assert {backend for backend, _, _ in measured} == {"onnxruntime", "openvino", "torch"} - set(reasons)
    for r in measured.values():
        assert r["runs"] >= benchmark.ROUNDS
        assert 0 < r["p50_ms"] <= r["p90_ms"] <= r["p99_ms"]
        assert r["nfe_per_s"] == pytest.approx(2 * r["images_per_s"])
        assert r["first_image_s"] > 0
        assert r["peak_mb"] > 10
        assert r["gflops"] > 0
        assert r["of_matmul"] is None or 0 < r["of_matmul"] <= 1
        if r["of_matmul"] is None:  # on a busy machine a product may be slower than the network
            assert f"of matmul for fp32 on {r['backend']} at batch 1: its " in ended.stderr
        else:
            assert r["of_matmul"] == pytest.approx(r["gflops"] / values["peaks"]["1"]["fp32"]["gflops"])
    assert (values["nfe"], values["flop_per_call"]) == (2, 30_810_112)
    assert all(reason.startswith("of matmul for ") for reason in values["absent"])
    assert any(sentence.startswith("fastest: ") for sentence in values["verdicts"]["1"])
    peak = values["peaks"]["1"]["fp32"]
    assert (set(values["peaks"]["1"]), peak["precision"]) == ({"fp32"}, "fp32")
    assert peak["library"] in {backend for backend, _, _ in measured}
    fastest = f"for fp32 {peak['gflops']:.0f} GFLOP/s ({peak['library']}, fp32)"
    assert f"\nfastest matrix product (1024 × 1024) beside batch 1: {fastest}" in ended.stderr
    assert {"cpu", "flags", "threads", "versions", "load_average"} <= set(values["environment"])
    assert "fp32 on torch" in ended.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_bench_plays_inversions_and_speaks_in_words(digits_bundle: Path, cli: Cli) -> None:
    ended = cli(
        "bench",
        digits_bundle,
        "--seconds",
        0.01,
        "--batch",
        "2,1",
        "--schedule",
        "invert-1",
        "--backend",
        "null",
    )
    assert ended.exit_code == 0, ended.stderr
    said = [
        line for line in ended.stdout.splitlines() if "caution" not in line
    ]  # where something else runs beside the tests
    assert said == ["batch 1: fastest: fp32 on null", "batch 2: fastest: fp32 on null"]
    assert ended.stderr.count("\nfp32 on null") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_bench_lists_what_cannot_run_with_the_reason(bundle_copy: Path, cli: Cli) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["graphs"]["bf16"] = manifest["graphs"][
        "fp32"
    ]  # ONNX Runtime refuses the precision before it looks at a graph
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    ended = cli("bench", bundle_copy, *FEW, "--backend", "onnxruntime", "--json")
    assert ended.exit_code == 0, ended.stderr
    values = json.loads(ended.stdout)
    assert [r["precision"] for r in values["results"]] == ["fp32"]
    (refused,) = values["not_run"]
    assert (refused["backend"], refused["precision"], refused["batch"]) == ("onnxruntime", "bf16", None)
    assert f"not run: bf16 on onnxruntime: {refused['reason']}" in ended.stderr


@pytest.mark.usefixtures("brief")
def test_bench_without_onnx_says_what_is_absent(
    digits_bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = operations.importlib.util.find_spec
    monkeypatch.setattr(
        operations.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "onnx" else find_spec(name, *rest),
    )
    ended = cli("bench", digits_bundle, *FEW, "--backend", "null", "--json")
    values = json.loads(ended.stdout)
    assert values["flop_per_call"] is None
    assert values["results"][0]["gflops"] is None
    assert values["peaks"] == {"1": {}}
    assert values["absent"] == ["GFLOP/s: counting operations needs onnx; pip install '.[export]'"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--schedule", "nonsense"), "no schedule 'nonsense' in this bundle"),
        (("--precision", "int8"), "has no int8 graphs"),
        (("--precision", "fp64"), "'fp64' is no precision"),
        (("--batch", "0"), "a batch has at least 1 image, not 0"),
        (("--batch", "1,eight"), "is no list of numbers such as 1,8"),
        (("--backend", "cuda"), "'cuda' is not one of"),
        (("--seconds", "0"), "0.0 is not in the range"),
        (("--precision", "bf16", "--backend", "onnxruntime"), "has no bf16 graphs"),
    ],
)
def test_bench_refuses(digits_bundle: Path, cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    ended = cli("bench", digits_bundle, *arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert message in ended.stderr


def test_bench_of_nothing_that_runs_is_refused_with_the_reason(bundle_copy: Path, cli: Cli) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["graphs"] = {"bf16": manifest["graphs"]["fp32"]}
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    ended = cli("bench", bundle_copy, "--backend", "onnxruntime")
    assert ended.exit_code == 2
    assert (
        "error: nothing of this can run here; bf16 on onnxruntime: ONNX Runtime has no bfloat16"
        in ended.stderr
    )
