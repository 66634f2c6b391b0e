"""Releases of JetPack, which are recognized by their system files.

The files have the form that owners of such boards have published. None was read from a board.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from system_files import write_files

from bcm_edge.runtime.machine.jetpack import install_lines, jetpack, l4t, release


def jetson(root: Path, major: int, revision: str) -> Path:
    """Write /etc/nv_tegra_release below a root folder, and return the folder."""
    build = "GCID: 45755727, BOARD: generic, EABI: aarch64, DATE: Mon Jun  1 09:28:48 UTC 2026"
    lines = [
        f"# R{major} (release), REVISION: {revision}, {build}",
        "# KERNEL_VARIANT: oot",
        "TARGET_USERSPACE_LIB_DIR=nvidia",
        "TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia",
    ]
    return write_files(root, {"etc/nv_tegra_release": "".join(f"{line}\n" for line in lines)})


@pytest.mark.parametrize(
    ("major", "revision", "name", "python", "cuda", "tensorrt", "extra"),
    [
        (36, "2.0", "6.0", "3.10", "12.2", "8.6", "jetson6"),
        (36, "3.0", "6.0", "3.10", "12.2", "8.6", "jetson6"),
        (36, "4.0", "6.1", "3.10", "12.6", "10.3", "jetson6"),
        (36, "4.3", "6.2", "3.10", "12.6", "10.3", "jetson6"),
        (36, "4.7", "6.2", "3.10", "12.6", "10.3", "jetson6"),
        (36, "5.0", "6.2", "3.10", "12.6", "10.3", "jetson6"),
        (38, "2.0", "7.0", "3.12", "13.0", "10.13", "jetson7"),
        (38, "2.1", "7.0", "3.12", "13.0", "10.13", "jetson7"),
        (38, "4.0", "7.1", "3.12", "13.0", "10.13", "jetson7"),
        (39, "2.0", "7.2", "3.12", "13.2", "10.16", "jetson7"),
        (39, "2.1", "7.2", "3.12", "13.2", "10.16", "jetson7"),
        (39, "2.2", "7.2.2", "3.12", "13", "up to 11.4.1", "jetson7"),
    ],
)
def test_releases_that_can_run(
    tmp_path: Path, major: int, revision: str, name: str, python: str, cuda: str, tensorrt: str, extra: str
) -> None:
    system = jetpack(jetson(tmp_path, major, revision))
    assert system is not None
    facts = (system.name, system.python, system.cuda, system.tensorrt, system.extra)
    assert facts == (name, python, cuda, tensorrt, extra)
    assert system.ok
    assert system.l4t == f"{major}.{revision}"
    assert bool(system.fix) == (name == "6.0")  # the only supported release that should be updated


def test_description_of_a_release() -> None:
    assert (
        str(release((36, 4, 3)))
        == "JetPack 6.2 (L4T 36.4.3): CUDA 12.6, Python 3.10, TensorRT 10.3; supported, but not tested"
    )
    assert str(release((36, 3, 0))).endswith(
        "TensorRT 8.6; limited: TensorRT may use other types than the graph asks for, no bf16"
    )
    assert release((36, 3, 0)).fix == "flash JetPack 6.2: it has TensorRT 10.3"
    assert str(release((39, 2, 2))).endswith(
        "TensorRT up to 11.4.1; supported, but not tested; TensorRT 11.0 to 11.4.0 run on no JetPack"
    )


@pytest.mark.parametrize(
    ("major", "revision", "name", "tensorrt"),
    [
        (32, "6.1", "4 or older", "8.2"),
        (32, "7.1", "4 or older", "8.2"),
        (34, "1.1", "5", "8.5"),
        (35, "4.1", "5", "8.5"),
    ],
)
def test_releases_that_are_too_old_have_a_fix(
    tmp_path: Path, major: int, revision: str, name: str, tensorrt: str
) -> None:
    system = jetpack(jetson(tmp_path, major, revision))
    assert system is not None
    assert (system.name, system.tensorrt, system.ok, system.extra) == (
        name,
        tensorrt,
        False,
        "",
    )
    assert system.support == "this package needs TensorRT 8.6 and Python 3.10"
    assert system.fix == "flash JetPack 6.2 or newer; it is for Orin and later boards only"
    assert install_lines(system) == ""


@pytest.mark.parametrize(
    ("major", "revision"), [(36, "6.0"), (37, "1.0"), (38, "5.0"), (39, "3.0"), (40, "1.0"), (999, "999.999")]
)
def test_newer_releases_are_unknown_but_ok(tmp_path: Path, major: int, revision: str) -> None:
    system = jetpack(jetson(tmp_path, major, revision))
    assert system is not None
    assert str(system) == f"L4T {major}.{revision}: unknown release, newer than this package"
    assert (system.name, system.ok, system.fix) == (
        "",
        True,
        "update this package",
    )
    assert install_lines(system) == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        bytes(range(256)) * 8,
        b"# R36 (release)\n",
        b"# R36 (release), REVISION: , GCID: 1\n",
        b"# R (release), REVISION: 4.3\n",
        b"# R" + b"3" * 9999 + b" (release), REVISION: 4.3\n",
        "# R٣٦ (release), REVISION: ٤.٣\n".encode(),  # digits for Python, but not for NVIDIA
    ],
)
def test_malformed_file_is_not_a_release(tmp_path: Path, content: bytes) -> None:
    write_files(tmp_path, {"etc/nv_tegra_release": ""})
    (tmp_path / "etc/nv_tegra_release").write_bytes(content)
    assert jetpack(tmp_path) is None


def test_desktop_is_not_a_jetson(tmp_path: Path) -> None:
    assert jetpack(tmp_path) is None
    (tmp_path / "etc/nv_tegra_release").mkdir(parents=True)
    assert jetpack(tmp_path) is None


def test_revision_of_one_number_and_file_that_is_not_utf_8(tmp_path: Path) -> None:
    assert l4t(jetson(tmp_path, 39, "2")) == (39, 2, 0)
    (tmp_path / "etc/nv_tegra_release").write_bytes(b"\xff\xfe# R36 (release), REVISION: 4.3, GCID: \xff\n")
    assert l4t(tmp_path) == (36, 4, 3)


def test_installation_uses_the_tensorrt_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    system = jetpack(jetson(tmp_path, 36, "4.3"))
    assert system is not None
    assert install_lines(system) == (
        "sudo apt install python3-venv python3-libnvinfer libnvinfer-bin\n"
        "python3 -m venv --system-site-packages .venv\n"
        ".venv/bin/pip install '.[jetson6]'"
    )
    assert install_lines(release((38, 4, 0))).endswith("'.[jetson7]'")
