"""doctor: the release and the speed of a Jetson, and a fix for every check that can fail."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fixture_types import Cli

from bcm_edge.errors import BackendError
from bcm_edge.runtime.checks import doctor
from bcm_edge.runtime.machine import installed
from bcm_edge.runtime.machine.cache_folder import CACHE_FIX
from bcm_edge.runtime.machine.gpu import Gpu
from bcm_edge.runtime.machine.jetpack import RELEASES, release
from bcm_edge.runtime.machine.temporary import TEMPORARY_FIX


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


# Every check that can fail has a fix


def crosses(bundle: Path | None = None) -> dict[str, str]:
    """Return the subjects of the checks that failed, and their fixes."""
    return {finding.subject: finding.fix for finding in doctor.examine(bundle) if not finding.ok}


def test_number_of_threads_that_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BCM_EDGE_THREADS", "many")
    assert crosses()["machine"] == "unset BCM_EDGE_THREADS"


def test_old_releases_have_a_fix():
    assert all(known.fix for _, known in RELEASES if not known.ok)


@pytest.mark.parametrize(
    ("is_jetson", "fix"), [(True, "sudo apt install --reinstall"), (False, "pip install --upgrade")]
)
def test_tensorrt_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, is_jetson: bool, fix: str):
    def no_version() -> str:
        raise BackendError("tensorrt cannot be imported: libnvinfer.so: file too short")

    on_jetson(monkeypatch, (36, 4, 3), None)
    monkeypatch.setattr(doctor, "tensorrt_version", no_version)
    monkeypatch.setattr(installed, "jetpack", lambda: release((36, 4, 3)) if is_jetson else None)
    assert crosses()["GPU"].startswith(fix)


def test_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch):
    def no_driver() -> None:
        raise BackendError("no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded)")

    monkeypatch.setattr("bcm_edge.runtime.machine.gpu._driver", no_driver)
    findings = [finding for finding in doctor.examine() if finding.subject.startswith("backend")]
    assert [finding.subject for finding in findings] == [
        "backends tensorrt, onnxruntime-cuda, onnxruntime-tensorrt, onnxruntime-rtx",
        "backend onnxruntime",
        "backend openvino",
    ]
    assert findings[0].fix.startswith("install NVIDIA's driver, if this machine has")


def test_backend_and_extra_without_their_packages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.chdir(Path(__file__).parents[2])
    fixes = crosses()
    assert fixes["backend onnxruntime"] == "pip install '.[run]'"
    assert fixes["backend openvino"] == "pip install '.[openvino]'"
    for extra, (purpose, _) in doctor.EXTRAS.items():
        assert fixes[purpose] == f"pip install '.[{extra}]'"


def test_cache_that_cannot_be_created(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert crosses()["cache"] == CACHE_FIX


def test_temporary_folder_that_is_full(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bcm_edge.runtime.machine.temporary.LEAST", 1 << 80)
    assert crosses()["temporary files"] == TEMPORARY_FIX


def damaged(bundle: Path) -> None:
    """Change a byte of the weights."""
    weights = bundle / "weights.bin"
    data = weights.read_bytes()
    weights.write_bytes(bytes([data[0] ^ 1]) + data[1:])


@pytest.mark.parametrize(
    ("damage", "fix"),
    [
        (damaged, "export the bundle again or copy it whole"),
        (lambda bundle: (bundle / "weights.bin").unlink(), "export the bundle again or copy it whole"),
        (lambda bundle: (bundle / "manifest.json").unlink(), "bcm-edge export makes a bundle"),
        (
            lambda bundle: (bundle / "manifest.json").write_text("{}"),
            "copy the bundle again, or export it again",
        ),
        (
            lambda bundle: (bundle / "manifest.json").write_text("{"),
            "copy the bundle again or export it again",
        ),
    ],
    ids=["changed", "missing", "no manifest", "empty manifest", "cut manifest"],
)
def test_damaged_bundle(bundle_copy: Path, damage: Callable[[Path], object], fix: str):
    damage(bundle_copy)
    assert crosses(bundle_copy)["bundle"].startswith(fix)


def test_broken_engine_is_built_again(bundle_copy: Path, tmp_path: Path):
    bundle = bundle_copy.rename(tmp_path / "my bundle")
    (bundle / "engines" / "old").mkdir(parents=True)
    (bundle / "engines" / "old" / "engine.json").write_text("{}")
    assert crosses(bundle)["engine"] == f"bcm-edge build '{bundle}'"


def test_every_cross_of_the_command_has_a_line_with_its_fix(cli: Cli, tmp_path: Path):
    lines = cli("doctor", tmp_path / "nowhere").stdout.splitlines()
    after = [following for line, following in pairwise(lines) if line.startswith("✗ ")]
    assert len(after) >= 1
    assert all(line.startswith("    fix: ") for line in after)


def test_other_machines_have_no_jetson_findings():
    assert not {"JetPack", "power"} & {finding.subject for finding in doctor.examine()}
