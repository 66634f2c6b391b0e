"""A Jetson's board, power mode and clocks."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from .system_files import ROOT, read_text


def jetson(root: Path = ROOT) -> dict[str, Any] | None:
    """A Jetson's board, power mode ("0 MAXN"), and clocks now and at most, in MHz, by device; None on anything else."""
    mode = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status"))
    names = _power_modes(root)
    if mode is None and not names:
        return None
    number = None if mode is None else str(int(mode[1]))
    power = None if number is None else f"{number} {names.get(number, '')}".strip()
    return {
        "board": read_text(root / "proc/device-tree/model"),
        "power_mode": power,
        "clocks_mhz": _clocks(root),
    }


def _power_modes(root: Path) -> dict[str, str]:
    """The power modes of /etc/nvpmodel.conf: number → name."""
    return dict(
        re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", read_text(root / "etc/nvpmodel.conf"))
    )


def _clocks(root: Path) -> dict[str, dict[str, float]]:
    """Device → {"now", "max"} in MHz. cpufreq counts in kHz, devfreq (the GPU among others) in Hz."""
    places = (
        ("sys/devices/system/cpu/cpu*/cpufreq", "scaling_cur_freq", "scaling_max_freq", 1e3),
        ("sys/class/devfreq/*", "cur_freq", "max_freq", 1e6),
    )
    clocks = {}
    for pattern, now, most, per_mhz in places:
        for folder in sorted(root.glob(pattern)):
            name = folder.parent.name if folder.name == "cpufreq" else folder.name
            with suppress(ValueError):  # a clock that is off or not for everybody's eyes
                clocks[name] = {
                    "now": int(read_text(folder / now)) / per_mhz,
                    "max": int(read_text(folder / most)) / per_mhz,
                }
    return clocks


def power_advice(board: dict[str, Any] | None, root: Path = ROOT) -> str:
    """The line that makes a Jetson as fast as it gets, or "" if it is. board: what `jetson` returns."""
    if board is None:
        return ""
    mode = (board["power_mode"] or "").partition(" ")[0]
    fastest = fastest_mode(root)
    if (
        mode and fastest and mode != fastest
    ):  # jetson_clocks pins the clocks to what the mode allows, so it comes second
        return f"sudo nvpmodel -m {fastest} && sudo jetson_clocks"
    return "sudo jetson_clocks" if _slow(board["clocks_mhz"]) else ""


def fastest_mode(root: Path = ROOT) -> str:
    """The number of the mode without limits, "" if none is listed. Often 0, but an Orin Nano Super has 15 W there and MAXN_SUPER at 2."""
    numbers = {name: number for number, name in _power_modes(root).items()}
    return numbers.get("MAXN_SUPER") or numbers.get("MAXN") or ("0" if numbers else "")


def _slow(clocks: dict[str, dict[str, float]]) -> bool:
    """Whether a processor or the GPU is below its maximum. Other clocks, of video engines for one, may rest: nothing here uses them."""
    computing = [
        clock for name, clock in clocks.items() if re.search(r"^cpu\d|\.gpu$|\.ga10b$|^gpu-gpc", name)
    ]
    return any(
        clock["now"] < 0.95 * clock["max"] for clock in computing
    )  # processors report what they measure, which is never exact
