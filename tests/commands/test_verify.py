"""bcm-edge verify: bundles that pass, bundles that fail, and the verdicts in the manifest."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from archives import read_npz, write_npz
from fixture_types import Cli, Process
from refusals import edit_manifest, refusal, update_hashes
from results import only_json


def rewrite_golden(bundle: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change the recording of a bundle, and its hash in the manifest."""
    golden = bundle / "golden.npz"
    arrays = read_npz(golden)
    change(arrays)
    write_npz(golden, arrays)
    update_hashes(bundle)


def test_verify_accepts_an_exported_bundle(bundle_copy: Path, cli: Cli):
    report = only_json(cli("verify", bundle_copy, "--json").stdout)
    assert report["ok"] is True
    (fp32,) = report["precisions"]
    assert (fp32["precision"], fp32["backend"]) == ("fp32", "onnxruntime")
    assert (fp32["against"], fp32["bound"]) == ("torch", 1e-4)
    assert len(fp32["moves"]) == 48
    assert max(move["relative_l2"] for move in fp32["moves"]) == fp32["needed"] < 1e-4


def test_verify_fails_on_a_recording_that_disagrees(bundle_copy: Path, cli: Cli, process: Process):
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["states 80>0.002"] = arrays["states 80>0.002"] + np.float32(0.01)

    rewrite_golden(bundle_copy, change)
    assert cli("inspect", bundle_copy).exit_code == 0  # every hash is right
    completed = process("verify", bundle_copy, "--json")
    assert completed.returncode == 1
    report = only_json(completed.stdout)
    assert report["ok"] is False
    failed = [move for move in report["precisions"][0]["moves"] if not move["ok"]]
    assert {(move["schedule"], move["move"]) for move in failed} == {("80>0.002", "80>0.002")}
    result = cli("verify", bundle_copy)
    assert result.exit_code == 1
    verdict = r"fp32 on onnxruntime against torch: \S+, bound 1e-04: FAILED \(45 of 48 moves"
    assert re.search(verdict, result.stdout)
    assert "FAILED" in cli("inspect", bundle_copy).stdout


def test_verify_fails_with_a_bound_that_is_too_small(bundle_copy: Path, cli: Cli):
    assert cli("verify", bundle_copy, "--bound", "1e-12").exit_code == 1


def test_verify_fails_on_a_backend_that_computes_nothing(bundle_copy: Path, cli: Cli):
    assert cli("verify", bundle_copy, "--backend", "null").exit_code == 1


@pytest.mark.parametrize("reference", ["fp32", "torch"])
def test_verify_against_another_reference_needs_no_recording(bundle_copy: Path, cli: Cli, reference: str):
    edit_manifest(bundle_copy, lambda manifest: manifest["files"].pop("golden.npz"))
    assert "has no golden.npz to verify against" in cli("verify", bundle_copy).stderr
    report = only_json(cli("verify", bundle_copy, "--against", reference, "--json").stdout)
    assert report["ok"] is True and report["precisions"][0]["against"] == reference


def test_verdict_is_valid_only_for_the_files_that_were_verified(bundle_copy: Path, cli: Cli):
    assert "fp32 on onnxruntime against torch" in cli("inspect", bundle_copy).stdout
    file = bundle_copy / "forward.onnx"
    file.write_bytes(file.read_bytes())  # the verdict is still valid for the same bytes
    assert "fp32 on onnxruntime against torch" in cli("inspect", bundle_copy).stdout
    proto = onnx.load(file, load_external_data=False)
    proto.doc_string = "another"
    onnx.save(proto, file)
    update_hashes(bundle_copy)
    assert "fp32 on onnxruntime against torch" not in cli("inspect", bundle_copy).stdout


def test_verify_reports_that_verdicts_cannot_be_written(
    bundle_copy: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("bcm_edge.runtime.storage.rewriting.write_atomically", refuse)
    result = cli("verify", bundle_copy)
    assert result.exit_code == 0
    assert "the verdicts are not stored in the bundle: " in result.stderr
    assert "manifest.json: cannot be written (Permission denied)" in result.stderr


def test_verify_names_a_precision_that_is_not_in_the_bundle(bundle_copy: Path, cli: Cli):
    message = refusal(cli("verify", bundle_copy, "--precision", "int8"))
    command = f"bcm-edge calibrate {bundle_copy} --precision int8"
    assert message.endswith(f"has no int8 graphs (it has fp32); add them: {command}")
    message = refusal(cli("verify", bundle_copy, "--precision", "fp8"))
    assert message.endswith("has no fp8 graphs (it has fp32); export with --precision fp32,fp8")
