"""The board, power mode and clocks of a Jetson, read from fake system files.

The files have the form that owners of such boards have published. None was read from a board.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from system_files import write_files

from bcm_edge.runtime.machine.jetson import fastest_mode, jetson, power_advice

AGX_ORIN = (
    "< PM_CONFIG DEFAULT=2 >\n< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n"
    "< POWER_MODEL ID=2 NAME=MODE_30W >\n"
)
ORIN_NANO = (
    "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
    "< POWER_MODEL ID=3 NAME=7W >\n"
)


def test_power_mode_and_clocks_of_a_jetson(tmp_path: Path) -> None:
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
        "var/lib/nvpmodel/status": "pmode:0001\n",
        "etc/nvpmodel.conf": (
            "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=7W >\n"
        ),
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1510400\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
        "sys/class/devfreq/off/cur_freq": "",
    }
    assert jetson(write_files(tmp_path, files)) == {
        "board": "NVIDIA Jetson Orin Nano",
        "power_mode": "1 7W",
        "clocks_mhz": {"cpu0": {"now": 729.6, "max": 1510.4}, "17000000.gpu": {"now": 306.0, "max": 624.75}},
    }


def test_other_machines_are_not_a_jetson(tmp_path: Path) -> None:
    assert jetson(tmp_path) is None


def clocks(gpu: int, cpu: int = 2201600, video: int = 115200000) -> dict[str, str]:
    """The files with the clocks of an AGX Orin: GPU and video in Hz, CPU in kHz."""
    return {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": f"{cpu}\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2201600\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": f"{gpu}\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "1300500000\n",
        "sys/class/devfreq/15340000.vic/cur_freq": f"{video}\n",
        "sys/class/devfreq/15340000.vic/max_freq": "729600000\n",
    }


@pytest.mark.parametrize(
    ("mode", "modes", "files", "advice"),
    [
        ("0000", AGX_ORIN, clocks(1300500000), ""),
        ("0000", AGX_ORIN, clocks(1300500000, cpu=2190000), ""),  # as measured
        ("0000", AGX_ORIN, clocks(306000000), "sudo jetson_clocks"),
        ("0000", AGX_ORIN, clocks(1300500000, cpu=729600), "sudo jetson_clocks"),
        ("0002", AGX_ORIN, clocks(1300500000), "sudo nvpmodel -m 0 && sudo jetson_clocks"),
        ("0000", ORIN_NANO, clocks(1300500000), "sudo nvpmodel -m 2 && sudo jetson_clocks"),
        ("0002", ORIN_NANO, clocks(1300500000), ""),
        ("0002", "", clocks(1300500000), ""),  # 2 may be the fastest
        ("0000", "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n", {}, ""),
    ],
)
def test_advice_on_power(tmp_path: Path, mode: str, modes: str, files: dict[str, str], advice: str) -> None:
    root = write_files(
        tmp_path, {"var/lib/nvpmodel/status": f"pmode:{mode}\n", "etc/nvpmodel.conf": modes, **files}
    )
    assert power_advice(jetson(root), root) == advice


def test_thor_has_clocks_of_other_names(tmp_path: Path) -> None:
    for name, now in (("gpu-gpc-0", 1575), ("gpu-nvd-0", 300)):
        write_files(
            tmp_path,
            {
                f"sys/class/devfreq/{name}/cur_freq": f"{now}000000",
                f"sys/class/devfreq/{name}/max_freq": "1575000000",
            },
        )
    write_files(
        tmp_path,
        {"var/lib/nvpmodel/status": "pmode:0000", "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >"},
    )
    assert power_advice(jetson(tmp_path), tmp_path) == ""
    (tmp_path / "sys/class/devfreq/gpu-gpc-0/cur_freq").write_text("390000000")
    assert power_advice(jetson(tmp_path), tmp_path) == "sudo jetson_clocks"


def test_no_advice_on_other_machines_or_if_the_mode_is_unknown(tmp_path: Path) -> None:
    assert power_advice(jetson(tmp_path), tmp_path) == ""
    root = write_files(tmp_path, {"etc/nvpmodel.conf": AGX_ORIN})
    assert power_advice(jetson(root), root) == ""
    assert fastest_mode(root) == "0"
