"""The public names are documented, help() expands their types, and a client of them type-checks."""

from __future__ import annotations

import inspect
import json
import os
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from documented import blocks
from fixture_types import ROOT

import bcm_edge
from bcm_edge import BCM, errors

CLIENT = ROOT / "tests" / "project" / "client_of_60_lines.py"
PAGE = ROOT / "docs" / "python.md"
PACKAGE = Path(bcm_edge.__file__).parent


def packages(folder: Path) -> Path:
    """Return a folder that contains this package under its name, whatever the checkout is called."""
    link = folder / "packages" / "bcm_edge"
    if not link.exists():
        link.parent.mkdir()
        link.symlink_to(PACKAGE.resolve())
    return link.parent


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder, and return what it prints. This package is on the path of Python."""
    environment = {**os.environ, "PYTHONPATH": str(packages(folder))}
    completed = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def test_every_public_name_exists_and_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text)) | set(re.findall(r"^::: bcm_edge\.(\w+)", text, re.MULTILINE))
    error_names = {name for name, value in vars(errors).items() if inspect.isclass(value) and "Error" in name}
    assert set(bcm_edge.__all__) - error_names - {"CheckFailed", "__version__"} <= named
    assert all(hasattr(bcm_edge, name) for name in bcm_edge.__all__)


def test_every_error_is_public():
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    names = {value.__name__ for value in classes if issubclass(value, bcm_edge.BcmError)}
    assert len(names) == 18 and names <= set(bcm_edge.__all__)


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (BCM.generate, "seed: int | collections.abc.Sequence[int] | numpy.ndarray | bcm_edge.Tensor = 0"),
        (BCM.generate, "labels: int | str | collections.abc.Sequence[int | str] | numpy.ndarray"),
        (
            BCM.generate,
            "on_move: collections.abc.Callable[[bcm_edge.runtime.calls.NetworkCall], None]",
        ),
        (BCM.generate, "output_type: Literal['float', 'uint8', 'pil'] = 'float'"),
        (BCM.generate, "-> numpy.ndarray | list['PIL.Image.Image']"),
        (
            BCM.invert,
            "images: numpy.ndarray | bcm_edge.Tensor | bcm_edge.PillowImage | str | os.Path",
        ),
        (BCM.inpaint, "holes: numpy.ndarray | bcm_edge.Tensor | bcm_edge.PillowImage | str"),
        (BCM.trace, "-> bcm_edge.runtime.tasks.trace.Trace"),
        (BCM.save, "path: str | os.PathLike[str]"),
        (bcm_edge.load, "value_range: tuple[float, float] | None = None"),
        (bcm_edge.read_images, "path: str | os.PathLike[str] | collections.abc.Sequence[str"),
    ],
)
def test_help_shows_what_types_stand_for(function: object, shown: str):
    text = pydoc.plain(pydoc.render_doc(function))
    assert shown in re.sub(r"\s+", " ", text).replace("( ", "(")


def test_no_public_annotation_is_a_name_in_quotes():
    """`from __future__ import annotations` would make help() show the names of aliases alone."""
    methods = [
        value for name, value in inspect.getmembers(BCM) if inspect.isfunction(value) and name[0] != "_"
    ]
    for function in (*methods, bcm_edge.load, bcm_edge.read_images):
        for parameter in inspect.signature(function).parameters.values():
            assert not isinstance(parameter.annotation, str), f"{function.__name__}: {parameter}"


def test_client_type_checks_strictly(tmp_path: Path):
    pyright = shutil.which("pyright", path=str(Path(sys.executable).parent))
    if pyright is None:
        pytest.skip("pyright is not installed")
    assert len(CLIENT.read_text(encoding="utf-8").splitlines()) <= 60
    shutil.copy(CLIENT, tmp_path / "client.py")
    environment = Path(sys.prefix)
    settings = {
        "typeCheckingMode": "strict",
        "venvPath": str(environment.parent),
        "venv": environment.name,
        "include": ["client.py"],
        "extraPaths": [str(packages(tmp_path))],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    assert "0 errors, 0 warnings, 0 informations" in run(tmp_path, pyright)
    # The checker sees the types: it finds an unknown keyword argument, and an unknown form of results.
    client = CLIENT.read_text(encoding="utf-8")
    wrong = client.replace("seed=[7, 8]", "seeds=[7, 8]").replace('"pil"', '"PIL"', 1)
    (tmp_path / "client.py").write_text(wrong)
    completed = subprocess.run(
        [pyright], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert completed.returncode == 1
    for method in ("inpaint", "variations"):
        assert f'No overloads for "{method}" match' in completed.stdout


def test_client_runs(digits_bundle: Path, tmp_path: Path):
    printed = run(tmp_path, sys.executable, str(CLIENT), str(digits_bundle)).splitlines()
    assert printed[:3] == [
        "1/3 80>2.4 2 float32",
        "2/3 2.4>0.002 2 float32",
        "3/3 0.1>0.002 2 float32",
    ]
    assert printed[3] == "label 10 is out of range; this model has classes 0 to 9"
    assert printed[-1] == "(1, 1, 8, 8) (4, 2, 1, 8, 8) float32 (8, 8)"


def test_worker_processes_of_the_page(tmp_path: Path):
    examples = [block.text for block in blocks(PAGE) if "ProcessPoolExecutor" in block.text]
    assert len(examples) == 1
    (tmp_path / "workers.py").write_text(examples[0])
    assert run(tmp_path, sys.executable, "workers.py") == "4 (4, 1, 8, 8)\n"


def test_progress_bar_of_the_page(digits_bundle: Path):
    """The function of the page, with a stand-in for tqdm's bar that has the same two members."""

    class Bar:
        total, n = 0, 0

        def update(self) -> None:
            self.n += 1

    bar = Bar()
    example = next(block.text for block in blocks(PAGE) if "tqdm" in block.text)
    lines = [line.strip() for line in example.splitlines() if line.strip().startswith("bar.")]
    assert lines == ["bar.total = call.total", "bar.update()"]

    def show(call: bcm_edge.NetworkCall) -> None:
        exec("\n".join(lines), {"bar": bar, "call": call})

    with bcm_edge.load(digits_bundle, backend="null") as bcm:
        bcm.interpolate(*np.full((2, 20, 1, 8, 8), -0.5, np.float32), frames=3, labels=1, on_move=show)
    assert (bar.n, bar.total) == (12, 12)
