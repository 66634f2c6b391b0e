"""Fixtures of more than one test file: one exported bundle per session, and the command line, in process and as a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from fixture_types import ROOT, Cli, Completed, Process

from bcm_edge.cli import main

if TYPE_CHECKING:  # they need torch, which not every Python here has
    from bcm_edge.evaluation.classifier import Classifier
    from bcm_edge.evaluation.quality import Judge

with suppress(
    ImportError
):  # a machine with a GPU may have pytest alone: no test in tests/gpu takes hypothesis
    from hypothesis import settings

    settings.register_profile("bcm-edge", deadline=None)  # a busy machine is not a slow test
    settings.load_profile("bcm-edge")

# Read when torch is imported: its threads sleep while they wait. On a busy machine, spinning makes tests five times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Tests with these fixtures are slow: they take many seconds of processor time, or what not every machine has.
SLOW_FIXTURES = {"browser", "classifier", "cluster", "triton", "typed_bundle"}
SLOW_FOLDERS = {"tensorrt"}  # they need what tests/tensorrt/fetch.sh downloads


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounding", action="store_true", help="results of torch differ by rounding (tests/rounding.py)"
    )


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(item.fixturenames) if isinstance(item, pytest.Function) else set()
        if fixtures & SLOW_FIXTURES or item.path.parent.name in SLOW_FOLDERS:
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def rounding(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--rounding"):
            from rounding import round_differently

            round_differently(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this session; nobody's own is read or written."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCM_EDGE_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run a command in this process. An exception that is no deliberate error comes out as it is and fails the test."""
    return lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="session")
def process() -> Process:
    """Run `python cli.py …` as a process of its own."""

    def run(*arguments: object, cwd: Path | None = None, **environment: str) -> Completed:
        command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, process: Process) -> tuple[Path, Completed]:
    """The shipped model's bundle, and what `python cli.py export` said when it made it."""
    folder = tmp_path_factory.mktemp("exported")
    ended = process("export", "-o", "digits.bundle", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder / "digits.bundle", ended


@pytest.fixture(scope="session")
def digits_bundle(request: pytest.FixtureRequest) -> Path:
    """The shipped model, exported and verified once. Every test reads it, none writes to it.

    BCM_EDGE_TEST_BUNDLE names one made before, for a Python that has no torch to export with.
    """
    given = os.environ.get("BCM_EDGE_TEST_BUNDLE")
    return Path(given).resolve() if given else request.getfixturevalue("exported")[0]


@pytest.fixture(scope="session")
def typed_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model in all four precisions, calibrated on digits. Every test reads it, none writes to it.

    BCM_EDGE_TEST_BUNDLE names one made before, as for digits_bundle.
    """
    if given := os.environ.get("BCM_EDGE_TEST_BUNDLE"):
        return Path(given).resolve()
    bundle = tmp_path_factory.mktemp("typed") / "digits.bundle"
    ended = request.getfixturevalue("cli")("export", "-o", bundle, "--precision", "all", "--data", "digits")
    assert ended.exit_code == 0, ended.output
    return bundle


@pytest.fixture
def typed_copy(typed_bundle: Path, tmp_path: Path) -> Path:
    """A bundle in all precisions, of the test's own."""
    return shutil.copytree(typed_bundle, tmp_path / "typed.bundle")


@pytest.fixture
def bundle_copy(digits_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of the test's own, to damage."""
    return shutil.copytree(digits_bundle, tmp_path / "copy.bundle")


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """Of the digits; to train it takes two seconds."""
    from bcm_edge.evaluation.classifier import train_classifier
    from bcm_edge.training.data import load_digits

    return train_classifier(load_digits("train"))


@pytest.fixture(scope="session")
def judge(classifier: Classifier) -> Judge:
    """Of models of the digits, on the test part."""
    from bcm_edge.evaluation.quality import Judge
    from bcm_edge.training.data import load_digits

    return Judge(classifier, load_digits("train"), load_digits("test"))


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The networks with outputs of the authors' code, which lie beside a checkout and not in it."""
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("the authors' reference networks (shared/reference) are not beside this checkout")
    return folder
