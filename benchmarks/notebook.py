"""Run docs/quickstart.ipynb and store its outputs in it: python benchmarks/notebook.py

It needs the extra `test`. Run it on a quiet machine: the notebook measures times.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "quickstart.ipynb"
KEPT = {"image/png", "text/plain"}  # Pillow also offers JPEG
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def strip(notebook: Any) -> None:
    """Remove what changes with every run or machine: times, versions, and second forms of pictures."""
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data = {kind: value for kind, value in output.data.items() if kind in KEPT}


def main() -> None:
    """Run the notebook in an empty folder, and write it back."""
    import nbclient
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, timeout=120, record_timing=False, resources=resources).execute()
    strip(notebook)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
