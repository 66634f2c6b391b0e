"""The report of benchmarks/gpu.py on fixed figures: environment, times, targets, and what was not run."""

from __future__ import annotations

from dataclasses import replace

from gpu_figures import ENVIRONMENT, GPU, engine_beside_torch, measured, reports, results, row

CUDA = "ONNX Runtime CUDA fp16"
USED_UP = "the time budget of 300 s was used up"
CHAIN = "a chain of 4 moves takes at most 1.03 times the sum of its engine times"
FASTER_1 = "TensorRT fp16 is at least 1.5 times as fast as torch.compile at batch 1"
FASTER_256 = "TensorRT fp16 is at least 1.1 times as fast as torch.compile at batch 256"
SHARE = "TensorRT fp16 reaches at least 50% of the fp16 matrix product at batch 256"

# Targets


def test_targets_that_are_met():
    figures = [engine_beside_torch(1, 2.0, 3.6), engine_beside_torch(256, 100.0, 130.0, 0.55)]
    assert reports.targets(figures) == [
        f"met: {CHAIN}: batch 1 1.025, batch 256 1.025",
        f"met: {FASTER_1}: one-step 1.80",
        f"met: {FASTER_256}: one-step 1.30",
        f"met: {SHARE}: one-step 55%",
        "met: the last state is within 5e-03 of torch in float32: TensorRT fp16 1.0e-03",
    ]


def test_target_is_missed_if_one_schedule_misses_it():
    rows = [row(results.TENSORRT, "one-step", 100.0, 0.51), row(results.COMPILED, "one-step", 120.0)]
    rows += [row(results.TENSORRT, "mixture-4", 400.0, 0.49, 6e-3), row(results.COMPILED, "mixture-4", 420.0)]
    figures = [measured(256, rows, results.Chain(412.5, 401.0, [100.0] * 4))]
    chain, batch_1, compiled, share, error = reports.targets(figures)
    assert chain.startswith("missed: a chain of 4 moves")
    assert chain.endswith("batch 256 1.031")
    assert batch_1.endswith("at batch 1: batch 1 was not measured")
    assert compiled.startswith("missed: TensorRT fp16 is at least 1.1 times")
    assert compiled.endswith("one-step 1.20, mixture-4 1.05")
    assert share.startswith("missed: TensorRT fp16 reaches at least 50%")
    assert share.endswith("one-step 51%, mixture-4 49%")
    assert error == "missed: the last state is within 5e-03 of torch in float32: TensorRT fp16 6.0e-03"


def test_target_is_missed_by_a_state_with_nan():
    rows = [row(CUDA, "one-step", 2.0, error=float("nan")), row(CUDA, "mixture-4", 2.0, error=1e-3)]
    last = reports.targets([measured(1, rows)])[-1]
    assert last == "missed: the last state is within 5e-03 of torch in float32: ONNX Runtime CUDA fp16 nan"


def test_ratio_of_variants_that_did_not_take_turns_is_marked():
    rows = [row(results.TENSORRT, "one-step", 2.0, in_turn=False), row(results.COMPILED, "one-step", 4.0)]
    assert reports.targets([measured(1, rows)])[1].endswith(": one-step, not in turn, 2.00")


def test_targets_without_figures_have_a_reason():
    absent = {results.TENSORRT: "tensorrt is not installed", f"{results.COMPILED}, one-step": USED_UP}
    no_engine = "TensorRT fp16: tensorrt is not installed"
    assert reports.targets([measured(1, [row(results.EAGER, "one-step", 9.0)], None, absent)]) == [
        f"not run: {CHAIN}: {no_engine}",
        f"not run: {FASTER_1}: {no_engine}; torch.compile fp16, one-step: {USED_UP}",
        f"not run: {FASTER_256}: batch 256 was not measured",
        f"not run: {SHARE}: batch 256 was not measured",
        f"not run: the last state is within 5e-03 of torch in float32: {no_engine}",
    ]


def test_chain_without_a_schedule_of_four_moves_was_not_run():
    rows = [row(results.TENSORRT, "one-step", 2.0), row(results.COMPILED, "one-step", 4.0)]
    assert reports.targets([measured(1, rows)])[0].endswith(": no schedule of 4 moves was measured")


# Tables


def test_table_is_in_the_order_of_schedules_and_variants():
    rows = [
        row(results.TENSORRT, "one-step", 2.0, 0.5),
        row(results.TENSORRT, "invert-2", 4.0, 0.5),
        row(results.COMPILED, "one-step", 3.0),
        row(results.EAGER, "one-step", 9.0),
    ]
    times, rest = "p50 ms | p90 | p99 | images/s | × torch.compile", "TFLOP/s | of matmul | rel. L2"
    assert reports.table([measured(1, rows)]) == [
        f"| batch | schedule | variant | {times} | {rest} |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| 1 | one-step | torch eager fp16 | 9.00 | 10.00 | 11.00 | 111.1 | 0.33 | 300 | 40% | 1.0e-03 |",
        "| 1 | one-step | TensorRT fp16 | 2.00 | 3.00 | 4.00 | 500.0 | 1.50 | 300 | 50% | 1.0e-03 |",
        "| 1 | one-step | torch.compile fp16 | 3.00 | 4.00 | 5.00 | 333.3 | 1.00 | 300 | 40% | 1.0e-03 |",
        "| 1 | invert-2 | TensorRT fp16 | 4.00 | 5.00 | 6.00 | 250.0 | – | 300 | 50% | 1.0e-03 |",
    ]


def test_options_are_compared_with_tensorrt():
    rows = [row(results.TENSORRT, "one-step", 2.0), row(results.PROFILES, "one-step", 1.0)]
    figures = measured(256, rows)
    figures.variants = list(results.SETS["options"])
    header, _, first, second = reports.table([figures])
    assert header.split(" | ")[7] == "× TensorRT"
    assert [line.split(" | ")[2::5] for line in (first, second)] == [
        ["TensorRT fp16", "1.00"],
        ["TensorRT fp16, three profiles", "2.00"],
    ]
    assert reports.targets([figures])[2].endswith("torch.compile fp16 was not asked for")


def test_errors_of_8_bits_are_not_judged_by_the_bound_of_fp16():
    rows = [row(results.FP8, "one-step", 1.0, error=4e-2), row(results.TENSORRT, "one-step", 1.0)]
    figures = measured(256, rows)
    figures.variants = list(results.SETS["options"])
    assert reports.targets([figures])[-1].endswith(": TensorRT fp16 1.0e-03")


def test_table_claims_no_difference_within_noise():
    rows = [
        row(results.TENSORRT, "one-step", 2.9, spread=0.3),
        row(results.COMPILED, "one-step", 3.0, spread=0.3),
    ]
    _, _, engine, compiled, _, legend = reports.table([measured(1, rows)])
    assert (engine.split(" | ")[7], compiled.split(" | ")[7]) == ("=", "1.00")
    assert legend == "=: no difference beyond noise."


def test_table_marks_variants_that_did_not_take_turns():
    rows = [row(results.TENSORRT, "one-step", 2.9, in_turn=False), row(results.COMPILED, "one-step", 9.0)]
    _, _, engine, compiled, _, legend = reports.table([measured(1, rows)])
    assert (" TensorRT fp16 \\* " in engine, "\\*" in compiled) == (True, False)
    assert legend == "\\*: in turn with the matrix product only, not with the other variants."


def test_report_is_markdown_with_the_environment_first():
    lines = reports.report("imagenet64", [engine_beside_torch(1, 2.0, 3.6)], ["batch 16 again: a reason"])
    engines = "1.000 + 1.000 + 1.000 + 1.000"
    assert lines[:8] == [
        "| environment | |",
        "|---|---|",
        "| network | imagenet64, random weights |",
        f"| GPU | {GPU} |",
        "| versions | python 3.12.3, torch 2.13.0 |",
        "| fp16 matrix product, batch 1 | 750 TFLOP/s |",
        "| noise on the host, not in the times below, batch 1 | one-step 0.5 ms |",
        f"| TensorRT fp16, 4 moves, batch 1 | 4.100 ms, without copies 4.020 ms; engines {engines} ms |",
    ]
    assert "| 1 | torch eager fp16 | torch eager fp16 on cuda | 12 |" in lines
    targets, not_run = lines.index("Targets:"), lines.index("Not run:")
    assert lines[targets + 2].startswith("- met: a chain of 4 moves")
    assert lines[not_run + 2] == "- batch 16 again: a reason"
    assert not any(line.startswith("#") for line in lines)


def test_report_distinguishes_two_environments():
    other = {"gpu": "NVIDIA A10G", "versions": {"python": "3.11.9"}}
    figures = [
        engine_beside_torch(1, 2.0, 3.6),
        replace(engine_beside_torch(16, 2.0, 3.6), environment=other),
    ]
    lines = reports.environments("digits", figures)
    assert lines[2] == "| network | digits |"
    assert lines[3:7] == [
        f"| GPU, batch 1 | {ENVIRONMENT['gpu']} |",
        "| versions, batch 1 | python 3.12.3, torch 2.13.0 |",
        "| GPU, batch 16 | NVIDIA A10G |",
        "| versions, batch 16 | python 3.11.9 |",
    ]


def test_digits_have_no_targets():
    lines = reports.report("digits", [engine_beside_torch(1, 2.0, 3.6)])
    assert "- not judged: the targets are set for imagenet64" in lines
    assert not any(line.startswith(("- met", "- missed")) for line in lines)


# What was not run


def test_variants_that_were_not_run_are_listed_once_per_reason():
    absent = {results.TENSORRT: "tensorrt is not installed", results.COMPILED: USED_UP}
    figures = [measured(1, [], None, absent), measured(16, [], None, {**absent, CUDA: USED_UP})]
    assert reports.not_run(figures) == [
        "TensorRT fp16 at batch 1, 16: tensorrt is not installed",
        f"torch.compile fp16 at batch 1, 16: {USED_UP}",
        f"ONNX Runtime CUDA fp16 at batch 16: {USED_UP}",
        "batch 256: not asked for",
        "TensorRT in fp32, bf16 and int8: `make test-gpu` builds and checks them on the digits",
    ]


def test_report_of_a_call_that_measured_nothing():
    figures = [
        measured(batch, [], None, dict.fromkeys(results.SETS["main"], USED_UP)) for batch in (1, 16, 256)
    ]
    lines = reports.report("imagenet64", figures)
    assert "Nothing was measured." in lines
    assert f"- every variant at batch 1, 16, 256: {USED_UP}" in lines
    assert not any("images/s" in line for line in lines)
