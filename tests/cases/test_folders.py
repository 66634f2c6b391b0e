"""Unusable homes, caches, temporary folders and inputs: the command goes on, or refuses in one line.

Most commands run in a user namespace, as a user who is unknown to the system and has no special permissions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixture_types import ROOT, Completed, Process

from bcm_edge.errors import OutputError
from bcm_edge.runtime.machine.cache_folder import cache_directory

FIX = "set BCM_EDGE_CACHE_DIR to a folder of your own"
NO_TEMPORARY = (
    "temporary files cannot be written to any of the usual folders; "
    "free some space, or set TMPDIR to a folder of your own"
)
UNKNOWN_USER = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
READ_ONLY_TEMPORARY = """
for folder in /tmp /var/tmp; do mount --bind $folder $folder && mount -o remount,bind,ro $folder || exit; done
mount -t tmpfs -o size=1m none /mnt && cd /proc && exec "$@"
"""


def run(
    prefix: list[str], arguments: tuple[object, ...], cwd: Path | None, environment: dict[str, str]
) -> Completed:
    """Run a command of bcm-edge with only these environment variables and PATH."""
    inherited = {
        name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
    }
    command = [*prefix, sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    env = {**inherited, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def unknown_user() -> Process:
    """Run a command as a user who has no name and no home folder."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNKNOWN_USER, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a process cannot make a user namespace here (unshare --user --map-user)")

    def run_unknown(*arguments: object, cwd: Path | None = None, **environment: str) -> Completed:
        return run(UNKNOWN_USER, arguments, cwd, environment)

    return run_unknown


@pytest.fixture(scope="module")
def no_temporary_folder() -> list[str]:
    """The start of a command that can write 1 MB to /mnt and nothing to the folders for temporary files."""
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", READ_ONLY_TEMPORARY, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a process cannot mount file systems in a namespace here (unshare --user --mount)")
    return prefix


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A folder with empty/ (read-only), closed/ (not readable), and a file named file."""
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
def test_unusable_cache_is_noted_once_and_the_command_goes_on(
    unknown_user: Process, locked: Path, digits_bundle: Path, environment: dict[str, str], reason: str
):
    values = {name: value.replace("PLACE", str(locked)) for name, value in environment.items()}
    completed = unknown_user(
        "generate", digits_bundle, "-n", "1", "--label", "3", "-o", locked / "image.npz", **values
    )
    assert completed.returncode == 0, completed.stderr
    assert np.load(locked / "image.npz")["images"].shape == (1, 1, 8, 8)
    assert reason.replace("PLACE", str(locked)) in completed.stderr
    assert completed.stderr.count("no cache") == 1
    assert completed.stderr.count("\n") == 1


def test_openvino_works_without_a_cache(unknown_user: Process, tmp_path: Path, digits_bundle: Path):
    pytest.importorskip("openvino")
    options = ("-n", "1", "--label", "3", "-o", tmp_path / "image.npz", "--backend", "openvino")
    completed = unknown_user("generate", digits_bundle, *options)
    assert completed.returncode == 0, completed.stderr
    assert completed.stderr.endswith(f", no cache (this user has no home folder; {FIX})\n")


def test_full_cache_is_noted_and_the_command_goes_on(no_temporary_folder: list[str], digits_bundle: Path):
    command = ("generate", digits_bundle, "-n", "1", "--label", "3", "-o", "/mnt/image.png")
    completed = run(no_temporary_folder, command, None, {"BCM_EDGE_CACHE_DIR": "/mnt/cache"})
    assert completed.returncode == 0, completed.stderr
    assert "no cache (/mnt/cache/onnxruntime: 6.3 MB are needed and" in completed.stderr


@pytest.mark.parametrize(
    ("environment", "finding"),
    [
        ({}, "this user has no home folder"),
        (
            {"BCM_EDGE_CACHE_DIR": "PLACE/file"},
            "PLACE/file cannot be created, because PLACE/file is not a folder",
        ),
        ({"BCM_EDGE_CACHE_DIR": "PLACE/closed/cache"}, "PLACE/closed/cache: PLACE/closed cannot be written"),
        ({"HOME": "PLACE/empty"}, "PLACE/empty/.cache/bcm-edge: PLACE/empty cannot be written"),
    ],
)
def test_doctor_names_the_cache_folder_and_the_fix(
    unknown_user: Process, locked: Path, environment: dict[str, str], finding: str
):
    completed = unknown_user(
        "doctor", **{name: value.replace("PLACE", str(locked)) for name, value in environment.items()}
    )
    assert completed.returncode == 0, completed.stderr
    finding = finding.replace("PLACE", str(locked))
    assert f"✗ cache: {finding}; bundles open slowly\n    fix: {FIX}\n" in completed.stdout


def test_read_only_cache_is_used(unknown_user: Process, tmp_path: Path, digits_bundle: Path):
    cache = tmp_path / "cache"
    generate = ("generate", digits_bundle, "-n", "1", "--label", "3", "-o")
    assert unknown_user(*generate, tmp_path / "first.npz", BCM_EDGE_CACHE_DIR=str(cache)).returncode == 0
    before = sorted(cache.rglob("*"))
    for folder in (cache, *(path for path in before if path.is_dir())):
        folder.chmod(0o555)
    completed = unknown_user(*generate, tmp_path / "second.npz", BCM_EDGE_CACHE_DIR=str(cache))
    assert completed.returncode == 0, completed.stderr
    assert "no cache" not in completed.stderr
    assert sorted(cache.rglob("*")) == before


def test_read_only_bundle_is_read(unknown_user: Process, tmp_path: Path, bundle_copy: Path):
    bundle_copy.chmod(0o555)
    cache = {"BCM_EDGE_CACHE_DIR": str(tmp_path / "cache")}
    for command in (["inspect"], ["generate", "-n", "1", "--label", "3", "-o", tmp_path / "image.png"]):
        completed = unknown_user(command[0], bundle_copy, *command[1:], **cache)
        assert completed.returncode == 0, completed.stderr
    completed = unknown_user("verify", bundle_copy, "--precision", "fp32", **cache)
    assert completed.returncode == 0, completed.stderr
    assert f"the verdicts are not stored in the bundle: {bundle_copy}" in completed.stderr
    completed = unknown_user(
        "triton", bundle_copy, "--platform", "python", "-o", tmp_path / "models", **cache
    )
    assert completed.returncode == 0, completed.stderr


@pytest.mark.parametrize("name", ["closed", "closed/digits.png", "pictures"])
def test_unreadable_inputs_are_refused(unknown_user: Process, locked: Path, digits_bundle: Path, name: str):
    (locked / "pictures").mkdir()
    (locked / "pictures" / "digits.png").touch(mode=0o000)
    completed = unknown_user(
        "invert", digits_bundle, locked / name, "--label", "3", "-o", locked / "latents.npz"
    )
    assert completed.returncode == 2
    assert completed.stdout == ""
    assert str(locked / name) in completed.stderr.splitlines()[-1]
    assert "Permission denied" in completed.stderr or "is not readable" in completed.stderr
    assert "Traceback" not in completed.stderr and "bug" not in completed.stderr


@pytest.mark.parametrize(
    "command", ["generate digits.bundle -n 1 -o image.png", "export -o digits.bundle", "doctor"]
)
def test_deleted_current_folder_is_refused(tmp_path: Path, command: str):
    gone = tmp_path / "gone"
    gone.mkdir()
    completed = run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh"], tuple(command.split()), gone, {"HOME": str(tmp_path)}
    )
    assert completed.returncode == 2
    assert completed.stderr == "error: the current folder was deleted; change to an existing one with cd\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["map BUNDLE IMAGES --task invert --workers 1 -o /mnt/latents", "export -o /mnt/digits.bundle", "doctor"],
)
def test_no_temporary_folder_is_refused_and_reported_by_doctor(
    no_temporary_folder: list[str], tmp_path: Path, digits_bundle: Path, images: Path, command: str
):
    words = [{"BUNDLE": digits_bundle, "IMAGES": images}.get(word, word) for word in command.split()]
    completed = run(no_temporary_folder, tuple(words), None, {"HOME": str(tmp_path)})
    problem, _, fix = NO_TEMPORARY.partition("; ")
    if command == "doctor":
        assert (
            f"✗ temporary files: {problem}; bench, build, calibrate and map need them\n    fix: {fix}\n"
            in completed.stdout
        )
    else:
        assert completed.returncode == 2
        assert completed.stderr == f"error: {NO_TEMPORARY}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "export -o digits.bundle",
        "train --data digits --steps 2 -o two.safetensors",
        "map BUNDLE IMAGES --task invert --workers 1 -o l",
    ],
)
def test_user_without_a_home_can_run_every_command(
    unknown_user: Process, tmp_path: Path, digits_bundle: Path, images: Path, command: str
):
    completed = unknown_user(
        *({"BUNDLE": digits_bundle, "IMAGES": images}.get(word, word) for word in command.split()),
        cwd=tmp_path,
    )
    assert completed.returncode == 0, completed.stderr


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
def test_cache_folder_depends_on_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], folder: str
):
    for name in ("HOME", "XDG_CACHE_HOME", "BCM_EDGE_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert str(cache_directory()) == folder.replace("CURRENT", str(tmp_path))


def test_relative_home_is_refused_as_a_cache_folder(monkeypatch: pytest.MonkeyPatch):
    for name in ("XDG_CACHE_HOME", "BCM_EDGE_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "somebody")
    with pytest.raises(OutputError, match=f"^HOME is 'somebody', which is not an absolute path; {FIX}$"):
        cache_directory()
