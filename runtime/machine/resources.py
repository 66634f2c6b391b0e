"""The processors, memory and disk space that this process may use.

The limits of containers (cgroups, versions 1 and 2) are taken into account.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from ...errors import BackendError, InputError
from .system_files import ROOT, read_lines

_UNLIMITED = 1 << 60  # cgroup v1 has a number near 2**63 if there is no limit
MOST_THREADS = 1024  # the largest accepted number of threads; each is created when a session is opened


def threads() -> int:
    """Return $BCM_EDGE_THREADS, or else `processors`. More threads than processors halve the speed.

    Raises BackendError if the variable is not an integer from 1 to MOST_THREADS.
    """
    if text := os.environ.get("BCM_EDGE_THREADS"):
        if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MOST_THREADS):
            raise BackendError(
                f"BCM_EDGE_THREADS must be a positive integer up to {MOST_THREADS}, not {text!r}"
            )
        return int(text)
    return processors()


def processors(root: Path = ROOT) -> int:
    """Return how many threads can run at once.

    This is the number of processors in the affinity mask or, if it is smaller, the CPU quota of the
    container, rounded up.
    """
    limits = [_affinity()]
    for folder in _groups(root, "cpu"):
        quota = _quota(folder)
        if quota is not None:
            limits.append(math.ceil(quota))
    return max(1, min(limits))


def limit_threads(root: Path = ROOT) -> None:
    """Set OMP_NUM_THREADS to `processors` if a CPU quota applies, unless the user has set it.

    torch and other libraries with OpenMP respect the affinity mask, but not the quota. Call this before they
    are imported.
    """
    count = processors(root)
    if count < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(count))


def system_memory(root: Path = ROOT) -> int | None:
    """Return how many bytes the machine can allocate without swapping, or None if it is unknown."""
    for line in read_lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def available_memory(root: Path = ROOT) -> int | None:
    """Return how many bytes this process can allocate without swapping, or None if it is unknown.

    This is the free memory of the machine or, if it is smaller, of the container.
    """
    limits = [_room(folder) for folder in _groups(root, "memory")]
    limits.append(system_memory(root))
    known = [limit for limit in limits if limit is not None]
    return max(0, min(known)) if known else None


def check_memory(needed: int, subject: str, advice: str) -> None:
    """Raise InputError if `needed` bytes are more than the available memory.

    subject: the subject of the message, which needs the memory. advice: what the user should do.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise InputError(
            f"{subject} would take {_size(needed)} of memory, and {_size(available)} are available; {advice}"
        )


def check_disk(needed: int, folder: Path, subject: str, advice: str) -> None:
    """Raise InputError if `needed` bytes are more than the free disk space at a folder, which need not exist.

    subject, advice: as for `check_memory`.
    """
    folder = folder.absolute()
    base = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        free = shutil.disk_usage(base).free
    except OSError:  # opening the folder will report the problem
        return
    if needed > free:
        raise InputError(
            f"{subject} would take {_size(needed)} of disk space, and {_size(free)} are free at {base}; "
            f"{advice}"
        )


def _affinity() -> int:
    """Return the number of processors in the affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(count: int) -> str:
    for unit, factor in (("EB", 10**18), ("PB", 10**15), ("TB", 10**12), ("GB", 10**9)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 1000 * factor else f"{count / factor:.1e} {unit}"
    return f"{count / 1e6:.3g} MB"


def _groups(root: Path, controller: str) -> list[Path]:
    """Return the cgroup folders that can limit this process, from its own group up to the top.

    controller: "cpu" or "memory".
    """
    folders: list[Path] = []
    for line in read_lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2
            tops = [root / "sys/fs/cgroup"]
        elif controller in controllers.split(","):  # version 1; a folder may have several controllers as name
            tops = [root / "sys/fs/cgroup" / name for name in dict.fromkeys((controller, controllers))]
        else:
            continue
        for top in tops:
            # In a container, the path may be the one on the host, and only the top exists here.
            own = top / path.lstrip("/")
            folders += [folder for folder in (own, *own.parents) if folder == top or top in folder.parents]
    return folders


def _quota(folder: Path) -> float | None:
    """Return the CPU quota of a cgroup as a number of processors, or None if there is no limit."""
    words = " ".join(read_lines(folder / "cpu.max")).split()  # version 2
    if not words:  # version 1
        lines = [*read_lines(folder / "cpu.cfs_quota_us"), *read_lines(folder / "cpu.cfs_period_us")]
        words = " ".join(lines).split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):  # without limit: "max 100000", or -1
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _room(folder: Path) -> int | None:
    """Return the bytes between the memory limit of a cgroup and its usage, or None if there is no limit.

    Page cache that the system can drop counts as free.
    """
    for limit_name, usage_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),  # version 2
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
    ):
        limit = "".join(read_lines(folder / limit_name)).strip()
        usage = "".join(read_lines(folder / usage_name)).strip()
        if limit.isdecimal() and usage.isdecimal() and int(limit) < _UNLIMITED:
            pairs = [line.split() for line in read_lines(folder / "memory.stat")]
            statistics = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
            return int(limit) - int(usage) + int(statistics.get(cache_name, 0))
    return None
