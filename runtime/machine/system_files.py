"""Files of the operating system, such as those in /proc and /sys."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")


def read_text(file: Path) -> str:
    """Return the content of a file without surrounding blanks and NUL bytes, or "" if it cannot be read."""
    try:
        return file.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def read_lines(file: Path) -> list[str]:
    """Return the lines of a file, or no lines if it cannot be read."""
    return read_text(file).splitlines()
