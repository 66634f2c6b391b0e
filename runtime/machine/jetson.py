"""The board, the power mode and the clocks of a Jetson."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from .processor import board_name
from .system_files import ROOT, read_text

# Folder, file of the current clock, file of the highest clock, unit in MHz. cpufreq uses kHz; devfreq, which
# contains the GPU, uses Hz.
_CLOCK_FILES = (
    ("sys/devices/system/cpu/cpu*/cpufreq", "scaling_cur_freq", "scaling_max_freq", 1e3),
    ("sys/class/devfreq/*", "cur_freq", "max_freq", 1e6),
)
_COMPUTING = re.compile(r"^cpu\d|\.gpu$|\.ga10b$|^gpu-gpc")  # names of processors and GPUs among the clocks
_FULL_SPEED = 0.95  # share of the highest clock; measured clocks never reach it exactly


def jetson(root: Path = ROOT) -> dict[str, Any] | None:
    """Return the board, the power mode and the clocks, or None if this machine is not a Jetson.

    board: its name.
    power_mode: the mode, for example "0 MAXN", or None if it is unknown.
    clocks_mhz: device → {"now", "max"}.
    """
    mode = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status"))
    names = _power_modes(root)
    if mode is None and not names:
        return None
    number = None if mode is None else str(int(mode[1]))
    return {
        "board": board_name(root),
        "power_mode": None if number is None else f"{number} {names.get(number, '')}".strip(),
        "clocks_mhz": _clocks(root),
    }


def power_advice(board: dict[str, Any] | None, root: Path = ROOT) -> str:
    """Return the command that makes a Jetson as fast as possible, or "" if it is.

    board: the value of `jetson`.
    """
    if board is None:
        return ""
    mode = (board["power_mode"] or "").partition(" ")[0]
    fastest = fastest_mode(root)
    if mode and fastest and mode != fastest:
        # jetson_clocks sets the clocks to the limits of the power mode, so the mode has to be set first.
        return f"sudo nvpmodel -m {fastest} && sudo jetson_clocks"
    return "sudo jetson_clocks" if _is_slow(board["clocks_mhz"]) else ""


def fastest_mode(root: Path = ROOT) -> str:
    """Return the number of the power mode without limits, or "" if no modes are listed.

    It is 0 on most boards, but on an Orin Nano Super mode 0 is limited to 15 W, and mode 2 is MAXN_SUPER.
    """
    numbers = {name: number for number, name in _power_modes(root).items()}
    return numbers.get("MAXN_SUPER") or numbers.get("MAXN") or ("0" if numbers else "")


def _power_modes(root: Path) -> dict[str, str]:
    """Return number → name of the power modes in /etc/nvpmodel.conf."""
    text = read_text(root / "etc/nvpmodel.conf")
    return dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", text))


def _clocks(root: Path) -> dict[str, dict[str, float]]:
    """Return device → {"now", "max"} in MHz."""
    clocks = {}
    for pattern, now, highest, per_mhz in _CLOCK_FILES:
        for folder in sorted(root.glob(pattern)):
            name = folder.parent.name if folder.name == "cpufreq" else folder.name
            with suppress(ValueError):  # no number: the clock is off, or only root may read it
                clocks[name] = {
                    "now": int(read_text(folder / now)) / per_mhz,
                    "max": int(read_text(folder / highest)) / per_mhz,
                }
    return clocks


def _is_slow(clocks: dict[str, dict[str, float]]) -> bool:
    """Return whether a processor or the GPU runs below its highest clock.

    Other clocks, for example those of video engines, do not matter: they are not used here.
    """
    computing = [clock for name, clock in clocks.items() if _COMPUTING.search(name)]
    return any(clock["now"] < _FULL_SPEED * clock["max"] for clock in computing)
