"""The processor: its name and its instruction sets, from /proc/cpuinfo."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from .system_files import ROOT, read_text

FLAGS = (  # instruction sets that decide how fast a precision is: x86, then Arm (where /proc/cpuinfo names them differently)
    *(
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
    ),
    *("asimd", "asimdhp", "asimddp", "fphp", "bf16", "i8mm", "sve", "sve2"),
)


def cpu_model(root: Path = ROOT) -> str:
    """The processor's or the board's name."""
    return (
        _cpuinfo(root, "model name")
        or read_text(root / "proc/device-tree/model")
        or platform.processor()
        or platform.machine()
    )


def cpu_flags(root: Path = ROOT) -> list[str]:
    """Those of FLAGS that the first processor has."""
    held = instruction_sets(root).split()
    return [flag for flag in FLAGS if flag in held]


def instruction_sets(root: Path = ROOT) -> str:
    """Everything that /proc/cpuinfo lists for the first processor, with blanks between; "" where it is not readable."""
    return _cpuinfo(root, "flags") or _cpuinfo(root, "Features")


def _cpuinfo(root: Path, key: str) -> str:
    """The value of the first line of /proc/cpuinfo with this key, or ""."""
    line = re.search(rf"^{key}\s*:\s*(.*)$", read_text(root / "proc/cpuinfo"), re.MULTILINE)
    return line[1].strip() if line else ""
