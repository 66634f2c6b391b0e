"""The versions of libraries, under the name of the installed distribution."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from bcm_edge.runtime.machine.environment import versions


def install(site: Path, name: str, version: str, module: str) -> None:
    """Write the metadata of an installed wheel."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "top_level.txt").write_text(f"{module}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which distributions are installed."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_libraries_that_are_not_installed_have_no_version(site: Path) -> None:
    assert versions() == {
        "python": platform.python_version(),
        "numpy": None,
        "onnxruntime": None,
        "openvino": None,
        "torch": None,
    }


def test_onnxruntime_gpu_is_listed_by_its_own_name(site: Path) -> None:
    install(site, "onnxruntime-gpu", "1.31.1", "onnxruntime")
    install(site, "torch", "2.13.0", "torch")
    listed = versions()
    assert (listed["onnxruntime"], listed["onnxruntime-gpu"], listed["torch"]) == (None, "1.31.1", "2.13.0")


def test_two_distributions_of_one_module_are_both_listed(site: Path) -> None:
    install(site, "onnxruntime", "1.32.0", "onnxruntime")
    install(site, "onnxruntime-gpu", "1.31.1", "onnxruntime")
    listed = versions()
    assert (listed["onnxruntime"], listed["onnxruntime-gpu"]) == ("1.32.0", "1.31.1")


def test_distribution_without_a_list_of_modules_is_listed(site: Path) -> None:
    install(site, "numpy", "2.4.6", "numpy")
    (site / "numpy-2.4.6.dist-info" / "top_level.txt").unlink()
    assert versions()["numpy"] == "2.4.6"


def test_other_onnxruntime_packages_are_not_listed(site: Path) -> None:
    install(site, "onnxruntime-extensions", "0.14.0", "onnxruntime_extensions")
    assert "onnxruntime-extensions" not in versions()
