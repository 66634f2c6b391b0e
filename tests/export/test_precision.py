"""Precisions of a bundle: what is exported and verified, which backend runs it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from archives import read_npz
from fixture_types import Cli
from results import only_json

from bcm_edge.errors import BackendError, BundleError, InputError
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.storage.bundle import open_bundle


def test_typed_backend_refuses_int8(typed_bundle: Path):
    with pytest.raises(BackendError, match="int8 graphs have no 16-bit types"):
        open_backend("typed", open_bundle(typed_bundle), "int8")


@pytest.mark.parametrize("precision", ["", "fp4"])
def test_unknown_precision_is_refused_by_a_backend(typed_bundle: Path, precision: str):
    message = f"unknown precision '{precision}'; choose one of fp32, fp16, bf16, int8, int8-fp16, fp8"
    with pytest.raises(InputError, match=message):
        open_backend("auto", open_bundle(typed_bundle), precision)


def test_bf16_on_onnxruntime_is_refused_with_another_backend(typed_bundle: Path):
    with pytest.raises(BackendError, match="no bfloat16 convolutions on a CPU; use backend='openvino'"):
        open_backend("onnxruntime", open_bundle(typed_bundle), "bf16")


def test_one_command_writes_and_verifies_four_precisions(typed_bundle: Path):
    bundle = open_bundle(typed_bundle)
    assert bundle.precisions == ["fp32", "fp16", "bf16", "int8"]
    verdicts = {(v.precision, v.backend): v for v in bundle.verdicts()}
    keys = ("fp32", "onnxruntime"), ("fp16", "onnxruntime"), ("fp16", "typed"), ("bf16", "typed")
    assert set(verdicts) >= set(keys)
    assert {precision for precision, _ in verdicts} == set(bundle.precisions)
    bounds = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 2e-2, "int8": 6e-2}
    for (precision, _), verdict in verdicts.items():
        assert verdict.ok
        assert verdict.bound == bounds[precision]
        assert verdict.needed is not None and 0 < verdict.needed <= verdict.bound
        assert verdict.batches == [1, 2, 5]
        assert len(verdict.schedules) == 7
    needed = {key: verdict.needed for key, verdict in verdicts.items() if verdict.needed is not None}
    ascending = [needed[key] for key in keys]
    assert ascending == sorted(ascending)  # onnxruntime keeps float32 where the float16 graph rounds


def test_verify_continues_where_one_precision_cannot_run(typed_copy: Path, cli: Cli):
    result = cli("verify", typed_copy, "--backend", "onnxruntime", "--json")
    assert result.exit_code == 0, result.output
    verified = [entry["precision"] for entry in only_json(result.stdout)["precisions"]]
    assert verified == ["fp32", "fp16", "int8"]
    assert "bf16: NOT VERIFIED: onnxruntime: ONNX Runtime has no bfloat16 convolutions" in result.stderr
    named = cli("verify", typed_copy, "--backend", "onnxruntime", "--precision", "bf16")
    assert named.exit_code == 2


def test_export_of_fp16_alone(tmp_path: Path, cli: Cli):
    result = cli("export", "-o", tmp_path / "b", "--precision", "fp16")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "forward.fp16.onnx",
        "golden.npz",
        "inverse.fp16.onnx",
        "manifest.json",
        "weights.fp16.bin",
    ]
    generated = cli("generate", tmp_path / "b", "--label", "3", "-o", tmp_path / "x.png", "--json")
    assert only_json(generated.stdout)["precision"] == "fp16"
    message = r"has no fp32 graphs \(it has fp16\); export with --precision fp16,fp32"
    with pytest.raises(BundleError, match=message):
        open_backend("auto", open_bundle(tmp_path / "b"), "fp32")


def test_export_of_half_normalisations(tmp_path: Path, cli: Cli):
    """They are inexact, but within the bound, and the bundle names the type."""
    options = ("--precision", "fp16", "--fp16-norms", "half", "--json")
    report = only_json(cli("export", "-o", tmp_path / "b", *options).stdout)
    assert report["fp16_norms"] == "half"
    largest = max(move["relative_l2"] for move in report["verification"]["fp16"])
    assert 1e-3 < largest < 5e-3
    inspected = cli("inspect", tmp_path / "b")
    assert "\nfp16_norms: half\n" in inspected.stdout
    assert only_json(cli("inspect", tmp_path / "b", "--json").stdout)["provenance"]["fp16_norms"] == "half"


def test_half_normalisations_without_fp16_are_refused(cli: Cli, tmp_path: Path):
    result = cli("export", "-o", tmp_path / "b", "--fp16-norms", "half")
    assert result.exit_code == 2
    message = "--fp16-norms half is for fp16, int8-fp16 and fp8 graphs; add one of these to --precision"
    assert message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_default_precision_is_the_most_exact(typed_bundle: Path):
    assert open_backend("auto", open_bundle(typed_bundle)).precision == "fp32"


def test_images_in_every_precision_are_close_to_those_in_float32(
    typed_bundle: Path, tmp_path: Path, cli: Cli
):
    images = {}
    for precision, backend in (("fp32", "auto"), ("fp16", "auto"), ("bf16", "typed"), ("int8", "auto")):
        output = tmp_path / f"{precision}.npz"
        sampling = ("-n", 10, "--label", "all", "--schedule", "mixture-4")
        options = ("--precision", precision, "--backend", backend, "-o", output)
        assert cli("generate", typed_bundle, *sampling, *options).exit_code == 0
        images[precision] = read_npz(output)["images"]
    for precision, bound in (("fp16", 0.005), ("bf16", 0.02), ("int8", 0.06)):
        assert 0 < np.sqrt(np.mean((images[precision] - images["fp32"]) ** 2)) <= bound, precision


def test_calibration_data_without_int8_is_refused(cli: Cli, tmp_path: Path):
    result = cli("export", "-o", tmp_path / "b", "--data", "digits")
    assert result.exit_code == 2
    assert "are options for int8" in result.output


def test_unknown_precision_is_refused_by_export(cli: Cli, tmp_path: Path):
    result = cli("export", "-o", tmp_path / "b", "--precision", "fp32,fp4")
    assert result.exit_code == 2
    known = "fp32, fp16, bf16, int8, int8-fp16, fp8, all"
    assert f"unknown precision 'fp4'; choose from {known}" in result.output
