"""The cache of optimised graphs: several processes, damaged entries, and a folder that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixture_types import ROOT, Cli
from results import assert_same_results


def test_two_processes_with_an_empty_cache_both_succeed(digits_bundle: Path, tmp_path: Path):
    environment = {**os.environ, "BCM_EDGE_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(ROOT / "cli.py"), "generate", str(digits_bundle), "--label", "3", "-o"]
    files = [tmp_path / "0.npz", tmp_path / "1.npz"]
    processes = [
        subprocess.Popen([*command, str(file)], env=environment, stderr=subprocess.PIPE, text=True)
        for file in files
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert_same_results(*files)
    assert len(list((tmp_path / "cache" / "onnxruntime").iterdir())) == 1  # one entry, no temporary folder


def test_damaged_cache_entry_is_replaced(
    digits_bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "cache"))
    assert cli("generate", digits_bundle, "-n", 2, "--label", 3, "-o", tmp_path / "before.npz").exit_code == 0
    (weights,) = (tmp_path / "cache" / "onnxruntime").glob("*/forward/optimised.bin")
    good = weights.read_bytes()
    with weights.open("r+b") as file:
        file.seek(len(good) // 2)
        file.write(bytes(byte ^ 0x7F for byte in good[len(good) // 2 :][:4096]))
    assert cli("generate", digits_bundle, "-n", 2, "--label", 3, "-o", tmp_path / "after.npz").exit_code == 0
    assert_same_results(tmp_path / "after.npz", tmp_path / "before.npz")
    assert weights.read_bytes() == good


def test_images_are_the_same_where_the_cache_cannot_be_written(
    digits_bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert cli("generate", digits_bundle, "--label", 3, "-o", tmp_path / "a.npz").exit_code == 0
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert cli("generate", digits_bundle, "--label", 3, "-o", tmp_path / "b.npz").exit_code == 0
    assert_same_results(tmp_path / "b.npz", tmp_path / "a.npz")
