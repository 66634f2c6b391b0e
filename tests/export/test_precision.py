"""Precisions of a bundle: what is exported and verified, which backend runs it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Cli

from bcm_edge.errors import BackendError, BundleError, InputError
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.storage.bundle import open_bundle


def test_typed_refuses_what_has_no_16_bit_types(typed_bundle: Path):
    with pytest.raises(BackendError, match="int8 graphs have no 16-bit types to spell out"):
        open_backend("typed", open_bundle(typed_bundle), "int8")


@pytest.mark.parametrize("precision", ["", "fp4"])
def test_an_unknown_precision_is_refused(typed_bundle: Path, precision: str):
    with pytest.raises(
        InputError, match=f"unknown precision '{precision}'; choose from fp32, fp16, bf16, int8, all"
    ):
        open_backend("auto", open_bundle(typed_bundle), precision)


def test_bf16_on_onnxruntime_is_refused_with_the_way_out(typed_bundle: Path):
    with pytest.raises(BackendError, match="no bfloat16 convolutions on a CPU; take --backend openvino"):
        open_backend("onnxruntime", open_bundle(typed_bundle), "bf16")


def test_one_command_writes_and_verifies_four_precisions(typed_bundle: Path):
    bundle = open_bundle(typed_bundle)
    assert bundle.precisions == ["fp32", "fp16", "bf16", "int8"]
    verdicts = {(v.precision, v.backend): v for v in bundle.verdicts()}
    assert set(verdicts) >= {
        ("fp32", "onnxruntime"),
        ("fp16", "typed"),
        ("fp16", "onnxruntime"),
        ("bf16", "typed"),
    }
    assert {precision for precision, _ in verdicts} == set(bundle.precisions)
    bounds = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 2e-2, "int8": 6e-2}
    for (precision, _), verdict in verdicts.items():
        assert verdict.ok and verdict.bound == bounds[precision]
        assert verdict.needed is not None and 0 < verdict.needed <= verdict.bound
        assert verdict.batches == [1, 2, 5] and len(verdict.schedules) == 7
    needed = {key: verdict.needed for key, verdict in verdicts.items() if verdict.needed is not None}
    keys = ("fp32", "onnxruntime"), ("fp16", "onnxruntime"), ("fp16", "typed"), ("bf16", "typed")
    ascending = [needed[key] for key in keys]
    assert ascending == sorted(ascending)  # onnxruntime rounds less than a float16 graph asks for


def test_verify_goes_on_where_one_precision_cannot_run(typed_copy: Path, cli: Cli):
    ended = cli("verify", typed_copy, "--backend", "onnxruntime", "--json")
    assert ended.exit_code == 0, ended.output
    assert [p["precision"] for p in json.loads(ended.stdout)["precisions"]] == ["fp32", "fp16", "int8"]
    assert "bf16: NOT VERIFIED: onnxruntime: ONNX Runtime has no bfloat16 convolutions" in ended.stderr
    named = cli("verify", typed_copy, "--backend", "onnxruntime", "--precision", "bf16")
    assert named.exit_code == 2


def test_a_precision_alone(tmp_path: Path, cli: Cli):
    ended = cli("export", "-o", tmp_path / "b", "--precision", "fp16")
    assert ended.exit_code == 0, ended.output
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "forward.fp16.onnx",
        "golden.npz",
        "inverse.fp16.onnx",
        "manifest.json",
        "weights.fp16.bin",
    ]
    told = json.loads(
        cli("generate", tmp_path / "b", "--label", "3", "-o", tmp_path / "x.png", "--json").stdout
    )
    assert told["precision"] == "fp16"
    with pytest.raises(
        BundleError, match=r"has no fp32 graphs \(it has fp16\); export with --precision fp16,fp32"
    ):
        open_backend("auto", open_bundle(tmp_path / "b"), "fp32")


def test_the_default_is_the_most_exact(typed_bundle: Path):
    assert open_backend("auto", open_bundle(typed_bundle)).precision == "fp32"


def test_pictures_in_every_precision_are_the_same_pictures(typed_bundle: Path, tmp_path: Path, cli: Cli):
    images = {}
    for precision, backend in (("fp32", "auto"), ("fp16", "auto"), ("bf16", "typed"), ("int8", "auto")):
        out = tmp_path / f"{precision}.npz"
        options = (
            "-n",
            10,
            "--label",
            "all",
            "--schedule",
            "mixture-4",
            "--precision",
            precision,
            "--backend",
            backend,
        )
        assert cli("generate", typed_bundle, *options, "-o", out).exit_code == 0
        images[precision] = np.load(out)["images"]
    for precision, bound in (("fp16", 0.005), ("bf16", 0.02), ("int8", 0.06)):
        assert 0 < np.sqrt(np.mean((images[precision] - images["fp32"]) ** 2)) <= bound, precision


def test_calibration_data_without_int8_is_a_usage_error(cli: Cli, tmp_path: Path):
    ended = cli("export", "-o", tmp_path / "b", "--data", "digits")
    assert ended.exit_code == 2
    assert "are options for int8" in ended.output


def test_a_precision_that_does_not_exist(cli: Cli, tmp_path: Path):
    ended = cli("export", "-o", tmp_path / "b", "--precision", "fp32,fp8")
    assert ended.exit_code == 2
    assert "unknown precision 'fp8'; choose from fp32, fp16, bf16, int8, all" in ended.output
