"""doctor on a Jetson: the release, what to install, and whether the board runs at full speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bcm_edge.runtime.checks import doctor
from bcm_edge.runtime.machine.gpu import Gpu
from bcm_edge.runtime.machine.jetpack import release


def on_jetson(
    monkeypatch: pytest.MonkeyPatch,
    l4t: tuple[int, int, int],
    board: dict[str, Any] | None,
    missing: str | None = None,
) -> dict[str, doctor.Finding]:
    """Return the findings by subject, on a board with this Jetson Linux."""
    monkeypatch.setattr(doctor, "jetpack", lambda: release(l4t))
    monkeypatch.setattr(doctor, "jetson", lambda: board)
    monkeypatch.setattr(doctor, "probe", lambda: Gpu(0, "Orin", "8.7", 16, 32 << 30, True, "12.6"))
    monkeypatch.setattr(doctor, "missing_tensorrt", lambda gpu: missing or "")
    monkeypatch.setattr(doctor, "missing_cuda_core", lambda gpu: "")
    monkeypatch.setattr(doctor, "tensorrt_version", lambda: "10.3.0")
    return {finding.subject: finding for finding in doctor.examine()}


def board(now: float, power_mode: str = "0 MAXN") -> dict[str, Any]:
    """The facts of an AGX Orin whose clock runs at `now` MHz."""
    return {
        "board": "NVIDIA Jetson AGX Orin",
        "power_mode": power_mode,
        "clocks_mhz": {"cpu0": {"now": now, "max": 2201.6}},
    }


def test_jetpack_and_power_mode_are_reported(monkeypatch: pytest.MonkeyPatch):
    findings = on_jetson(monkeypatch, (36, 4, 3), board(2201.6))
    assert findings["JetPack"].ok and findings["JetPack"].fix == ""
    assert (
        findings["JetPack"].detail
        == "JetPack 6.2 (L4T 36.4.3): CUDA 12.6, Python 3.10, TensorRT 10.3; supported, but not tested"
    )
    assert findings["power"] == doctor.Finding("power", True, "0 MAXN", "")


def test_slow_clocks_have_a_fix(monkeypatch: pytest.MonkeyPatch):
    findings = on_jetson(monkeypatch, (36, 4, 3), board(729.6))
    assert findings["power"] == doctor.Finding(
        "power", False, "0 MAXN, slower than this board can be", "sudo jetson_clocks"
    )


def test_missing_library_has_the_commands_of_the_release(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    findings = on_jetson(monkeypatch, (39, 2, 0), board(2201.6), missing="tensorrt is not installed; …")
    apt, venv, pip = findings["JetPack"].fix.split(" && ")
    assert apt == "sudo apt install python3-venv python3-libnvinfer libnvinfer-bin"
    assert (venv, pip) == (
        "python3 -m venv --system-site-packages .venv",
        ".venv/bin/pip install '.[jetson7]'",
    )


def test_release_that_is_too_old_has_a_fix(monkeypatch: pytest.MonkeyPatch):
    findings = on_jetson(monkeypatch, (35, 4, 1), None)
    assert not findings["JetPack"].ok and findings["JetPack"].fix.startswith("flash JetPack 6.2 or newer")
    assert findings["power"].detail == "power mode unknown"


def test_other_machines_have_no_jetson_findings():
    assert not {"JetPack", "power"} & {finding.subject for finding in doctor.examine()}
