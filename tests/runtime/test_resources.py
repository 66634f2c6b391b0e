"""Processors and memory within the limits of containers, with fake /proc and /sys of cgroup v1 and v2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from system_files import write_files

from bcm_edge.errors import InputError
from bcm_edge.runtime.machine import resources
from bcm_edge.runtime.machine.resources import available_memory, check_memory, limit_threads, processors

GB = 1 << 30
V1_UNLIMITED = "9223372036854771712"


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may use eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write /proc/self/cgroup and other files of the system below a root folder, and return that folder."""
    texts = {"proc/self/cgroup": groups, **files}
    return write_files(root, {name: f"{text}\n" for name, text in texts.items()})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("200000 100000", 2),
        ("300000 100000", 3),
        ("1000 100000", 1),
        ("25000 50000", 1),
        ("1600000 100000", 8),
        ("max 100000", 8),
        ("", 8),
        ("nonsense", 8),
    ],
)
def test_quota_of_cgroup_v2(tmp_path: Path, text: str, expected: int):
    """In a container with a cgroup namespace, in which the group of the process is the root."""
    assert processors(machine(tmp_path, "0::/", {"sys/fs/cgroup/cpu.max": text})) == expected


@pytest.mark.parametrize(
    ("group", "parent", "top", "expected"),
    [
        ("max 100000", "150000 100000", "max 100000", 2),
        ("400000 100000", "max 100000", None, 4),
        ("300000 100000", "50000 100000", None, 1),
    ],
)
def test_smallest_quota_of_nested_groups_is_used(
    tmp_path: Path, group: str, parent: str, top: str | None, expected: int
):
    files = {"sys/fs/cgroup/kubepods/pod1/cpu.max": group, "sys/fs/cgroup/kubepods/cpu.max": parent}
    if top:
        files["sys/fs/cgroup/cpu.max"] = top
    assert processors(machine(tmp_path, "0::/kubepods/pod1", files)) == expected


def test_quota_of_another_group_is_ignored(tmp_path: Path):
    files = {"sys/fs/cgroup/a/cpu.max": "max 100000", "sys/fs/cgroup/b/cpu.max": "50000 100000"}
    assert processors(machine(tmp_path, "0::/a", files)) == 8


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("50000", 1), ("150000", 2), ("0", 8)])
@pytest.mark.parametrize(
    ("controllers", "folder"), [("cpu", "cpu"), ("cpu,cpuacct", "cpu"), ("cpu,cpuacct", "cpu,cpuacct")]
)
def test_quota_of_cgroup_v1(tmp_path: Path, quota: str, expected: int, controllers: str, folder: str):
    groups = f"12:memory:/docker/1\n4:{controllers}:/docker/1\n1:name=systemd:/docker/1\n0::/"
    for prefix in ("docker/1/", ""):  # on the host, and in a container that shows the path of the host
        files = {
            f"sys/fs/cgroup/{folder}/{prefix}cpu.cfs_{name}_us": value
            for name, value in (("quota", quota), ("period", "100000"))
        }
        root = tmp_path / (prefix.replace("/", "_") or "top")
        assert processors(machine(root, groups, files)) == expected


def test_affinity_mask_is_used_if_it_is_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = machine(tmp_path, "0::/", {"sys/fs/cgroup/cpu.max": "400000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5})
    assert processors(root) == 2


@pytest.mark.parametrize("groups", ["", "0", "0::", "nonsense\n\n:::", "0::/../../x"])
def test_unreadable_groups_set_no_limit(tmp_path: Path, groups: str):
    assert processors(machine(tmp_path, groups, {})) == 8
    assert processors(tmp_path / "nothing") == 8


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 24 * GB),
        ({"memory.max": "max", "memory.current": str(GB)}, 24 * GB),
        ({"memory.max": str(4 * GB), "memory.current": str(GB)}, 3 * GB),
        (
            {
                "memory.max": str(4 * GB),
                "memory.current": str(3 * GB),
                "memory.stat": f"anon 5\ninactive_file {2 * GB}",
            },
            3 * GB,
        ),
        ({"memory.max": str(64 * GB), "memory.current": str(GB)}, 24 * GB),
        ({"memory.max": str(GB), "memory.current": str(2 * GB)}, 0),
    ],
)
def test_memory_of_a_container_with_cgroup_v2(tmp_path: Path, files: dict[str, str], expected: int):
    root = machine(tmp_path, "0::/", {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    (root / "proc/meminfo").write_text(f"MemTotal: 999 kB\nMemAvailable:   {24 * GB // 1024} kB\n")
    assert available_memory(root) == expected


@pytest.mark.parametrize(("limit", "expected"), [(str(2 * GB), GB), (V1_UNLIMITED, 24 * GB)])
def test_memory_of_a_container_with_cgroup_v1(tmp_path: Path, limit: str, expected: int):
    folder = "sys/fs/cgroup/memory/docker/1"
    usage = {"memory.usage_in_bytes": str(GB + 5), "memory.stat": "total_inactive_file 5"}
    files = {f"{folder}/{name}": text for name, text in {"memory.limit_in_bytes": limit, **usage}.items()}
    root = machine(
        tmp_path, "9:memory:/docker/1", {**files, "proc/meminfo": f"MemAvailable: {24 * GB // 1024} kB"}
    )
    assert available_memory(root) == expected


def test_unknown_memory_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert available_memory(tmp_path) is None
    monkeypatch.setattr(resources, "available_memory", lambda: None)
    check_memory(10**30, "x", "y")


def test_message_has_the_needed_and_the_available_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources, "available_memory", lambda: 2 * 10**9)
    check_memory(2 * 10**9, "16 images", "give fewer")
    with pytest.raises(
        InputError, match=r"^5 images would take 3 TB of memory, and 2 GB are available; give fewer$"
    ):
        check_memory(3 * 10**12, "5 images", "give fewer")


def test_omp_num_threads_follows_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = machine(tmp_path, "0::/", {"sys/fs/cgroup/cpu.max": "150000 100000"})
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    limit_threads(root)
    assert os.environ["OMP_NUM_THREADS"] == "5"
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads(tmp_path / "nothing")
    assert "OMP_NUM_THREADS" not in os.environ
    limit_threads(root)
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_torch_uses_that_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch", reason="torch is not installed")
    code = (
        "import os; os.sched_getaffinity = lambda _: set(range(8))\n"
        "from bcm_edge.runtime.machine import resources\n"
        "resources._quota = lambda _: 0.5\n"
        "resources._groups = lambda *_: ['a group']\n"
        "resources.limit_threads()\n"
        "import torch; print(torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    completed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert completed.stdout == "1\n"
