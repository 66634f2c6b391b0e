"""bcm-edge bench: short runs of the command, and the arguments that it refuses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from fixture_types import Cli
from refusals import edit_manifest, refusal

from bcm_edge.runtime.checks import benchmark, starts

FEW = ("--seconds", 0.01, "--batch", 1)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of a few milliseconds and one process per variant."""
    monkeypatch.setattr(benchmark, "TURN", 0.005)
    monkeypatch.setattr(starts, "STARTS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_bench_measures_every_backend_and_torch(digits_bundle: Path, cli: Cli):
    options = ("--schedule", "ancestral-2", "--precision", "fp32", "--vs", "torch", "--json")
    result = cli("bench", digits_bundle, *FEW, *options)
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    measured = {row["backend"] for row in values["results"]}
    assert measured == {"onnxruntime", "openvino", "torch"} - {row["backend"] for row in values["not_run"]}
    for row in values["results"]:
        assert row["runs"] >= benchmark.ROUNDS
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["nfe_per_s"] == pytest.approx(2 * row["images_per_s"])
        assert row["first_image_s"] > 0
        assert row["peak_mb"] > 10
        assert row["gflops"] > 0
        if row["of_matmul"] is None:  # on a busy machine a product may be slower than the network
            assert f"of matmul for fp32 on {row['backend']} at batch 1: its " in result.stderr
        else:
            assert 0 < row["of_matmul"] <= 1
            assert row["of_matmul"] == pytest.approx(row["gflops"] / values["peaks"]["1"]["fp32"]["gflops"])
    assert (values["nfe"], values["flop_per_call"]) == (2, 30_810_112)
    assert all(reason.startswith("of matmul for ") for reason in values["absent"])
    assert any(sentence.startswith("fastest: ") for sentence in values["verdicts"]["1"])
    peak = values["peaks"]["1"]["fp32"]
    assert (set(values["peaks"]["1"]), peak["precision"]) == ({"fp32"}, "fp32")
    assert peak["library"] in measured
    fastest = f"for fp32 {peak['gflops']:.0f} GFLOP/s ({peak['library']}, fp32)"
    assert f"\nfastest matrix product (1024 × 1024) at batch 1: {fastest}" in result.stderr
    assert {"cpu", "flags", "threads", "versions", "load_average"} <= set(values["environment"])
    assert "fp32 on torch" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_bench_of_an_inversion_prints_verdicts(digits_bundle: Path, cli: Cli):
    options = ("--seconds", 0.01, "--batch", "2,1", "--inversion", "invert-1", "--backend", "null")
    result = cli("bench", digits_bundle, *options)
    assert result.exit_code == 0, result.stderr
    # A caution is printed where other processes run beside the tests.
    sentences = [line for line in result.stdout.splitlines() if "caution" not in line]
    assert sentences == ["batch 1: fastest: fp32 on null", "batch 2: fastest: fp32 on null"]
    assert result.stderr.count("\nfp32 on null") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_bench_names_the_reason_for_a_precision_that_cannot_run(bundle_copy: Path, cli: Cli):
    def add_bf16(manifest: dict[str, Any]) -> None:
        # ONNX Runtime refuses the precision before it opens a graph.
        manifest["graphs"]["bf16"] = manifest["graphs"]["fp32"]

    edit_manifest(bundle_copy, add_bf16)
    result = cli("bench", bundle_copy, *FEW, "--backend", "onnxruntime", "--json")
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    assert [r["precision"] for r in values["results"]] == ["fp32"]
    (refused,) = values["not_run"]
    assert (refused["backend"], refused["precision"], refused["batch"]) == ("onnxruntime", "bf16", None)
    assert f"not run: bf16 on onnxruntime: {refused['reason']}" in result.stderr


@pytest.mark.usefixtures("brief")
def test_bench_without_onnx_reports_no_gflops(digits_bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    find_spec = importlib.util.find_spec

    def without_onnx(name: str, *rest: Any) -> Any:
        return None if name == "onnx" else find_spec(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_onnx)
    result = cli("bench", digits_bundle, *FEW, "--backend", "null", "--json")
    values = json.loads(result.stdout)
    assert values["flop_per_call"] is None
    assert values["results"][0]["gflops"] is None
    assert values["peaks"] == {"1": {}}
    assert values["absent"] == ["GFLOP/s: counting operations needs onnx; pip install '.[export]'"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--schedule", "nonsense"), "no schedule 'nonsense' in this bundle"),
        (("--precision", "int8"), "has no int8 graphs"),
        (("--precision", "fp64"), "unknown precision 'fp64'"),
        (("--batch", "0"), "a batch has at least 1 image, got 0"),
        (("--batch", "1,eight"), "expected a list of numbers such as 1,8, got "),
        (("--backend", "cuda"), "'cuda' is not one of"),
        (("--seconds", "0"), "0.0 is not in the range"),
        (("--precision", "bf16", "--backend", "onnxruntime"), "has no bf16 graphs"),
    ],
)
def test_bench_refuses_wrong_arguments(
    digits_bundle: Path, cli: Cli, arguments: tuple[str, ...], message: str
):
    result = cli("bench", digits_bundle, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_bench_is_refused_where_nothing_can_run(bundle_copy: Path, cli: Cli):
    edit_manifest(bundle_copy, lambda manifest: manifest.update(graphs={"bf16": manifest["graphs"]["fp32"]}))
    message = refusal(cli("bench", bundle_copy, "--backend", "onnxruntime"))
    assert "no variant can run on this machine (bf16 on onnxruntime: ONNX Runtime has no bfloat16" in message
