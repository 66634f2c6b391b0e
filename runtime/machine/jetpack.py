"""Which JetPack a Jetson runs, and what this package can run on it. Reads files of the system, runs nothing.

The releases are as NVIDIA, and for some L4T numbers owners of boards, had published them by November 2026. Not tried on a Jetson.
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

_MOVE = "flash JetPack 6.2 or newer; it is for Orin and later boards only"


@dataclass(frozen=True)
class JetPack:
    """One release. l4t: the Jetson Linux it was found by, "36.4.3"; tensorrt: what it brings, or the newest that may be put on it;
    runs: what that means for this package; ok: False if TensorRT cannot be used at all; fix: what to do about it, or "";
    extra: the extra of pyproject.toml that belongs to it, or "". name is "" for a release that is not known."""

    name: str
    python: str
    cuda: str
    tensorrt: str
    runs: str
    ok: bool = True
    fix: str = ""
    extra: Extra | Literal[""] = ""
    l4t: str = ""

    def __str__(self) -> str:
        if not self.name:
            return f"L4T {self.l4t}: {self.runs}"
        return f"JetPack {self.name} (L4T {self.l4t}): CUDA {self.cuda}, Python {self.python}, TensorRT {self.tensorrt}; {self.runs}"


_UNKNOWN = JetPack("", "", "", "", "unknown release, newer than this package", fix="update this package")

RELEASES: tuple[
    tuple[Version, JetPack], ...
] = (  # the first L4T of each; a branch ends where this package knows nothing more of it
    (
        (0, 0, 0),
        JetPack(
            "4 or older",
            "3.6",
            "10.2",
            "8.2",
            "this package needs TensorRT 8.6 and Python 3.10",
            False,
            _MOVE,
        ),
    ),
    (
        (34, 0, 0),
        JetPack("5", "3.8", "11.4", "8.5", "this package needs TensorRT 8.6 and Python 3.10", False, _MOVE),
    ),
    (
        (36, 0, 0),
        JetPack(
            "6.0",
            "3.10",
            "12.2",
            "8.6",
            "best effort: types are hints, no bf16",
            fix="flash JetPack 6.2: it has TensorRT 10.3",
            extra="jetson6",
        ),
    ),
    ((36, 4, 0), JetPack("6.1", "3.10", "12.6", "10.3", "meant for, not tried", extra="jetson6")),
    ((36, 4, 3), JetPack("6.2", "3.10", "12.6", "10.3", "meant for, not tried", extra="jetson6")),
    ((36, 6, 0), _UNKNOWN),
    ((38, 0, 0), JetPack("7.0", "3.12", "13.0", "10.13", "meant for, not tried", extra="jetson7")),
    ((38, 4, 0), JetPack("7.1", "3.12", "13.0", "10.13", "meant for, not tried", extra="jetson7")),
    ((38, 5, 0), _UNKNOWN),
    (
        (39, 0, 0),
        JetPack(
            "7.2",
            "3.12",
            "13.2",
            "10.16",
            "meant for, not tried; no TensorRT 11 before JetPack 7.2.2",
            extra="jetson7",
        ),
    ),
    # NVIDIA names JetPack 7.2.2 as the first with TensorRT 11, and not its L4T: 39.2.0 is 7.2 and 39.2.1 is 7.2.1
    (
        (39, 2, 2),
        JetPack(
            "7.2.2",
            "3.12",
            "13",
            "up to 11.4.1",
            "meant for, not tried; TensorRT 11.0 to 11.4.0 run on no JetPack",
            extra="jetson7",
        ),
    ),
    ((39, 3, 0), _UNKNOWN),
)


def jetpack(root: Path = ROOT) -> JetPack | None:
    """The release on this machine; None where there is no readable /etc/nv_tegra_release, so on anything but a Jetson."""
    version = l4t(root)
    return None if version is None else release(version)


def l4t(root: Path = ROOT) -> Version | None:
    """The version of Jetson Linux, from a line such as "# R36 (release), REVISION: 4.3, GCID: …"."""
    found = re.search(
        r"# R([0-9]{1,3}) \(release\), REVISION: ([0-9]{1,3})(?:\.([0-9]{1,3}))?",
        read_text(root / "etc/nv_tegra_release"),
    )
    return None if found is None else (int(found[1]), int(found[2]), int(found[3] or 0))


def release(version: Version) -> JetPack:
    """The release that a version of Jetson Linux belongs to."""
    _, row = RELEASES[bisect_right([first for first, _ in RELEASES], version) - 1]
    return replace(row, l4t=".".join(map(str, version)))


def install_lines(found: JetPack) -> str:
    """Return the commands that install this package and its libraries, one per line, or "" for an unsupported or unknown release.

    On a Jetson, TensorRT for Python is a system package, so the virtual environment must see the system's packages.
    """
    if not found.extra:
        return ""
    return "\n".join(
        (
            "sudo apt install python3-venv python3-libnvinfer libnvinfer-bin",
            "python3 -m venv --system-site-packages .venv",
            f".venv/bin/pip install {requirements(found.extra)}",
        )
    )
