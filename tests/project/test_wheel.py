"""The wheel and the source archive: what they contain, and that the wheel runs with its extra [run] alone.

pip resolves the extra against packages of the test environment, which are linked into a fresh virtual
environment. So nothing is downloaded, and what [run] does not require cannot be imported there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from distributions import Environment
from fixture_types import ROOT

import bcm_edge

pytest.importorskip("build", reason="build is not installed; pip install '.[dev]'")
pytestmark = pytest.mark.slow

NAME = f"bcm_edge-{bcm_edge.__version__}"
WHEEL = f"{NAME}-py3-none-any.whl"
RUN = ["numpy", "click", "rich", "pillow", "onnxruntime"]
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv*", ".tensorrt", ".onnxruntime-gpu", ".triton", ".clients", ".axe"),
    *("__pycache__", "*.egg-info", "build", "dist", "demo"),
)
# Tests that take seconds, of the package and of the files beside it.
DISTRIBUTOR_TESTS = ("tests/runtime/test_schedule.py", "tests/project/test_docs.py")


def build(source: Path, output: Path, *options: str) -> None:
    """Run `python -m build` with the setuptools that is installed."""
    options = ("--no-isolation", "--outdir", str(output), *options)
    command = [sys.executable, "-m", "build", *options, str(source)]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without what earlier builds left, which setuptools would pack again."""
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "clone", ignore=LEFT_OUT)


@pytest.fixture(scope="module")
def archives(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source archive, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build(source, folder)
    assert sorted(file.name for file in folder.iterdir()) == [WHEEL, f"{NAME}.tar.gz"]
    return folder


def test_wheel_contains_every_file_of_the_package(source: Path, archives: Path):
    rooms = [file.parent for file in source.glob("*/__init__.py")]
    files = [*source.glob("*.py"), source / "py.typed"]
    files += [file for room in rooms for file in room.rglob("*") if file.is_file()]
    assert len(files) > 180
    expected = {f"bcm_edge/{file.relative_to(source).as_posix()}" for file in files}
    names = set(contents(archives / WHEEL))
    metadata = {name for name in names if name.startswith(f"{NAME}.dist-info/")}
    assert names - metadata == expected
    licences = {name.partition("/licenses/")[2] for name in metadata if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "LICENSES/Apache-2.0.txt"}


def test_wheel_stays_small(archives: Path):
    """The weights of the shipped models are 11 MB, and nothing stores them twice."""
    assert (archives / WHEEL).stat().st_size < 14_000_000


def test_source_archive_contains_what_a_build_needs(archives: Path):
    with tarfile.open(archives / f"{NAME}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    metadata = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    assert metadata | {"cli.py", "model/digits.bundle/digits.safetensors"} <= names


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not in a clone")
def test_source_archive_contains_every_file_of_the_repository(archives: Path):
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    files = {name for name in listed if (ROOT / name).is_file()}
    with tarfile.open(archives / f"{NAME}.tar.gz") as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert files - packed == set()
    generated = {name for name in packed - files if not name.startswith("bcm_edge.egg-info/")}
    assert generated == {"PKG-INFO", "setup.cfg"}


def test_tests_run_from_the_unpacked_source_archive(archives: Path, tmp_path: Path):
    """As a distributor runs them: without git, and with the package of the archive."""
    with tarfile.open(archives / f"{NAME}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / NAME
    (unpacked / "build" / "here").mkdir(parents=True)
    (unpacked / "build" / "here" / "bcm_edge").symlink_to(unpacked)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *DISTRIBUTOR_TESTS]
    environment = {**os.environ, "PYTHONPATH": str(unpacked / "build" / "here")}
    completed = subprocess.run(
        command, cwd=unpacked, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert completed.returncode == 0, completed.stdout[-3000:]
    passed = re.search(r"(\d+) passed", completed.stdout)
    assert passed is not None and int(passed[1]) > 100
    assert "skipped" not in completed.stdout


def test_source_archive_and_checkout_build_the_same_wheel(source: Path, archives: Path, tmp_path: Path):
    build(source, tmp_path, "--wheel")
    assert contents(tmp_path / WHEEL) == contents(archives / WHEEL)


def test_wheel_runs_with_its_extra_run_alone(archives: Path, bundle_copy: Path, tmp_path: Path):
    environment = Environment(tmp_path / "venv", RUN)
    installed = environment.install(f"{archives / WHEEL}[run]")
    assert installed.returncode == 0, installed.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def bcm_edge_prints(*arguments: object) -> str:
        completed = environment.run("bcm-edge", *arguments, cwd=elsewhere)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    code = "import sys; from importlib.util import find_spec; print(*filter(find_spec, sys.argv[1:]))"
    modules = ("torch", "onnx", "sklearn", "openvino", "ray", "pytest", "onnxruntime", "bcm_edge")
    assert environment.run("python", "-c", code, *modules, cwd=elsewhere).stdout == "onnxruntime bcm_edge\n"
    module = environment.run("python", "-m", "bcm_edge", "--version", cwd=elsewhere)
    assert module.stdout == f"bcm-edge, version {bcm_edge.__version__}\n"
    assert bcm_edge_prints("--version") == f"bcm-edge, version {bcm_edge.__version__}\n"

    bcm_edge_prints("generate", "digits", "-n", 10, "--label", "all", "-o", "digits.png")
    assert (elsewhere / "digits.png").stat().st_size > 1000
    bcm_edge_prints("verify", "mnist")
    code = "import bcm_edge; print(*bcm_edge.load('mnist').generate(2, labels=[3, 5]).shape)"
    assert environment.run("python", "-c", code, cwd=elsewhere).stdout == "2 1 28 28\n"

    sampling = ("-n", 4, "--label", 3, "--schedule", "zigzag-3")
    bcm_edge_prints("generate", bundle_copy, *sampling, "-o", "images.npz")
    bcm_edge_prints("invert", bundle_copy, "images.npz", "-o", "latents.npz")
    bcm_edge_prints("verify", bundle_copy)
    bcm = bcm_edge.load(bundle_copy, backend="onnxruntime")
    images = bcm.generate(4, schedule="zigzag-3", labels=3)
    with np.load(elsewhere / "images.npz") as file:
        np.testing.assert_array_equal(file["images"], images)
    with np.load(elsewhere / "latents.npz") as file:
        np.testing.assert_array_equal(file["latents"], bcm.invert(images, labels=3))

    doctor = bcm_edge_prints("doctor")
    assert f"    fix: pip install '{archives / WHEEL}[export]'\n" in doctor
    (archives / WHEEL).rename(archives / "moved.whl")
    try:
        doctor = bcm_edge_prints("doctor")
    finally:
        (archives / "moved.whl").rename(archives / WHEEL)
    lines = [shlex.split(line) for line in doctor.splitlines() if line.startswith("    fix: pip install ")]
    assert ["fix:", "pip", "install", "openvino>=2025.0"] in lines


def test_extra_whose_packages_are_missing_cannot_be_installed_offline(archives: Path, tmp_path: Path):
    """This shows that the test above would fail if [run] did not name a package that it needs."""
    environment = Environment(tmp_path / "venv", RUN)
    completed = environment.install(f"{archives / WHEEL}[export]")
    assert completed.returncode == 1
    assert "No matching distribution found for" in completed.stderr
