"""The pages of the documentation, and the code blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fixture_types import ROOT

FOLDERS_WITH_README = ("benchmarks", "deploy")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / folder / "README.md" for folder in FOLDERS_WITH_README),
    ]
)
FENCED_BLOCK = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELL = {"sh", "bash"}


@dataclass(frozen=True)
class Block:
    """A fenced code block: its page, the line where its text begins, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def parts(self) -> list[str]:
        """Return what is run or skipped as a whole: each line of a shell block, a Python block in one piece.

        A line that ends in a backslash is one line with the next. Lines with comments only are left out.
        """
        if self.language not in SHELL:
            return [self.text]
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def page_name(page: Path) -> str:
    """Return the path of a page from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for found in FENCED_BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 2
        yield Block(page_name(page), line, found[2].strip(), found[3])


def outside_blocks(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return FENCED_BLOCK.sub("", page.read_text(encoding="utf-8"))
