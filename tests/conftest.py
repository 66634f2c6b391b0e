"""Fixtures of several test folders.

They export the bundles, and run the command line in this process or as a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from fixture_types import ROOT, Cli, Completed, Process

from bcm_edge.cli import main
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.storage.manifest import PRECISIONS

if TYPE_CHECKING:  # they need torch, which is not installed on every Python that runs these tests
    from bcm_edge.evaluation.classifier import Classifier
    from bcm_edge.evaluation.quality import Judge

# A machine with a GPU may have pytest alone. No test in tests/gpu needs hypothesis.
with suppress(ImportError):
    from hypothesis import settings

    settings.register_profile("bcm-edge", deadline=None)  # tests may be slow on a busy machine
    settings.load_profile("bcm-edge")

# torch reads this when it is imported: its threads sleep while they wait. Threads that spin instead make
# tests five times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A test that uses one of these fixtures is marked slow: it takes many seconds of processor time, or needs
# something that not every machine has.
SLOW_FIXTURES = {"browser", "classifier", "cluster", "gpu_bundle", "triton", "typed_bundle"}
SLOW_FOLDERS = {"tensorrt"}  # their tests need what tests/tensorrt/fetch.sh downloads


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounding", action="store_true", help="results of torch differ by rounding (tests/rounding.py)"
    )


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(item.fixturenames) if isinstance(item, pytest.Function) else set()
        if fixtures & SLOW_FIXTURES or item.path.parent.name in SLOW_FOLDERS:
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def rounding(request: pytest.FixtureRequest) -> Iterator[None]:
    """With --rounding, two passes of one network differ by rounding."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--rounding"):
            from rounding import round_differently

            round_differently(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of this session. The cache of the user is neither read nor written."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BCM_EDGE_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run a command in this process. An exception that the command line does not handle fails the test."""
    return lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="session")
def process() -> Process:
    """Run `python cli.py …` as a process."""

    def run(*arguments: object, cwd: Path | None = None, **environment: str) -> Completed:
        return subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)],
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
    """The bundle of the shipped model, and the completed `python cli.py export` that wrote it."""
    folder = tmp_path_factory.mktemp("exported")
    completed = process("export", "-o", "digits.bundle", cwd=folder)
    assert completed.returncode == 0, completed.stderr
    return folder / "digits.bundle", completed


@pytest.fixture(scope="session")
def digits_bundle(request: pytest.FixtureRequest) -> Path:
    """The shipped model, exported and verified once. Tests only read it.

    BCM_EDGE_TEST_BUNDLE may name a bundle that exists, for a Python that has no torch to export with.
    """
    bundle = os.environ.get("BCM_EDGE_TEST_BUNDLE")
    return Path(bundle).resolve() if bundle else request.getfixturevalue("exported")[0]


@pytest.fixture(scope="session")
def typed_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model in the four precisions for CPUs, calibrated on digits. Tests only read it.

    BCM_EDGE_TEST_BUNDLE may name a bundle that exists, as for digits_bundle.
    """
    if existing := os.environ.get("BCM_EDGE_TEST_BUNDLE"):
        return Path(existing).resolve()
    bundle = tmp_path_factory.mktemp("typed") / "digits.bundle"
    result = request.getfixturevalue("cli")("export", "-o", bundle, "--precision", "all", "--data", "digits")
    assert result.exit_code == 0, result.output
    return bundle


@pytest.fixture(scope="session")
def gpu_bundle(
    typed_bundle: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The shipped model in all precisions, those for GPUs included. Tests only read it."""
    if set(open_bundle(typed_bundle).precisions) == set(PRECISIONS):
        return typed_bundle
    bundle = shutil.copytree(typed_bundle, tmp_path_factory.mktemp("gpu") / "digits.bundle")
    result = request.getfixturevalue("cli")("calibrate", bundle, "--precision", "int8-fp16,fp8")
    assert result.exit_code == 0, result.output
    return bundle


@pytest.fixture
def typed_copy(typed_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle in all precisions that the test may change."""
    return shutil.copytree(typed_bundle, tmp_path / "typed.bundle")


@pytest.fixture
def bundle_copy(digits_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the exported bundle that the test may change."""
    return shutil.copytree(digits_bundle, tmp_path / "copy.bundle")


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """A classifier of the digits. Its training takes two seconds."""
    from bcm_edge.evaluation.classifier import train_classifier
    from bcm_edge.training.data import load_digits

    return train_classifier(load_digits("train"))


@pytest.fixture(scope="session")
def judge(classifier: Classifier) -> Judge:
    """A judge of models of the digits. It compares with the test part."""
    from bcm_edge.evaluation.quality import Judge
    from bcm_edge.training.data import load_digits

    return Judge(classifier, load_digits("train"), load_digits("test"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from chromium import CHROMIUM, api

    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes in one thread, which is faster for small networks."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Networks with the outputs of the authors' code. The folder lies beside the checkout, not in it."""
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("the authors' reference networks (shared/reference) are not beside this checkout")
    return folder
