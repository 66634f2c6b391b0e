"""Find the JetPack release of a Jetson, and the backends for it. Only system files are read.

The releases are as NVIDIA published them by November 2026; owners of boards published some of the L4T
numbers. None of this was tested on a Jetson.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .install_hints import Extra, requirements
from .system_files import ROOT, read_text

Version = tuple[int, int, int]

_TOO_OLD = "this package needs TensorRT 8.6 and Python 3.10"
_NOT_TESTED = "supported, but not tested"
_FLASH = "flash JetPack 6.2 or newer; it is for Orin and later boards only"


@dataclass(frozen=True)
class JetPack:
    """A release of JetPack."""

    # "6.2", or "" for an unknown release.
    name: str
    # Version of Python.
    python: str
    # Version of CUDA.
    cuda: str
    # The version of TensorRT that it contains, or the newest that can be installed on it.
    tensorrt: str
    # What this package can do on it.
    support: str
    # False if TensorRT cannot be used at all.
    ok: bool = True
    # What the user should do, or "".
    fix: str = ""
    # The extra of pyproject.toml to install, or "".
    extra: Extra | Literal[""] = ""
    # The version of Jetson Linux that was found, for example "36.4.3".
    l4t: str = ""

    def __str__(self) -> str:
        if not self.name:
            return f"L4T {self.l4t}: {self.support}"
        versions = f"CUDA {self.cuda}, Python {self.python}, TensorRT {self.tensorrt}"
        return f"JetPack {self.name} (L4T {self.l4t}): {versions}; {self.support}"


_UNKNOWN = JetPack("", "", "", "", "unknown release, newer than this package", fix="update this package")

# The first L4T version of each release. All other versions are _UNKNOWN.
RELEASES: tuple[tuple[Version, JetPack], ...] = (
    ((0, 0, 0), JetPack("4 or older", "3.6", "10.2", "8.2", _TOO_OLD, ok=False, fix=_FLASH)),
    ((34, 0, 0), JetPack("5", "3.8", "11.4", "8.5", _TOO_OLD, ok=False, fix=_FLASH)),
    (
        (36, 0, 0),
        JetPack(
            "6.0",
            "3.10",
            "12.2",
            "8.6",
            "limited: TensorRT may use other types than the graph asks for, no bf16",
            fix="flash JetPack 6.2: it has TensorRT 10.3",
            extra="jetson6",
        ),
    ),
    ((36, 4, 0), JetPack("6.1", "3.10", "12.6", "10.3", _NOT_TESTED, extra="jetson6")),
    ((36, 4, 3), JetPack("6.2", "3.10", "12.6", "10.3", _NOT_TESTED, extra="jetson6")),
    ((36, 6, 0), _UNKNOWN),
    ((38, 0, 0), JetPack("7.0", "3.12", "13.0", "10.13", _NOT_TESTED, extra="jetson7")),
    ((38, 4, 0), JetPack("7.1", "3.12", "13.0", "10.13", _NOT_TESTED, extra="jetson7")),
    ((38, 5, 0), _UNKNOWN),
    (
        (39, 0, 0),
        JetPack(
            "7.2",
            "3.12",
            "13.2",
            "10.16",
            f"{_NOT_TESTED}; no TensorRT 11 before JetPack 7.2.2",
            extra="jetson7",
        ),
    ),
    # NVIDIA lists JetPack 7.2.2 as the first with TensorRT 11, without its L4T version. 39.2.0 is JetPack 7.2
    # and 39.2.1 is JetPack 7.2.1.
    (
        (39, 2, 2),
        JetPack(
            "7.2.2",
            "3.12",
            "13",
            "up to 11.4.1",
            f"{_NOT_TESTED}; TensorRT 11.0 to 11.4.0 run on no JetPack",
            extra="jetson7",
        ),
    ),
    ((39, 3, 0), _UNKNOWN),
)


def jetpack(root: Path = ROOT) -> JetPack | None:
    """Return the release on this machine, or None if it is not a Jetson.

    A Jetson has a readable file /etc/nv_tegra_release.
    """
    version = l4t(root)
    return None if version is None else release(version)


def l4t(root: Path = ROOT) -> Version | None:
    """Return the version of Jetson Linux, or None if it is not installed.

    It is read from a line such as "# R36 (release), REVISION: 4.3, GCID: …".
    """
    match = re.search(
        r"# R([0-9]{1,3}) \(release\), REVISION: ([0-9]{1,3})(?:\.([0-9]{1,3}))?",
        read_text(root / "etc/nv_tegra_release"),
    )
    return None if match is None else (int(match[1]), int(match[2]), int(match[3] or 0))


def release(version: Version) -> JetPack:
    """Return the release that a version of Jetson Linux belongs to."""
    first_versions = [first for first, _ in RELEASES]
    _, newest = RELEASES[bisect_right(first_versions, version) - 1]
    return replace(newest, l4t=".".join(map(str, version)))


def install_lines(release: JetPack) -> str:
    """Return the commands that install this package and its libraries, one per line.

    Returns "" for an unsupported or unknown release. On a Jetson, TensorRT for Python is a system package, so
    the virtual environment needs access to the system's packages.
    """
    if not release.extra:
        return ""
    commands = (
        "sudo apt install python3-venv python3-libnvinfer libnvinfer-bin",
        "python3 -m venv --system-site-packages .venv",
        f".venv/bin/pip install {requirements(release.extra)}",
    )
    return "\n".join(commands)
