"""What an index and pip read in pyproject.toml: description, links, extras and Pythons."""

from __future__ import annotations

import io
import re

import pytest
from fixture_types import ROOT
from lowest import tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
DESCRIPTION = (ROOT / PROJECT["readme"]).read_text()
OF_A_MACHINE = {"gpu", "rtx", "trt10", "trt11", "jetson6", "jetson7"}  # each for some GPUs, or one JetPack
OF_DEVELOPMENT = {"test", "dev", "docs"}
TORCH = "torch>=2.6,<2.15"


def test_description_has_no_link_or_picture_beside_it():
    """An index shows the description alone."""
    targets = re.findall(r"\]\(([^)\s]+)\)", DESCRIPTION)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "![" not in DESCRIPTION
    assert "<img" not in DESCRIPTION


def test_description_can_be_rendered_by_an_index():
    """The check of `twine check`."""
    markdown = pytest.importorskip("readme_renderer.markdown")
    warnings = io.StringIO()
    html = markdown.render(DESCRIPTION, stream=warnings)
    assert html is not None, warnings.getvalue()
    assert html.count("<table>") == 1
    assert html.count("<h2") == 2


def test_description_lists_extras_that_are_defined():
    names = set(re.findall(r"`(\w+)`", DESCRIPTION.partition("## Extras")[2].partition("\n\nPython")[0]))
    assert {"run", "export", "all"} <= names <= set(EXTRAS)


def test_all_contains_every_extra_that_runs_on_any_machine():
    (own,) = EXTRAS["all"]
    match = re.fullmatch(r"bcm-edge\[([\w,]+)\]", own)
    assert match
    named = set(match[1].split(","))
    assert named == set(EXTRAS) - {"all"} - OF_A_MACHINE - OF_DEVELOPMENT


def test_torch_has_the_same_range_in_every_extra_and_the_constraint_is_in_it():
    used = {line for lines in EXTRAS.values() for line in lines if re.match(r"torch\b", line)}
    assert used == {TORCH}
    (constraint,) = re.findall(
        r"^torch==2\.(\d+)\.\d+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    assert 6 <= int(constraint) < 15


def test_every_supported_python_has_a_classifier():
    versions = re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))
    assert versions == ["10", "11", "12", "13", "14"]
    assert PROJECT["requires-python"] == f">=3.{versions[0]}"


def test_links_and_author_are_given():
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())
    assert PROJECT["authors"] == [{"name": "the bcm-edge authors"}]
