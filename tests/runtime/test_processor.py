"""The processor and its load, read from fake system files and measured on this machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from processes import child

from bcm_edge.runtime.machine.load import OtherProcesses, busy_seconds
from bcm_edge.runtime.machine.processor import board_name, cpu_flags, cpu_model


def test_processor_is_read_from_cpuinfo(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu avx2 avx512_vnni amx_int8 sse2\n"
    )
    assert cpu_model(tmp_path) == "Fast 9000"
    assert cpu_flags(tmp_path) == ["avx2", "avx512_vnni", "amx_int8"]


def test_busy_time_excludes_idle_and_waiting(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "stat").write_text(
        "cpu  100 200 300 9000 5000 10 20 70 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"
    )
    assert busy_seconds(tmp_path) == 700 / os.sysconf("SC_CLK_TCK")
    assert busy_seconds(tmp_path / "none") is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/stat")
def test_another_process_counts_as_others() -> None:
    with child([sys.executable, "-c", "while True: pass"]):
        others = OtherProcesses()
        time.sleep(1)
        share = others.share()
    assert share is not None
    assert share > 0.3 / (os.cpu_count() or 1)


def test_name_of_the_board_is_used_if_the_processor_has_no_name(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    assert board_name(tmp_path) == cpu_model(tmp_path) == "NVIDIA Jetson Orin Nano"
    assert board_name(tmp_path / "none") == ""
