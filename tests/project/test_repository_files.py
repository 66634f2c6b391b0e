"""Workflow, templates, citation and changelog are valid, and agree with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixture_types import ROOT

import bcm_edge

YAML_FILES = [
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
    *sorted((ROOT / ".github").rglob("*.yml")),
]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def targets() -> set[str]:
    """The targets of the Makefile that have a rule and no wildcard."""
    text = (ROOT / "Makefile").read_text()
    names = re.findall(r"^([a-z][\w -]*):(?!=)", text, re.MULTILINE)
    return {name for line in names for name in line.split()}


def make_targets_in(text: str) -> set[str]:
    """The targets of each `make` command in a shell script."""
    commands = re.findall(r"\bmake((?: +[\w-]+)+)", text)
    return {word for command in commands for word in command.split() if not word.startswith("-")}


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: file.name)
def test_yaml_files_can_be_read(file: Path):
    assert yaml.safe_load(file.read_text())


def test_workflow_and_ci_call_targets_of_the_makefile():
    workflow: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    scripts = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    called = set().union(*map(make_targets_in, scripts))
    assert called == {"check", "test", "test-arm"}
    assert make_targets_in((ROOT / ".ci" / "run").read_text()) == {"test", "test-arm"}
    assert called <= targets()


def test_workflow_installs_every_python_that_the_makefile_tests():
    workflow: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    steps = workflow["jobs"]["test"]["steps"]
    (installed,) = [step["with"]["python-version"].split() for step in steps if "with" in step]
    tested = re.findall(r"^\ttests/\w+_python\.sh (3\.\d+) ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert tested == ["3.10", "3.12", "3.13", "3.14"]
    assert set(tested) <= set(installed)


def test_contributing_names_targets_of_the_makefile():
    called = make_targets_in("; ".join(re.findall(r"`(make [^`]+)`", (ROOT / "CONTRIBUTING.md").read_text())))
    assert "test-gpu" in called
    assert called <= targets()


def test_bug_template_asks_for_the_report_of_doctor():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    fields = {field["id"]: field for field in form["body"]}
    assert "bcm-edge doctor --report" in fields["report"]["attributes"]["label"]
    assert fields["report"]["validations"]["required"] is True


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changelog = (ROOT / "CHANGELOG.md").read_text()
    version, date = re.findall(r"^## \[(\d[\d.]*)\] - ([\d-]+)$", changelog, re.MULTILINE)[0]
    assert version == bcm_edge.__version__
    assert citation["version"] == version
    assert str(citation["date-released"]) == date
    for page in (ROOT / "README.md", ROOT / "docs" / "quickstart.md"):
        assert set(re.findall(r"bcm_edge-([\d.]+)-py3", page.read_text())) == {version}


def test_hooks_run_tests_that_exist():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    files = [word for hook in hooks for word in hook["entry"].split() if word.startswith("tests/")]
    assert files
    assert all((ROOT / file).is_file() for file in files)


def test_citation_names_the_paper():
    (paper,) = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert paper["title"] == "Bidirectional Consistency Models"
    assert [author["family-names"] for author in paper["authors"]] == ["Li", "He"]
    assert paper["url"].endswith("/2403.18035")
