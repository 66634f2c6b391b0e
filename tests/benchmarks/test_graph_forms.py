"""The comparison of two forms of a graph, benchmarks/graph_forms.py, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_figures import BENCHMARKS


def test_graphs_of_two_bundles_are_compared(tmp_path: Path):
    file = tmp_path / "forms.json"
    options = ["--batch", "1", "2", "--backend", "onnxruntime", "--seconds", "0.01", "-o", str(file)]
    command = [sys.executable, str(BENCHMARKS / "graph_forms.py"), "--pair", "same", "digits", "digits"]
    completed = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    figures = json.loads(file.read_text())["figures"]
    assert [(line["network"], line["backend"], line["batch"]) for line in figures] == [
        ("same", "onnxruntime", 1),
        ("same", "onnxruntime", 2),
    ]
    for line in figures:
        assert line["turns"] >= 5
        assert line["nodes"] == [216, 216]
        assert line["relative_l2"] == pytest.approx(0, abs=1e-5)
        assert min(line["p50_ms"]) > 0
