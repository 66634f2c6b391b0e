"""The processor: its name and its instruction sets, from /proc/cpuinfo."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from .system_files import ROOT, read_text

# Instruction sets that decide how fast a precision is, by their names in /proc/cpuinfo.
_X86_FLAGS = (
    "avx2",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "amx_fp16",
)
_ARM_FLAGS = ("asimd", "asimdhp", "asimddp", "fphp", "bf16", "i8mm", "sve", "sve2")
FLAGS = (*_X86_FLAGS, *_ARM_FLAGS)


def cpu_model(root: Path = ROOT) -> str:
    """Return the name of the processor or, if the system does not report it, of the board."""
    return _cpuinfo(root, "model name") or board_name(root) or platform.processor() or platform.machine()


def board_name(root: Path = ROOT) -> str:
    """Return the name of the board, as on a Jetson or a Raspberry Pi, or "" if the system reports none."""
    return read_text(root / "proc/device-tree/model")


def cpu_flags(root: Path = ROOT) -> list[str]:
    """Return the instruction sets in FLAGS that the processor has."""
    available = instruction_sets(root).split()
    return [flag for flag in FLAGS if flag in available]


def instruction_sets(root: Path = ROOT) -> str:
    """Return all instruction sets of the first processor, separated by spaces; "" if they are unknown."""
    return _cpuinfo(root, "flags") or _cpuinfo(root, "Features")  # x86, Arm


def _cpuinfo(root: Path, key: str) -> str:
    """Return the value of the first line of /proc/cpuinfo with this key, or ""."""
    line = re.search(rf"^{key}\s*:\s*(.*)$", read_text(root / "proc/cpuinfo"), re.MULTILINE)
    return line[1].strip() if line else ""
