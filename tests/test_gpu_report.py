"""What benchmarks/gpu.py says of its figures: targets, the table, and what was not run, on fixed numbers."""

from __future__ import annotations

from gpu_figures import GPU, engine_beside_torch, measured, reports, row

# Targets


def test_targets_that_are_met() -> None:
    found = [engine_beside_torch(1, 2.0, 3.6), engine_beside_torch(256, 100.0, 130.0, 0.55)]
    assert reports.targets(found) == [
        "met: a chain of 4 moves costs ≤ 1.03× the sum of its engine times: batch 1 1.025×, batch 256 1.025×",
        "met: TensorRT fp16 ≥ 1.5× torch.compile at batch 1: one-step 1.80×",
        "met: TensorRT fp16 ≥ 1.1× torch.compile at batch 256: one-step 1.30×",
        "met: TensorRT fp16 ≥ 50% of the fp16 matrix product at batch 256: one-step 55%",
        "met: after all moves within 5e-03 of torch in float32: TensorRT fp16 1.0e-03",
    ]


def test_target_is_missed_where_one_schedule_misses_it() -> None:
    rows = [row(reports.TENSORRT, "one-step", 100.0, 0.51), row(reports.COMPILED, "one-step", 120.0)]
    rows += [row(reports.TENSORRT, "mixture-4", 400.0, 0.49, 6e-3), row(reports.COMPILED, "mixture-4", 420.0)]
    chain, *_, compiled, share, parity = reports.targets([measured(256, rows, reports.Chain(412.5, 401.0, [100.0] * 4))])
    assert chain == "missed: a chain of 4 moves costs ≤ 1.03× the sum of its engine times: batch 256 1.031×"
    assert compiled == "missed: TensorRT fp16 ≥ 1.1× torch.compile at batch 256: one-step 1.20×, mixture-4 1.05×"
    assert share == "missed: TensorRT fp16 ≥ 50% of the fp16 matrix product at batch 256: one-step 51%, mixture-4 49%"
    assert parity == "missed: after all moves within 5e-03 of torch in float32: TensorRT fp16 6.0e-03"


def test_targets_that_nothing_was_run_for_say_why() -> None:
    absent = {reports.TENSORRT: "tensorrt is not installed", reports.COMPILED: "TooLong: not ready within 450 s"}
    assert reports.targets([measured(1, [row(reports.EAGER, "one-step", 9.0)], None, absent)]) == [
        "not run: a chain of 4 moves costs ≤ 1.03× the sum of its engine times: TensorRT fp16: tensorrt is not installed",
        "not run: TensorRT fp16 ≥ 1.5× torch.compile at batch 1: TensorRT fp16: tensorrt is not installed; "
        "torch.compile fp16: TooLong: not ready within 450 s",
        "not run: TensorRT fp16 ≥ 1.1× torch.compile at batch 256: batch 256 was not measured",
        "not run: TensorRT fp16 ≥ 50% of the fp16 matrix product at batch 256: batch 256 was not measured",
        "not run: after all moves within 5e-03 of torch in float32: TensorRT fp16: tensorrt is not installed",
    ]


def test_chain_without_a_schedule_of_four_moves_was_not_run() -> None:
    rows = [row(reports.TENSORRT, "one-step", 2.0), row(reports.COMPILED, "one-step", 4.0)]
    assert reports.targets([measured(1, rows)])[0].endswith("engine times: no schedule of 4 moves was measured")


# The report


def test_table() -> None:
    rows = [row(reports.EAGER, "one-step", 9.0), row(reports.TENSORRT, "one-step", 2.0, 0.5), row(reports.COMPILED, "one-step", 3.0)]
    assert reports.table([measured(1, rows)]) == [
        "| batch | schedule | variant | p50 ms | p90 | p99 | images/s | × torch.compile | TFLOP/s | of matmul | rel. L2 |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| 1 | one-step | torch eager fp16 | 9.00 | 10.00 | 11.00 | 111.1 | 0.33 | 300.0 | 40% | 1.0e-03 |",
        "| 1 | one-step | TensorRT fp16 | 2.00 | 3.00 | 4.00 | 500.0 | 1.50 | 300.0 | 50% | 1.0e-03 |",
        "| 1 | one-step | torch.compile fp16 | 3.00 | 4.00 | 5.00 | 333.3 | 1.00 | 300.0 | 40% | 1.0e-03 |",
    ]


def test_table_claims_no_difference_within_noise() -> None:
    rows = [
        row(reports.TENSORRT, "one-step", 2.9, spread=0.3),
        row(reports.COMPILED, "one-step", 3.0, spread=0.3),
        row(reports.EAGER, "invert-2", 9.0),
    ]
    engine, compiled, eager = (line.split(" | ")[7] for line in reports.table([measured(1, rows)])[2:])
    assert (engine, compiled, eager) == ("=", "1.00", "–")


def test_report_of_torch_alone_says_so() -> None:
    found = measured(1, [row(reports.EAGER, "one-step", 9.0)], None, {reports.TENSORRT: "tensorrt is not installed"})
    said = reports.report("imagenet64", [found])
    assert said[0] == f"imagenet64 on {GPU}"
    assert "batch 1: torch 2.11.0" in said
    assert "batch 1: torch eager fp16: torch eager fp16 played; ready after 12 s" in said
    assert "batch 1: fp16 matrix product 750 TFLOP/s" in said
    assert "batch 1: noise, in no time above: one-step 0.5 ms" in said
    assert "torch alone was measured: neither TensorRT nor a GPU provider of ONNX Runtime could play here" in said


def test_report_of_an_engine_has_its_chain() -> None:
    said = reports.report("imagenet64", [engine_beside_torch(1, 2.0, 3.6)])
    assert "batch 1: chain 4.100 ms, 4.020 without copies; engines 1.000 + 1.000 + 1.000 + 1.000 ms" in said
    assert not any(line.startswith("torch alone") for line in said)


def test_digits_have_no_targets() -> None:
    said = reports.report("digits", [engine_beside_torch(1, 2.0, 3.6)])
    assert "no targets: they are set for imagenet64" in said
    assert not any(line.startswith(("met", "missed")) for line in said)


def test_what_was_not_run_is_listed() -> None:
    absent = {reports.TENSORRT: "tensorrt is not installed"}
    found = [measured(1, [], None, absent), measured(16, [], None, {**absent, reports.COMPILED: "TooLong: not ready within 450 s"})]
    assert reports.not_run(found) == [
        "not run: TensorRT fp16 at batch 1, 16: tensorrt is not installed",
        "not run: torch.compile fp16 at batch 16: TooLong: not ready within 450 s",
        "not run: batch 256: not asked for, or its process failed",
        "not run: TensorRT in fp32, bf16 and int8: make test-gpu builds and checks them on the digits",
    ]
