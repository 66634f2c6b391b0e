"""What the documents point at exists, and what they say to type is understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from bcm_edge.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_ones_the_command_line_takes(page: Path):
    for line in re.findall(r"^    bcm-edge (.*)$", page.read_text(), re.MULTILINE):
        name, *arguments = shlex.split(line, comments=True)
        command = main.get_command(click.Context(main), name)
        assert command is not None, line
        command.make_context(name, arguments)


def test_every_folder_of_the_package_is_installed():
    """An editable install has them all; `pip install .` has those that are listed."""
    listed = set(re.findall(r'^    "(bcm_edge[\w.]*)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    rooms = {"calibration", "commands", "evaluation", "export", "jobs", "model", "runtime", "training", "ui"}
    folders = {file.parent.relative_to(ROOT) for room in rooms for file in (ROOT / room).rglob("*.py")}
    assert listed == {"bcm_edge", *(".".join(("bcm_edge", *folder.parts)) for folder in folders)}
