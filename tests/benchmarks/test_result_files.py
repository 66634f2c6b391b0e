"""The result files of benchmarks, and the script that keeps the output of a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gpu_figures import BENCHMARKS


def record(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "record.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_result_file_has_figures_command_date_and_machine(tmp_path: Path):
    file = tmp_path / "results" / "own.json"
    completed = record("-o", file, sys.executable, "-c", "print('{\"ms\": 1.5}')")
    assert completed.returncode == 0, completed.stderr
    values = json.loads(file.read_text())
    assert values["figures"] == {"ms": 1.5}
    assert values["command"] == f"{sys.executable} -c 'print('\"'\"'{{\"ms\": 1.5}}'\"'\"')'"
    assert values["date"].endswith("+00:00")
    assert values["environment"]["threads"] >= 1
    assert set(values["environment"]["versions"]) >= {"python", "numpy"}


def test_a_command_that_fails_writes_nothing(tmp_path: Path):
    file = tmp_path / "own.json"
    completed = record("-o", file, sys.executable, "-c", "import sys; print('{}'); sys.exit(3)")
    assert completed.returncode == 1
    assert "ended with exit code 3" in completed.stderr
    assert not file.exists()


def test_output_that_is_not_json_is_refused(tmp_path: Path):
    file = tmp_path / "own.json"
    completed = record("-o", file, sys.executable, "-c", "print('done')")
    assert completed.returncode == 1
    assert "did not print one JSON object" in completed.stderr
    assert not file.exists()


def test_tables_of_scale_are_products_of_the_seconds_per_call(tmp_path: Path):
    file = tmp_path / "scale.json"
    command = [sys.executable, str(BENCHMARKS / "scale.py"), "-o", str(file)]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    row = json.loads(file.read_text())["figures"]["tables"]["generate, mixture-4 (4 calls)"]
    int8 = row["one x86-64 core, int8 on ONNX Runtime"]
    assert int8["call_ms"] == 973
    assert abs(int8["images_per_s"] - 1 / (4 * 0.973)) < 1e-9
    assert abs(int8["hours_per_million"] - 4 * 0.973e6 / 3600) < 1e-6
    assert (
        "| one x86-64 core, int8 on ONNX Runtime (measured) | 973 | 0.26 | 1081 | 43 | 0.0032 |"
        in completed.stdout
    )
