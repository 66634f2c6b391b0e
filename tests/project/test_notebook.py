"""docs/quickstart.ipynb runs without an error, and contains the outputs and pictures of a run."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import ROOT
from PIL import Image

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed; pip install '.[test]'")

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
TASKS = ("generate", "invert", "interpolate", "inpaint", "variations")


def code_cells(notebook: Any) -> list[Any]:
    """Return the cells with code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: Any) -> list[Image.Image]:
    """Return the pictures in the outputs."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    encoded = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]


def printed(notebook: Any) -> str:
    """Return what the cells printed."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def check_outputs(notebook: Any) -> None:
    """Assert that a notebook was run from the first to the last cell, with pictures and without errors."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output.output_type for output in outputs if output.output_type == "error"] == []
    shown = pictures(notebook)
    assert len(shown) == sum(cell.source.splitlines()[-1].startswith("show(") for cell in cells) == 5
    for picture in shown:
        grey = np.asarray(picture.convert("L"))
        assert grey.min() < 60 and grey.max() == 255  # dark lines on white
        assert picture.mode == "RGB"
        assert 400 < picture.width < 800
    assert re.search(r"3 of 3: [\d.]+>0.002", printed(notebook))
    assert printed(notebook).count("ms per image") == 3


def test_stored_outputs_are_those_of_a_run():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    check_outputs(notebook)
    assert NOTEBOOK.stat().st_size < 500_000


def test_notebook_shows_every_kind_of_task():
    source = "\n".join(cell.source for cell in code_cells(nbformat.read(NOTEBOOK, as_version=4)))
    assert [task for task in TASKS if f"bcm.{task}(" not in source] == []


@pytest.mark.slow
def test_notebook_runs_without_an_error(tmp_path: Path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed; pip install '.[test]'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    check_outputs(notebook)
    assert list(tmp_path.iterdir()) == []
