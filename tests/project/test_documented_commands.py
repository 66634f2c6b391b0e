"""The commands and Python examples of the documentation run as they are typed, in the order of their page.

Each page runs in an empty folder that is a git repository with this project's .gitignore. Nothing may be left
there that git shows. Whatever is not run is listed in NOT_RUN with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from documented import PAGES, SHELL, Block, blocks, outside_blocks, page_name
from fixture_types import ROOT


class NotRun(NamedTuple):
    """Commands that the tests do not run: a pattern of pages, a pattern in the command, and the reason."""

    page: str
    command: str
    reason: str


NOT_RUN = [
    NotRun(r".*", r"^(pip|\S+/pip) install|^python3 -m venv|^\. \.venv", "it changes the environment"),
    NotRun(r".*", r"^make ", "a target of the Makefile; CI runs these targets"),
    NotRun(r".*", r"\b(sudo|ssh|rsync|docker|kubectl|taskset)\b", "it needs another machine or more rights"),
    NotRun(r".*", r"^bcm-edge ui\b|models/client.py|tritonserver ", "a server; tests/ui, tests/serving"),
    NotRun(r".*", r"--preset|\bema\b|last\.ckpt|model\.safetensors|~/\.cache", "the reader's checkpoint"),
    NotRun(r".*", r"\b(photos|more/|shards/)|tuned\.safetensors", "the reader's images"),
    NotRun(r".*", r"^hf (up|down)load ", "it needs a hub"),
    NotRun(r"docs/publishing.md", r"evaluat", "it takes 11 minutes; tests/evaluation"),
    NotRun(r".*", r"^bcm-edge map\b", "it starts Ray; tests/jobs"),
    NotRun(r".*", r"^bcm-edge bench\b|^python benchmarks/(?!task_inputs)", "it takes minutes to measure"),
    NotRun(r"CONTRIBUTING.md", r"^pytest|^# before", "an example of style, or a test"),
    NotRun(r"docs/tasks.md", r"colour", "it trains a model"),
    NotRun(r"docs/evaluation.md", r".", "each command takes 11 minutes"),
    NotRun(r"docs/emoji.md", r"emoji64\.npz", "it needs the drawings; tests/evaluation/test_emoji_data.py"),
    NotRun(r"docs/emoji.md", r"bcm-edge train", "it trains a model for hours"),
    NotRun(r"docs/mnist.md", r"mnist_train|mnist\.safetensors", "it trains a model for hours"),
    NotRun(r"docs/(jetson|tensorrt|gpu).md", r".", "it needs an NVIDIA GPU; tests/tensorrt, tests/arm"),
    NotRun(r"docs/performance.md", r".", "a measurement of minutes"),
    NotRun(r"docs/onnx.md", r"^(npm|node|g\+\+|round_trip/program) ", "it needs other tools; tests/examples"),
    NotRun(r"docs/precision.md", r".", "docs/export.md exports the same bundle; tests/commands checks it"),
    NotRun(r"docs/diffusers.md", r"import torch", "it needs the extra diffusers; tests/integrations"),
    NotRun(r"docs/python.md", r"ProcessPool", "processes need a file; tests/project/test_public_api.py"),
]
IN_ONE_FOLDER = ("README.md", "docs/quickstart.md")  # the pages of a first session, typed twice
RUNNABLE = {*SHELL, "python"}
OUTPUT_OPTIONS = {"-o", "--output"}
PYTHON_END = "END_OF_PYTHON"
EXAMPLE = ".git/example.py"


def examples(page: Path) -> list[Block]:
    """Return the blocks of a page with commands or Python code."""
    return [block for block in blocks(page) if block.language in RUNNABLE]


def reasons(page: str, part: str) -> Iterator[NotRun]:
    """Yield the entries of NOT_RUN that match a command or a Python block."""
    for entry in NOT_RUN:
        if re.fullmatch(entry.page, page) and re.search(entry.command, part):
            yield entry


def run_parts(block: Block) -> list[str]:
    """Return the parts of a block that the tests run."""
    return [part for part in block.parts() if not any(reasons(block.page, part))]


def script(page: Path) -> str:
    """Return a shell script with what the tests run of a page."""
    lines = []
    for block in examples(page):
        parts = run_parts(block)
        if not parts:
            continue
        lines.append(f"echo '--- {block.page}:{block.line}'")
        if block.language in SHELL:
            lines += parts
        else:
            # In a file, as a process that the example starts imports it. Git does not show its own folder.
            lines += [f"cat > {EXAMPLE} <<'{PYTHON_END}'", *parts, PYTHON_END, f"python {EXAMPLE}"]
    return "\n".join(lines)


RUN_PAGES = [page for page in PAGES if script(page)]
OTHER_PAGES = [page for page in RUN_PAGES if page_name(page) not in IN_ONE_FOLDER]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder in which git ignores what it ignores in a clone, with links to two of its folders."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    linked = ("benchmarks", "examples")
    ignored = [(ROOT / ".gitignore").read_text(), *(f"/{name}\n" for name in linked)]
    (folder / ".git" / "info" / "exclude").write_text("".join(ignored))
    for name in linked:
        (folder / name).symlink_to(ROOT / name)
    return folder


def type_commands(text: str, folder: Path) -> None:
    """Run a shell script that stops at the first error."""
    commands = f"set -euo pipefail\ntrap 'echo \"failed: $BASH_COMMAND\"' ERR\n{text}\n"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    completed = subprocess.run(
        ["bash", "-c", commands],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout[-3000:]


def shown_by_git(folder: Path) -> str:
    """Return the new files that `git status` shows."""
    command = ["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_readme_and_quickstart_can_be_typed_twice_in_one_folder(folder: Path):
    both = "\n".join(script(ROOT / page) for page in IN_ONE_FOLDER)
    assert both.count("bcm-edge ") >= 10
    type_commands(f"{both}\n{both}", folder)
    assert shown_by_git(folder) == ""


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHER_PAGES, ids=page_name)
def test_commands_of_a_page_run_in_order(page: Path, folder: Path):
    type_commands(script(page), folder)
    assert shown_by_git(folder) == ""


def test_commands_can_be_typed_again():
    """The pages are typed in one folder, and again. Without --force an existing output is refused."""
    shell = [block for page in PAGES for block in examples(page) if block.language in SHELL]
    commands = [shlex.split(part, comments=True) for block in shell for part in run_parts(block)]
    writing = [words for words in commands if words[:1] == ["bcm-edge"] and OUTPUT_OPTIONS & set(words)]
    assert len(writing) > 40
    assert [shlex.join(words) for words in writing if "--force" not in words] == []


def test_every_entry_of_not_run_matches_a_command():
    parts = [(block.page, part) for page in PAGES for block in examples(page) for part in block.parts()]
    used = {entry for page, part in parts for entry in reasons(page, part)}
    assert [entry for entry in NOT_RUN if entry not in used] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_stand_in_fenced_blocks(page: Path):
    """A command in an indented block would not be run by the tests above."""
    indented = re.findall(
        r"^ {4,}(?:bcm-edge|pip|python3?|import|make) .*$", outside_blocks(page), re.MULTILINE
    )
    assert indented == []
