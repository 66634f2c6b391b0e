"""The program in a shell: -q, aliases of options, `python -m bcm_edge`, and the completion of lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fixture_types import Cli, Completed, Process
from refusals import refusal
from results import only_json

import bcm_edge


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program `bcm-edge`, as pip installs it."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "bcm-edge"
    program.write_text(f"#!{sys.executable}\nfrom bcm_edge.cli import main\nmain()\n")
    program.chmod(0o755)
    return folder


def environment(programs: Path, **variables: str) -> dict[str, str]:
    """Return the environment in which `bcm-edge` is on the path and the package can be imported."""
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}


def complete(programs: Path, *words: str) -> list[str]:
    """Return the completions of the last word, as the shell receives them: lines of the form `type,value`."""
    variables = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    completed = subprocess.run(
        [programs / "bcm-edge"],
        env=environment(programs, _BCM_EDGE_COMPLETE="bash_complete", **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert completed.stderr == ""
    return completed.stdout.splitlines()


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
def test_quiet_leaves_the_result_alone(digits_bundle: Path, process: Process, tmp_path: Path, before: bool):
    arguments = ("generate", digits_bundle, "--label", 3, "-o", "a.png", "--log-file", "all.log")
    quiet = ("-q", *arguments) if before else (*arguments, "--quiet")
    completed = process(*quiet, cwd=tmp_path)
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "a.png\n", "")
    assert "] 1 image in " in (tmp_path / "all.log").read_text(encoding="utf-8")


def test_quiet_prints_errors(cli: Cli, tmp_path: Path):
    message = refusal(cli("-q", "inspect", tmp_path / "none"))
    assert message.startswith(f"{tmp_path}/none: not a bundle (no such folder)")


@pytest.mark.parametrize(
    "arguments",
    [("-q", "-v", "doctor"), ("-v", "doctor", "-q"), ("doctor", "-q", "-v"), ("-q", "doctor", "-v")],
)
def test_quiet_and_verbose_cannot_be_combined(cli: Cli, arguments: tuple[str, ...]):
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "-q and -v cannot be combined; give one of them" in result.stderr


def test_options_have_the_names_that_people_type(digits_bundle: Path, cli: Cli, tmp_path: Path):
    outputs = []
    for number, label in (("-n", "--label"), ("--num-images", "--class")):
        output = tmp_path / f"{label}.npz"
        result = cli("generate", digits_bundle, number, 2, label, 3, "-o", output, "--json")
        assert only_json(result.stdout)["images"] == 2
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("command", ["variations", "trace"])
def test_every_number_of_images_has_its_alias(cli: Cli, command: str):
    assert "-n, --number, --num-images N" in cli(command, "--help").stdout


def test_package_runs_as_a_module(programs: Path, tmp_path: Path):
    def run(*arguments: str) -> Completed:
        command = [sys.executable, "-m", "bcm_edge", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(programs),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert run("--version").stdout == f"bcm-edge, version {bcm_edge.__version__}\n"
    assert run("generate", "--help").stdout.startswith(
        "Usage: python -m bcm_edge generate [OPTIONS] BUNDLE\n"
    )
    refused = run("generate", "none", "-o", "a.png")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_installed_program_names_itself_in_usage_lines(programs: Path):
    completed = subprocess.run(
        [programs / "bcm-edge", "generate", "--help"],
        env=environment(programs), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert completed.stdout.startswith("Usage: bcm-edge generate [OPTIONS] BUNDLE\n")


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (("bcm-edge", "in"), ["plain,inspect", "plain,interpolate", "plain,inpaint", "plain,invert"]),
        (("bcm-edge", "generate", "--num"), ["plain,--number", "plain,--num-images"]),
        (("bcm-edge", "generate", "--precision", "f"), ["plain,fp32", "plain,fp16", "plain,fp8"]),
        (("bcm-edge", "verify", "--precision", "fp32,f"), ["plain,fp32,fp16", "plain,fp32,fp8"]),
        (("bcm-edge", "verify", "--precision", "a"), ["plain,all"]),
        (("bcm-edge", "generate", "--backend", "op"), ["plain,openvino"]),
        (("bcm-edge", "generate", "dig"), ["file,dig"]),
        (("bcm-edge", "generate", "digits.bundle", "-o", "a"), ["file,a"]),
        (("bcm-edge", "train", "--data", "ph"), ["file,ph"]),
        (("bcm-edge", "-v", "doctor", "-v", "--re"), ["plain,--report"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_line_is_completed(programs: Path, words: tuple[str, ...], completions: list[str]):
    assert sorted(complete(programs, *words)) == sorted(completions)


def test_completion_writes_no_log(programs: Path, tmp_path: Path):
    log = tmp_path / "bug.log"
    assert complete(programs, "bcm-edge", "doctor", "--log-file", str(log), "--re") == ["plain,--report"]
    assert not log.exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_documented_line(programs: Path):
    script = (
        'eval "$(_BCM_EDGE_COMPLETE=bash_source bcm-edge)"; complete -p bcm-edge; '
        "COMP_WORDS=(bcm-edge gen); COMP_CWORD=1; _bcm_edge_completion bcm-edge; echo ${COMPREPLY[*]}"
    )
    completed = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=environment(programs), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert completed.stdout.splitlines()[-1] == "generate"
    assert "_bcm_edge_completion bcm-edge\n" in completed.stdout


@pytest.mark.parametrize(("shell", "registers"), [("zsh", "compdef"), ("fish", "complete --no-files")])
def test_other_shells_get_a_script(programs: Path, shell: str, registers: str):
    completed = subprocess.run(
        [programs / "bcm-edge"],
        env=environment(programs, _BCM_EDGE_COMPLETE=f"{shell}_source"),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert registers in completed.stdout
    assert f"_BCM_EDGE_COMPLETE={shell}_complete" in completed.stdout
