"""Outputs: unusable places are refused before the work begins; long names and links are accepted."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from fixture_types import Cli
from refusals import refusal

from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.storage.files import folder_beside
from bcm_edge.runtime.storage.rewriting import amending


def refused_before_work(result: Result) -> str:
    """The message of a command that refused its output and printed nothing else."""
    message = refusal(result)
    assert result.stderr == f"error: {message}\n"  # no progress was printed
    return message


@pytest.fixture
def generate_to(cli: Cli, digits_bundle: Path) -> Cli:
    """Generate two images into an output, on the backend `null`, which runs no network."""
    options = ("--backend", "null", "--label", 3, "-n", 2)

    def run(output: object, *more: str) -> Result:
        return cli("generate", digits_bundle, *options, "-o", output, *more)

    return run


@pytest.mark.parametrize("name", [f"{'x' * 246}.png", f"{'x' * 251}.npz", "😀" * 62 + ".png", "x" * 255])
def test_longest_names_that_the_file_system_allows(generate_to: Cli, tmp_path: Path, name: str) -> None:
    for force in ((), ("--force",)):
        assert generate_to(tmp_path / name, *force).exit_code == 0
        assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "name", [f"{'x' * 252}.png", "😀" * 63 + ".png", "x" * 256, f"sub/{'x' * 256}", f"sub/{'x' * 256}/a.png"]
)
def test_names_that_are_too_long(generate_to: Cli, tmp_path: Path, name: str) -> None:
    message = refused_before_work(generate_to(tmp_path / name))
    limit = "file name too long: 256 bytes, the limit of this file system is 255"
    assert message == f"{tmp_path / name}: cannot be written ({limit})"
    assert list(tmp_path.iterdir()) == []


def test_path_that_is_too_long(generate_to: Cli, tmp_path: Path) -> None:
    output = tmp_path.joinpath(*["d" * 200] * 25, "x.png")
    assert refused_before_work(generate_to(output)) == f"{output}: cannot be written (File name too long)"
    assert list(tmp_path.iterdir()) == []


def test_bundle_with_a_long_name_can_be_changed(bundle_copy: Path, tmp_path: Path) -> None:
    bundle = open_bundle(bundle_copy.rename(tmp_path / ("x" * 255)))
    with amending(bundle) as folder:
        (folder / "manifest.json").write_text(bundle.manifest.to_json())
    assert open_bundle(bundle.path).manifest == bundle.manifest
    assert list(tmp_path.iterdir()) == [bundle.path]


@pytest.mark.parametrize("output", ["/sys/out.png", "/sys/a/b/out.png", "/proc/out.npz"])
def test_folder_that_accepts_no_files(generate_to: Cli, output: str) -> None:
    assert refused_before_work(generate_to(output)).startswith(f"{output}: cannot be written (")


def test_output_below_a_file_is_refused_before_the_work(generate_to: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    message = refused_before_work(generate_to(tmp_path / "file" / "sub" / "a.png"))
    assert message == f"{tmp_path}/file/sub/a.png: cannot be written ({tmp_path}/file is not a folder)"


def test_devices_and_pipes_are_never_replaced(generate_to: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for output in ("/dev/null", tmp_path / "pipe", tmp_path / "null"):
        message = refused_before_work(generate_to(output, "--force"))
        assert (
            message == f"{output} is a device, a pipe or a socket; results are written to a file or a folder"
        )
    assert Path("/dev/null").is_char_device() and (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["out.png", "out.npz", "folder"])
def test_output_that_is_a_link_is_written_to_its_target(generate_to: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / name).symlink_to(f"disk/{name}")
    for force in ((), ("--force",)):
        assert generate_to(tmp_path / name, *force).exit_code == 0
        assert (tmp_path / name).is_symlink()
        assert [file.name for file in (tmp_path / "disk").iterdir()] == [name]
    assert refusal(generate_to(tmp_path / name)) == f"{tmp_path / name} exists already; --force replaces it"


def test_broken_links(generate_to: Cli, tmp_path: Path) -> None:
    (tmp_path / "out.png").symlink_to("not-mounted/out.png")
    message = refused_before_work(generate_to(tmp_path / "out.png"))
    assert (
        message
        == f"{tmp_path}/out.png is a link to {tmp_path}/not-mounted/out.png, and that folder does not exist"
    )
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert refused_before_work(generate_to(tmp_path / "loop.png")).startswith(
        f"{tmp_path}/loop.png: cannot be written ("
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["loop.png", "out.png"]


def test_mount_points_are_not_replaced(
    generate_to: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my out").mkdir()
    (tmp_path / "mountinfo").write_text(
        f"36 35 98:0 / {tmp_path}/my\\040out rw,noatime - ext4 /dev/root rw\n"
    )
    monkeypatch.setattr("bcm_edge.runtime.storage.files._MOUNTS", tmp_path / "mountinfo")
    message = refused_before_work(generate_to(tmp_path / "my out", "--force"))
    assert message == f"{tmp_path}/my out is a mount point, which cannot be replaced; choose a name inside it"
    assert generate_to(tmp_path / "my out" / "images").exit_code == 0


def test_file_of_another_user_in_a_shared_folder(
    generate_to: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)  # the mode of /tmp
    (tmp_path / "shared" / "out.png").write_text("theirs")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    message = refused_before_work(generate_to(tmp_path / "shared" / "out.png", "--force"))
    assert message.startswith(f"{tmp_path}/shared/out.png belongs to another user")


def test_folder_left_by_a_killed_process_is_removed(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    leftover = tmp_path / f".a.bundle.amending-{platform.node()}-{process.stdout.strip()}"
    leftover.mkdir()
    (leftover / "weights.bin").write_text("half")
    with folder_beside(tmp_path / "a.bundle") as folder:
        assert list(folder.iterdir()) == []
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []
