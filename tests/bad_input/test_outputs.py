"""A full disk or kill -9 leaves no partial output, and the previous output stays."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import ROOT, Cli, Completed
from PIL import Image
from refusals import refusal
from torch import Tensor

from bcm_edge.errors import OutputError
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from bcm_edge.runtime.pictures.writing import save_images


@pytest.mark.parametrize("name", ["out.png", "out.npz", "folder"])
def test_generate_onto_an_output_that_exists(
    cli: Cli, digits_bundle: Path, tmp_path: Path, name: str
) -> None:
    output = tmp_path / name
    if name == "folder":
        output.mkdir()
        (output / "images.csv").write_text("file\n")  # present in every folder that bcm-edge writes
    first_file = output / "000000.png" if name == "folder" else output
    first_file.write_text("mine")
    arguments = ("generate", digits_bundle, "-n", 2, "--label", 3, "-o", output)
    assert refusal(cli(*arguments)) == f"{output} exists already; --force replaces it"
    assert first_file.read_text() == "mine"
    assert cli(*arguments, "--force").exit_code == 0
    assert first_file.read_bytes()[:2] == {"out.png": b"\x89P", "out.npz": b"PK", "folder": b"\x89P"}[name]
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "command", [("generate", "-n", 2, "--label", 3), ("export",), ("demo",)], ids=lambda c: c[0]
)
def test_force_does_not_replace_a_folder_with_other_files(
    cli: Cli, digits_bundle: Path, tmp_path: Path, command: tuple[Any, ...]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "000000.png").write_text("mine")
    bundle = (digits_bundle,) if command[0] == "generate" else ()
    message = refusal(cli(command[0], *bundle, *command[1:], "-o", tmp_path / "photos", "--force"))
    assert message == (
        f"{tmp_path}/photos is a folder with other files in it, which --force does not replace; "
        "choose another name"
    )
    assert (tmp_path / "photos" / "000000.png").read_text() == "mine"


def test_partial_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    ).stdout.strip()
    leftover = tmp_path / f".out.png.partial-{platform.node()}-{dead}"
    elsewhere = tmp_path / f".out.png.partial-another-machine-{dead}"
    alive = tmp_path / f".out.png.partial-{platform.node()}-{os.getppid()}"
    for file in (leftover, elsewhere, alive):
        file.write_text("part")
    save_images(np.zeros((1, 1, 8, 8), np.float32), tmp_path / "out.png")
    assert not leftover.exists() and elsewhere.exists() and alive.exists()


@pytest.mark.parametrize("command", ["invert", "reconstruct"])
def test_invert_and_reconstruct_onto_an_output_that_exists(
    cli: Cli, digits_bundle: Path, tmp_path: Path, command: str
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    (tmp_path / "out.npz").write_text("mine")
    arguments = (command, digits_bundle, tmp_path / "in.png", "--label", 3, "-o", tmp_path / "out.npz")
    assert refusal(cli(*arguments)) == f"{tmp_path}/out.npz exists already; --force replaces it"
    assert (tmp_path / "out.npz").read_text() == "mine"
    assert cli(*arguments, "--force").exit_code == 0
    assert (tmp_path / "out.npz").read_bytes()[:2] == b"PK"


def test_export_onto_a_bundle_that_exists(cli: Cli, bundle_copy: Path) -> None:
    before = (bundle_copy / "manifest.json").read_bytes()
    assert refusal(cli("export", "-o", bundle_copy)) == f"{bundle_copy} exists already; --force replaces it"
    assert (bundle_copy / "manifest.json").read_bytes() == before
    assert cli("export", "-o", bundle_copy, "--no-verify", "--force").exit_code == 0
    assert not (bundle_copy / "golden.npz").exists()
    assert [file.name for file in bundle_copy.parent.iterdir()] == ["copy.bundle"]


@pytest.mark.parametrize(
    ("name", "command"),
    [("out", ("demo",)), ("out.safetensors", ("train", "--data", "digits"))],
    ids=["demo", "train"],
)
def test_demo_and_train_onto_an_output_that_exists(
    cli: Cli, tmp_path: Path, name: str, command: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text("mine")
    message = refusal(cli(*command, "-o", tmp_path / name))
    assert message == f"{tmp_path}/{name} exists already; --force replaces it"
    assert (tmp_path / name).read_text() == "mine"


def test_output_below_a_file(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = cli(
        "generate", digits_bundle, "--backend", "null", "--label", 3, "-o", tmp_path / "file" / "a.png"
    )
    assert refusal(result).startswith(f"{tmp_path}/file/a.png: cannot be written (")
    assert (tmp_path / "file").read_text() == "mine"


def test_output_with_an_unknown_suffix(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    result = cli("generate", digits_bundle, "--backend", "null", "--label", 3, "-o", tmp_path / "a.mp4")
    assert refusal(result).startswith(f"{tmp_path}/a.mp4: cannot write .mp4 files; use .npz, .png, ")
    assert list(tmp_path.iterdir()) == []


def test_latents_are_written_as_npz_only(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    result = cli("invert", digits_bundle, tmp_path / "in.png", "--label", 3, "-o", tmp_path / "z.png")
    assert (
        refusal(result)
        == f"{tmp_path}/z.png: latents are written to .npz files; give an output that ends in .npz"
    )


def limit_file_size() -> None:
    """Make a write beyond 64 kB fail, as on a full disk. Runs in a child process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))


def on_a_full_disk(*arguments: object) -> Completed:
    """Run a command whose files cannot grow beyond 64 kB."""
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(
        command, preexec_fn=limit_file_size, capture_output=True, text=True, timeout=300, check=False
    )


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.slow
def test_export_on_a_full_disk_leaves_the_old_bundle(bundle_copy: Path) -> None:
    before = contents(bundle_copy.parent)
    completed = on_a_full_disk("export", "-o", bundle_copy, "--force")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr.splitlines()[-1] == f"error: {bundle_copy}: cannot be written (File too large)"
    assert contents(bundle_copy.parent) == before


@pytest.mark.parametrize("name", ["out.npz", "out.bmp"])
def test_generate_on_a_full_disk_leaves_the_old_file(
    digits_bundle: Path, cache: Path, cli: Cli, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    arguments = ("-n", 300, "--backend", "null", "--label", 3, "-o", tmp_path / name)
    completed = on_a_full_disk("generate", digits_bundle, *arguments, "--force")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr == f"error: {tmp_path}/{name}: cannot be written (File too large)\n"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "mine"}


def test_checkpoint_on_a_full_disk_leaves_the_old_file(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    file = tmp_path / "w.safetensors"
    file.write_text("mine")
    config = load_checkpoint(shipped_checkpoint()).config
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    try:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, limits[1]))
        with pytest.raises(OutputError, match=r"w\.safetensors: cannot be written \(File too large\)"):
            save_checkpoint(file, weights, config, {}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {left.name: left.read_text() for left in tmp_path.iterdir()} == {"w.safetensors": "mine"}


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["new", "over-an-old-one"])
def test_export_killed_halfway_leaves_the_output_as_it_was(
    digits_bundle: Path, tmp_path: Path, cli: Cli, old: bool
) -> None:
    output = tmp_path / "digits.bundle"
    if old:
        shutil.copytree(digits_bundle, output)
    before = contents(output)
    command = [sys.executable, str(ROOT / "cli.py"), "export", "-o", str(output), "--force"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while (
            not (partials := list(tmp_path.glob(".digits.bundle.partial-*/forward.onnx")))
            and time.monotonic() < deadline
        ):
            assert running.poll() is None, "the export ended before it could be killed"
            time.sleep(0.002)
    finally:
        running.kill()
    assert running.wait(timeout=60) == -signal.SIGKILL
    assert len(partials) == 1
    assert contents(output) == before
    if old:
        assert cli("inspect", output).exit_code == 0
    else:
        assert not output.exists()


def test_export_after_a_killed_export(tmp_path: Path, cli: Cli) -> None:
    # Left by a killed process that had the process number of this one.
    leftover = tmp_path / f".digits.bundle.partial-{platform.node()}-{os.getpid()}"
    leftover.mkdir()
    (leftover / "weights.bin").write_text("half")
    result = cli("export", "-o", tmp_path / "digits.bundle", "--no-verify")
    assert result.exit_code == 0, result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["digits.bundle"]
