"""The documents link to files and headings that exist, and show commands that the command line accepts."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
from documented import FENCED_BLOCK, PAGES, SHELL, blocks, page_name
from fixture_types import ROOT
from lowest import tomllib

from bcm_edge.cli import main

SOURCE_FOLDERS = {
    folder.name
    for folder in ROOT.iterdir()
    if folder.is_dir() and folder.name not in {"build", "demo"} and not folder.name.startswith(".")
}
PYTHON_FILES = {file.name for file in ROOT.glob("*.py")} | {
    file.name for folder in SOURCE_FOLDERS for file in (ROOT / folder).rglob("*.py")
}

every_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


def anchors(text: str) -> set[str]:
    """Return the anchors of all headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCED_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@every_page
def test_links_and_images_exist(page: Path):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text()), f"{target}#{anchor}"


def test_readme_links_every_page_of_the_documentation():
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", (ROOT / "README.md").read_text()))
    assert {page_name(page) for page in (ROOT / "docs").glob("*.md")} == linked


@every_page
def test_source_paths_exist(page: Path):
    """Check paths in back quotes that begin with a folder of the repository, and names of Python files."""
    text = FENCED_BLOCK.sub("", page.read_text())
    for name in re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?)`", text):
        folder, slash, _ = name.partition("/")
        if slash and folder in SOURCE_FOLDERS:
            assert (ROOT / name).exists(), name
        elif not slash and name.endswith(".py"):
            assert name in PYTHON_FILES, name


@every_page
def test_command_line_accepts_the_commands(page: Path):
    shell = [block for block in blocks(page) if block.language in SHELL]
    for line in (line for block in shell for line in block.parts()):
        if not line.startswith("bcm-edge "):
            continue
        _, name, *arguments = shlex.split(line, comments=True)
        command = main.get_command(click.Context(main), name)
        assert command is not None, line
        command.make_context(name, arguments)


def test_messages_in_the_page_on_checkpoints_exist():
    """Every message of the table in docs/checkpoints.md, without its numbers, is a text in model/."""
    texts = {
        node.value
        for file in (ROOT / "model").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    table = (ROOT / "docs" / "checkpoints.md").read_text().partition("| message | cause and solution |\n")[2]
    messages = re.findall(r"^\| ([^|-]+) \|", table, re.MULTILINE)
    assert len(messages) == 6
    for part in (part for message in messages for part in re.split(r"\d+|…", message) if part):
        assert any(part in text for text in texts), part


def test_every_folder_of_the_package_is_installed():
    """`pip install .` installs only the folders that pyproject.toml lists; an editable install finds all."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    rooms = [file.parent for file in ROOT.glob("*/__init__.py")]
    folders = {file.parent.relative_to(ROOT) for room in rooms for file in room.rglob("*.py")}
    assert listed == {"bcm_edge", *(".".join(("bcm_edge", *folder.parts)) for folder in folders)}
