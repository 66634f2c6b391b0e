"""What this process may use of the machine: processors and memory, with the limits of a container (cgroup v1 and v2), and disks."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from ...errors import BackendError, InputError
from .system_files import ROOT, read_lines

_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2**63 for "no limit"


def processors(root: Path = ROOT) -> int:
    """How many threads can run at once: the processors of the affinity mask, or ceil(CPU quota) of the container if that is less."""
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _quota(folder)) is not None]
    return max(1, min([_allowed(), *(math.ceil(quota) for quota in quotas)]))


def limit_threads(root: Path = ROOT) -> None:
    """Have torch and other libraries on OpenMP begin with `processors` threads: by themselves they know the affinity mask, not the quota.

    To be called before they are imported. OMP_NUM_THREADS that the user has set stays.
    """
    if (count := processors(root)) < _allowed():
        os.environ.setdefault("OMP_NUM_THREADS", str(count))


def _allowed() -> int:
    """The processors of the affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that can still be allocated without swapping: of the machine, or of the container if that is less. None if unknown."""
    free = [room for folder in _groups(root, "memory") if (room := _room(folder)) is not None]
    for line in read_lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    return max(0, min(free)) if free else None


def check_memory(needed: int, what: str, advice: str) -> None:
    """Raise InputError if `needed` bytes are more than what is available.

    what: what takes the memory, as the subject of the message; advice: what to do instead.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise InputError(
            f"{what} would take {_size(needed)} of memory, and {_size(available)} are available; {advice}"
        )


def check_disk(needed: int, folder: Path, what: str, advice: str) -> None:
    """Raise InputError if `needed` bytes are more than what is free where a folder lies, or will lie.

    what, advice: as in `check_memory`.
    """
    base = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    try:
        free = shutil.disk_usage(base).free
    except OSError:  # what is wrong with it is found where it is opened
        return
    if needed > free:
        raise InputError(
            f"{what} would take {_size(needed)} of disk space, and {_size(free)} are free at {base}; {advice}"
        )


def _size(count: int) -> str:
    for unit, factor in (("EB", 10**18), ("PB", 10**15), ("TB", 10**12), ("GB", 10**9)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 1000 * factor else f"{count / factor:.1e} {unit}"
    return f"{count / 1e6:.3g} MB"


def _groups(root: Path, controller: str) -> list[Path]:
    """The cgroup folders of this process that can limit a controller, from its own group up to the top."""
    folders: list[Path] = []
    for line in read_lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # v2
            tops = [root / "sys/fs/cgroup"]
        elif controller in controllers.split(
            ","
        ):  # v1, where a folder may be named after all controllers that it is for
            tops = [root / "sys/fs/cgroup" / name for name in dict.fromkeys((controller, controllers))]
        else:
            continue
        for top in tops:
            # in a container the path may be the host's, of which the container sees only the top
            own = top / path.lstrip("/")
            folders += [folder for folder in (own, *own.parents) if folder == top or top in folder.parents]
    return folders


def _quota(folder: Path) -> float | None:
    """Processors, from cpu.max (v2) or cpu.cfs_quota_us (v1); None without a limit."""
    words = " ".join(read_lines(folder / "cpu.max")).split()
    if not words:
        words = " ".join(
            [*read_lines(folder / "cpu.cfs_quota_us"), *read_lines(folder / "cpu.cfs_period_us")]
        ).split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):  # "max 100000", or -1 in v1
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _room(folder: Path) -> int | None:
    """Bytes between the limit and what is in use; page cache that can be dropped counts as free. None without a limit."""
    for limit_name, usage_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, usage = ("".join(read_lines(folder / name)).strip() for name in (limit_name, usage_name))
        if limit.isdecimal() and usage.isdecimal() and int(limit) < _UNLIMITED:
            statistics = dict(
                line.split()[:2] for line in read_lines(folder / "memory.stat") if len(line.split()) == 2
            )
            return int(limit) - int(usage) + int(statistics.get(cache_name, 0))
    return None


def threads() -> int:
    """$BCM_EDGE_THREADS, else the processors this process may use. More threads than that halve the speed. Raises BackendError."""
    if given := os.environ.get("BCM_EDGE_THREADS"):
        if not given.isdecimal() or not int(given):
            raise BackendError(f"BCM_EDGE_THREADS is {given!r}; it is a number of threads from 1")
        return int(given)
    return processors()
