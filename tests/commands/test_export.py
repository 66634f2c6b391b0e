"""bcm-edge export: the bundle that it writes, what it prints, and --dry-run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from fixture_types import Cli, Completed
from refusals import refusal
from results import only_json

Exported = tuple[Path, Completed]


def test_export_writes_all_files_and_no_temporary_folder(exported: Exported):
    bundle, completed = exported
    assert completed.returncode == 0
    assert sorted(file.name for file in bundle.iterdir()) == [
        "forward.onnx",
        "golden.npz",
        "inverse.onnx",
        "manifest.json",
        "weights.bin",
    ]
    assert [file.name for file in bundle.parent.iterdir() if file.name.startswith(".")] == []


def test_export_prints_the_bundle_on_stdout_and_progress_on_stderr(exported: Exported):
    _, completed = exported
    assert completed.stdout == "digits.bundle\n"
    assert "checkpoint: " in completed.stderr
    line = r"^fp32: forward \d\.\de-0[67], inverse \d\.\de-0[67] ✓, 3\.1 MB\nnext:\n"
    assert re.search(line, completed.stderr, re.MULTILINE)
    assert len(completed.stderr.splitlines()) == 6


def test_export_prints_a_line_per_precision(cli: Cli, tmp_path: Path):
    options = ("--precision", "fp32,fp16,bf16", "--verify", "auto")
    result = cli("export", "-o", tmp_path / "a.bundle", *options)
    lines = re.findall(r"^(\w+): forward \S+, inverse \S+ ✓, (\d\.\d) MB$", result.stderr, re.MULTILINE)
    assert lines == [("fp32", "3.1"), ("fp16", "2.0"), ("bf16", "2.0")]


def test_export_prints_details_with_verbose(cli: Cli, tmp_path: Path):
    text = cli("export", "-o", tmp_path / "a.bundle", "-v").stderr
    assert re.search(r"fp32 on onnxruntime against torch: \S+, bound 1e-04: ok \(48 moves in ", text)
    assert re.search(r"^\+0\.07 0\.07>1\.25>80 +1\.25>80  \d\.\de-07$", text, re.MULTILINE)


def test_quiet_export_prints_the_bundle_alone(cli: Cli, tmp_path: Path):
    result = cli("export", "-o", tmp_path / "a.bundle", "--no-verify", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tmp_path}/a.bundle\n", "")


def test_stages_of_a_long_export_are_printed_in_a_pipe(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bcm_edge.commands.console.PERIOD", 0.0)
    text = cli("export", "-o", tmp_path / "a.bundle").stderr
    assert re.search(r"^fp32: forward and inverse, 3\.1 MB, written and checked in", text, re.MULTILINE)
    assert "\r" not in text


def test_export_prints_next_commands_that_work(
    exported: Exported, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bundle, completed = exported
    (tmp_path / "digits.bundle").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    lines = completed.stderr.partition("next:\n")[2].splitlines()
    assert [line.split()[1] for line in lines] == ["generate", "inspect", "verify"]
    for line in lines:
        assert cli(*shlex.split(line)[1:]).exit_code == 0, line
    assert (tmp_path / "images.png").is_file()


def test_export_dry_run_writes_nothing(cli: Cli, tmp_path: Path):
    result = cli("export", "-o", tmp_path / "sub" / "a.bundle", "--dry-run")
    assert result.exit_code == 0
    files = "forward.onnx, inverse.onnx, weights.bin (weights in fp32: 3.0 MB)"
    assert result.stdout.startswith(f"would write {tmp_path}/sub/a.bundle: {files}")
    assert list(tmp_path.iterdir()) == []


def test_export_dry_run_json_describes_the_model(cli: Cli, tmp_path: Path):
    report = only_json(cli("export", "-o", tmp_path / "a.bundle", "--dry-run", "--json").stdout)
    assert report["dry_run"] is True
    assert report["parameters"] == 759489
    assert report["config"]["image_size"] == 8
    assert len(report["to_verify"]) == 7
    assert report["to_verify"][0] == "80>0.002" and report["to_verify"][-1] == "+0.07 0.07>1.25>80>0.002"


def test_export_no_verify_leaves_out_the_recording(cli: Cli, tmp_path: Path):
    result = cli("export", "-o", tmp_path / "a.bundle", "--no-verify", "--json")
    assert result.exit_code == 0
    assert only_json(result.stdout)["verification"] == {}
    assert "fp32: not verified, 3.1 MB\n" in result.stderr
    assert not (tmp_path / "a.bundle" / "golden.npz").exists()
    assert "has no golden.npz to verify against" in refusal(cli("verify", tmp_path / "a.bundle"))
