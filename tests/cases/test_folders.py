"""Homes, caches, temporary folders and inputs that cannot be had: the run goes on, or is refused in one line.

Most commands run as a user that the system does not know and who may do nothing that permissions forbid, in a user namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixture_types import ROOT

from bcm_edge.errors import OutputError
from bcm_edge.runtime.machine.cache_folder import cache_directory

FIX = "set BCM_EDGE_CACHE_DIR to a folder of your own"
NO_TEMPORARY = "temporary files cannot be written to any of the usual folders; free some space, or set TMPDIR to a folder of your own"
UNKNOWN = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
CRAMPED = """
for folder in /tmp /var/tmp; do mount --bind $folder $folder && mount -o remount,bind,ro $folder || exit; done
mount -t tmpfs -o size=1m none /mnt && cd /proc && exec "$@"
"""

Ended = subprocess.CompletedProcess[str]
Stranger = Callable[..., Ended]


def run(
    prefix: list[str], arguments: tuple[object, ...], cwd: Path | None, environment: dict[str, str]
) -> Ended:
    """A command of bcm-edge with nothing in its environment but what is given."""
    kept = {
        name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
    }
    command = [*prefix, sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    env = {**kept, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def stranger() -> Stranger:
    """Run a command as a user of no name and no home."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNKNOWN, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a process cannot make a user namespace here (unshare --user --map-user)")
    return lambda *arguments, cwd=None, **environment: run(UNKNOWN, arguments, cwd, environment)


@pytest.fixture(scope="module")
def cramped() -> list[str]:
    """The beginning of a command that can write 1 MB to /mnt and nothing to the folders of temporary files."""
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", CRAMPED, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a process cannot mount file systems in a namespace here (unshare --user --mount)")
    return prefix


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A folder with: empty/ that nobody may write, closed/ that nobody may read, and file, a file."""
    for name, mode in (("empty", 0o555), ("closed", 0o000)):
        (tmp_path / name).mkdir(mode=mode)
        (tmp_path / name).chmod(mode)
    (tmp_path / "file").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, f"this user has no home folder; {FIX}"),
        ({"HOME": ""}, f"HOME is '', which is not an absolute path; {FIX}"),
        ({"HOME": "PLACE/empty"}, "PLACE/empty/.cache/bcm-edge/onnxruntime/"),
        ({"HOME": "PLACE/file"}, "PLACE/file is not a folder"),
        ({"BCM_EDGE_CACHE_DIR": "PLACE/file"}, "PLACE/file is not a folder"),
        ({"BCM_EDGE_CACHE_DIR": "PLACE/closed"}, "PLACE/closed/onnxruntime/"),
        (
            {"BCM_EDGE_CACHE_DIR": "~no-such-user/cache"},
            "BCM_EDGE_CACHE_DIR is '~no-such-user/cache', and there is no such home",
        ),
    ],
)
def test_a_cache_that_cannot_be_had_is_noted_once_and_the_run_goes_on(
    stranger: Stranger, locked: Path, digits_bundle: Path, environment: dict[str, str], reason: str
):
    values = {name: value.replace("PLACE", str(locked)) for name, value in environment.items()}
    ended = stranger(
        "generate", digits_bundle, "-n", "1", "--label", "3", "-o", locked / "image.npz", **values
    )
    assert ended.returncode == 0, ended.stderr
    assert np.load(locked / "image.npz")["images"].shape == (1, 1, 8, 8)
    assert reason.replace("PLACE", str(locked)) in ended.stderr
    assert ended.stderr.count("no cache") == 1
    assert ended.stderr.count("\n") == 1


def test_openvino_needs_no_cache(stranger: Stranger, tmp_path: Path, digits_bundle: Path):
    pytest.importorskip("openvino")
    ended = stranger(
        "generate",
        digits_bundle,
        "-n",
        "1",
        "--label",
        "3",
        "-o",
        tmp_path / "image.npz",
        "--backend",
        "openvino",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.endswith(f" threads, no cache (this user has no home folder; {FIX})\n")


def test_a_cache_without_space_is_noted_and_the_run_goes_on(cramped: list[str], digits_bundle: Path):
    command = ("generate", digits_bundle, "-n", "1", "--label", "3", "-o", "/mnt/image.png")
    ended = run(cramped, command, None, {"BCM_EDGE_CACHE_DIR": "/mnt/cache"})
    assert ended.returncode == 0, ended.stderr
    assert "no cache (/mnt/cache/onnxruntime: 6.3 MB are needed and" in ended.stderr


@pytest.mark.parametrize(
    ("environment", "finding"),
    [
        ({}, "this user has no home folder"),
        ({"BCM_EDGE_CACHE_DIR": "PLACE/file"}, "PLACE/file cannot be created, because PLACE/file is not a folder"),
        ({"BCM_EDGE_CACHE_DIR": "PLACE/closed/cache"}, "PLACE/closed/cache: PLACE/closed cannot be written"),
        ({"HOME": "PLACE/empty"}, "PLACE/empty/.cache/bcm-edge: PLACE/empty cannot be written"),
    ],
)
def test_doctor_names_the_folder_and_the_fix(
    stranger: Stranger, locked: Path, environment: dict[str, str], finding: str
):
    ended = stranger(
        "doctor", **{name: value.replace("PLACE", str(locked)) for name, value in environment.items()}
    )
    assert ended.returncode == 0, ended.stderr
    finding = finding.replace("PLACE", str(locked))
    assert f"✗ cache: {finding}; bundles open slowly\n    fix: {FIX}\n" in ended.stdout


def test_a_filled_cache_is_used_though_it_cannot_be_written(
    stranger: Stranger, tmp_path: Path, digits_bundle: Path
):
    cache = tmp_path / "cache"
    generate = ("generate", digits_bundle, "-n", "1", "--label", "3", "-o")
    assert stranger(*generate, tmp_path / "first.npz", BCM_EDGE_CACHE_DIR=str(cache)).returncode == 0
    before = sorted(cache.rglob("*"))
    for folder in (cache, *(path for path in before if path.is_dir())):
        folder.chmod(0o555)
    ended = stranger(*generate, tmp_path / "second.npz", BCM_EDGE_CACHE_DIR=str(cache))
    assert ended.returncode == 0, ended.stderr
    assert "no cache" not in ended.stderr
    assert sorted(cache.rglob("*")) == before


def test_a_bundle_that_cannot_be_written_is_read_as_any(
    stranger: Stranger, tmp_path: Path, bundle_copy: Path
):
    bundle_copy.chmod(0o555)
    cache = {"BCM_EDGE_CACHE_DIR": str(tmp_path / "cache")}
    for command in (["inspect"], ["generate", "-n", "1", "--label", "3", "-o", tmp_path / "image.png"]):
        ended = stranger(command[0], bundle_copy, *command[1:], **cache)
        assert ended.returncode == 0, ended.stderr
    ended = stranger("verify", bundle_copy, "--precision", "fp32", **cache)
    assert ended.returncode == 0, ended.stderr
    assert f"the verdicts are not kept: {bundle_copy}" in ended.stderr
    ended = stranger("triton", bundle_copy, "--platform", "python", "-o", tmp_path / "models", **cache)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", ["closed", "closed/digits.png", "pictures"])
def test_inputs_that_cannot_be_read_are_refused(
    stranger: Stranger, locked: Path, digits_bundle: Path, name: str
):
    (locked / "pictures").mkdir()
    (locked / "pictures" / "digits.png").touch(mode=0o000)
    ended = stranger("invert", digits_bundle, locked / name, "--label", "3", "-o", locked / "latents.npz")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert str(locked / name) in ended.stderr.splitlines()[-1]
    assert "Permission denied" in ended.stderr or "is not readable" in ended.stderr
    assert "Traceback" not in ended.stderr and "bug" not in ended.stderr


@pytest.mark.parametrize(
    "command", ["generate digits.bundle -n 1 -o image.png", "export -o digits.bundle", "doctor"]
)
def test_in_a_current_folder_that_was_deleted_commands_are_refused(tmp_path: Path, command: str):
    gone = tmp_path / "gone"
    gone.mkdir()
    ended = run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh"], tuple(command.split()), gone, {"HOME": str(tmp_path)}
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: the current folder was deleted; change to another one (cd)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["map BUNDLE IMAGES --task invert --workers 1 -o /mnt/latents", "export -o /mnt/digits.bundle", "doctor"],
)
def test_without_a_temporary_folder_commands_are_refused_and_doctor_says_so(
    cramped: list[str], tmp_path: Path, digits_bundle: Path, images: Path, command: str
):
    words = [{"BUNDLE": digits_bundle, "IMAGES": images}.get(word, word) for word in command.split()]
    ended = run(cramped, tuple(words), None, {"HOME": str(tmp_path)})
    problem, _, fix = NO_TEMPORARY.partition("; ")
    if command == "doctor":
        assert (
            f"✗ temporary files: {problem}; bench, build, calibrate and map need them\n    fix: {fix}\n"
            in ended.stdout
        )
    else:
        assert ended.returncode == 2
        assert ended.stderr == f"error: {NO_TEMPORARY}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "export -o digits.bundle",
        "train --data digits --steps 2 -o two.safetensors",
        "map BUNDLE IMAGES --task invert --workers 1 -o l",
    ],
)
def test_a_user_without_a_home_can_do_everything(
    stranger: Stranger, tmp_path: Path, digits_bundle: Path, images: Path, command: str
):
    ended = stranger(
        *({"BUNDLE": digits_bundle, "IMAGES": images}.get(word, word) for word in command.split()),
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "/home/somebody"}, "/home/somebody/.cache/bcm-edge"),
        ({"HOME": "/home/somebody", "XDG_CACHE_HOME": "/var/caches"}, "/var/caches/bcm-edge"),
        ({"HOME": "/home/somebody", "XDG_CACHE_HOME": "caches"}, "/home/somebody/.cache/bcm-edge"),
        (
            {"HOME": "/home/somebody", "XDG_CACHE_HOME": "", "BCM_EDGE_CACHE_DIR": ""},
            "/home/somebody/.cache/bcm-edge",
        ),
        (
            {"HOME": "/home/somebody", "XDG_CACHE_HOME": "/var/caches", "BCM_EDGE_CACHE_DIR": "~/mine"},
            "/home/somebody/mine",
        ),
        ({"HOME": "", "BCM_EDGE_CACHE_DIR": "mine"}, "CURRENT/mine"),
        ({"HOME": "", "XDG_CACHE_HOME": "/var/caches"}, "/var/caches/bcm-edge"),
    ],
)
def test_the_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], folder: str
):
    for name in ("HOME", "XDG_CACHE_HOME", "BCM_EDGE_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert str(cache_directory()) == folder.replace("CURRENT", str(tmp_path))


def test_a_home_that_is_no_absolute_path_is_no_cache_folder(monkeypatch: pytest.MonkeyPatch):
    for name in ("XDG_CACHE_HOME", "BCM_EDGE_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "somebody")
    with pytest.raises(OutputError, match=f"^HOME is 'somebody', which is not an absolute path; {FIX}$"):
        cache_directory()
