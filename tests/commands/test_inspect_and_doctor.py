"""bcm-edge inspect and doctor, and commands where packages are not installed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from fixture_types import Cli, Process
from results import only_json


def test_inspect_shows_model_schedules_and_files(digits_bundle: Path, cli: Cli):
    text = cli("inspect", digits_bundle).stdout
    assert text.startswith("digits: 1×8×8, 10 classes, 0.76 M parameters\n")
    assert re.search(r"^one-step +1 +80>0\.002 +Fréchet ratio 1\.97 on digits \(test\)$", text, re.MULTILINE)
    assert re.search(r"^schedule +NFE +levels +quality$", text, re.MULTILINE)
    assert re.search(r"^weights\.bin +3038020 +[0-9a-f]{12}$", text, re.MULTILINE)
    assert "\ncheckpoint:\n  name: digits.safetensors\n  sha256: " in text
    assert max(map(len, text.splitlines())) <= 120
    report = only_json(cli("inspect", digits_bundle, "--json").stdout)
    assert report["schema"] == 1
    assert report["model"]["sample_shape"] == [1, 8, 8]
    digest = hashlib.sha256((digits_bundle / "weights.bin").read_bytes()).hexdigest()
    assert report["files"]["weights.bin"] == {"size": 3038020, "sha256": digest}


def test_doctor_reports_that_bundles_can_run(digits_bundle: Path, cli: Cli):
    result = cli("doctor", digits_bundle)
    assert result.exit_code == 0
    assert "✓ backend onnxruntime: can run bundles\n" in result.stdout
    assert result.stdout.endswith("bundles can run on this machine\n")
    assert only_json(cli("doctor", "--json").stdout)["ok"] is True


def test_doctor_fails_on_a_damaged_bundle(bundle_copy: Path, cli: Cli):
    (bundle_copy / "weights.bin").unlink()
    result = cli("doctor", bundle_copy)
    assert result.exit_code == 1
    assert "✗ bundle: " in result.stdout
    assert "weights.bin is missing" in result.stdout


def test_doctor_prints_install_commands_where_no_backend_is_installed(bare_python: Process):
    completed = bare_python("doctor")
    assert completed.returncode == 1, completed.stderr
    assert "✗ backend onnxruntime: onnxruntime is not installed\n" in completed.stdout
    assert "onnxruntime is not installed\n    fix: pip install '.[run]'\n" in completed.stdout
    assert "    fix: pip install '.[export]'\n" in completed.stdout
    assert completed.stdout.endswith("bundles cannot run on this machine yet\n")


def test_generate_without_extras_runs_only_the_null_backend(
    bare_python: Process, digits_bundle: Path, tmp_path: Path
):
    arguments = ("generate", digits_bundle, "--label", 3)
    completed = bare_python(*arguments, "--backend", "null", "-o", tmp_path / "a.png")
    assert completed.returncode == 0, completed.stderr
    refused = bare_python(*arguments, "-o", tmp_path / "b.png")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: no backend can run fp32 here; "
        "onnxruntime: onnxruntime is not installed; pip install '.[run]'; "
        "openvino: openvino is not installed; pip install '.[openvino]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "extra"), [(("export",), "export"), (("train", "--data", "digits"), "train")]
)
def test_command_without_its_extra_names_the_extra(
    bare_python: Process, tmp_path: Path, arguments: tuple[str, ...], extra: str
):
    completed = bare_python(*arguments, "-o", tmp_path / "out")
    assert completed.returncode == 2
    assert completed.stderr.startswith("error: this command needs packages that are not installed (torch, ")
    assert completed.stderr.endswith(f"; pip install '.[{extra}]'\n")
    assert completed.stderr.count("\n") == 1
