"""The pip command in messages, for each way in which the package can be installed."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from lowest import tomllib

from bcm_edge.runtime.machine import install_hints
from bcm_edge.runtime.machine.install_hints import Extra, install_line, packages_of
from bcm_edge.runtime.machine.jetpack import RELEASES

ROOT = Path(__file__).resolve().parents[2]
REQUIRES = """\
Requires-Dist: numpy>=1.24
Provides-Extra: run
Requires-Dist: onnxruntime>=1.21; extra == "run"
Provides-Extra: jetson6
Requires-Dist: onnxruntime>=1.21; extra == "jetson6"
Requires-Dist: cuda-bindings<13,>=12.9; extra == "jetson6"
"""
PRODUCT = [
    "calibration",
    "commands",
    "evaluation",
    "export",
    "integrations",
    "jobs",
    "model",
    "runtime",
    "serving",
    "training",
    "ui",
]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, in place of the real ones, that has bcm_edge without metadata."""
    folder = tmp_path / "site-packages"
    (folder / "bcm_edge").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setattr(install_hints, "PACKAGE", folder / "bcm_edge")
    return folder


def record(site: Path, direct_url: dict[str, Any] | str | None) -> None:
    """Write the metadata of an installed bcm-edge, as pip does."""
    folder = site / "bcm_edge-0.2.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: bcm-edge\nVersion: 0.2.0\n{REQUIRES}")
    if direct_url is not None:
        text = direct_url if isinstance(direct_url, str) else json.dumps(direct_url)
        (folder / "direct_url.json").write_text(text)


def test_checkout_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert shlex.split(install_line("export")) == ["pip", "install", f"{ROOT}[export]"]
    monkeypatch.chdir(ROOT)
    assert install_line("export") == "pip install '.[export]'"
    assert install_line("trt11", upgrade=True) == "pip install --upgrade '.[trt11]'"


def test_wheel_is_named_by_its_file(site: Path, tmp_path: Path):
    wheel = tmp_path / "my wheels" / "bcm_edge-0.2.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    record(site, {"archive_info": {}, "url": wheel.as_uri()})
    assert "%20" in wheel.as_uri()
    assert shlex.split(install_line("run")) == ["pip", "install", f"{wheel}[run]"]


def test_installation_from_a_checkout_names_the_checkout(site: Path, tmp_path: Path):
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    record(site, {"dir_info": {}, "url": clone.as_uri()})
    assert shlex.split(install_line("run")) == ["pip", "install", f"{clone}[run]"]


@pytest.mark.parametrize(
    ("direct_url", "requirement"),
    [
        (
            {"url": "https://example.org/b.git", "vcs_info": {"vcs": "git", "commit_id": "1f912cb"}},
            "bcm-edge[run] @ git+https://example.org/b.git@1f912cb",
        ),
        (
            {"url": "https://example.org/b.whl", "archive_info": {}},
            "bcm-edge[run] @ https://example.org/b.whl",
        ),
    ],
)
def test_installation_from_the_network_names_its_address(
    site: Path, direct_url: dict[str, Any], requirement: str
):
    record(site, direct_url)
    assert shlex.split(install_line("run")) == ["pip", "install", requirement]


@pytest.mark.parametrize(
    "direct_url",
    [
        {"url": "file:///no/such/bcm_edge-0.2.0-py3-none-any.whl", "archive_info": {}},
        {"url": "file:///no/such/clone", "dir_info": {"editable": True}},
        None,
        "not JSON",
        "[]",
    ],
    ids=["deleted wheel", "deleted checkout", "from an index", "damaged", "a list"],
)
def test_packages_of_the_extra_are_listed_if_the_source_is_missing(
    site: Path, direct_url: dict[str, Any] | str | None
):
    record(site, direct_url)
    assert install_line("run") == "pip install 'onnxruntime>=1.21'"
    assert install_line("jetson6") == "pip install 'onnxruntime>=1.21' 'cuda-bindings<13,>=12.9'"


def test_package_without_metadata_names_a_clone(site: Path):
    """The archive in a Triton model repository has no metadata."""
    assert install_line("run") == "pip install '.[run]' in a clone of bcm-edge"


def test_only_the_packages_of_the_extra_are_named():
    requires = ["numpy>=1.24", 'a>=1; extra == "run"', "b ; extra == 'run'", 'c>=1; extra == "run2"']
    assert packages_of(requires, "run") == ["a>=1", "b"]


def test_every_extra_that_a_message_can_name_is_defined():
    defined = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    extras = set(get_args(Extra))
    assert extras == defined - {"all", "test", "dev", "docs"}
    assert {release.extra for _, release in RELEASES} - {""} <= extras


def test_no_other_module_writes_the_line_of_an_extra():
    files = [*ROOT.glob("*.py"), *(file for room in PRODUCT for file in (ROOT / room).rglob("*.py"))]
    assert len(files) > 150
    written = [
        file.name for file in files if "pip install '" in file.read_text() or "bcm-edge[" in file.read_text()
    ]
    assert written == ["install_hints.py"]


def test_other_conditions_of_a_requirement_stay():
    requires = [
        'onnxruntime-gpu[cuda,cudnn]>=1.30; python_version >= "3.11" and extra == "gpu"',
        'cuda-core>=1.2; extra == "gpu"',
        'cuda-core>=1.2; extra == "rtx"',
    ]
    expected = ['onnxruntime-gpu[cuda,cudnn]>=1.30; python_version >= "3.11"', "cuda-core>=1.2"]
    assert packages_of(requires, "gpu") == expected
