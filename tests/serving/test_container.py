"""The container of a repository: its Dockerfile, and the commands that the output and README.md show.

No Docker runs here. hadolint checks the Dockerfiles, and the tests with a server start it with the options of
the Dockerfile (server.py).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented import blocks
from fixture_types import ROOT, Cli
from plans import with_engine
from repositories import config, written
from server import container_options

from bcm_edge.export.triton.configs import Serving
from bcm_edge.export.triton.container import client_command, docker_commands, server_command
from bcm_edge.export.triton.plan import plan_repository
from bcm_edge.runtime.storage.bundle import Bundle

HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
PINS = ["numpy==1.26.4", "onnxruntime==1.23.2"]


def installed(dockerfile: str) -> list[str]:
    """Return the packages that a Dockerfile installs."""
    (line,) = re.findall(r"^RUN pip install --no-cache-dir (.*)$", dockerfile, re.MULTILINE)
    return shlex.split(line)


def shell_commands(text: str) -> list[list[str]]:
    """Return the words of every indented command of a text."""
    lines = re.findall(r"^ {2,}(\S.*)$", text.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def machine_with(monkeypatch: pytest.MonkeyPatch, folder: Path, *programs: str) -> None:
    """Let the programs be the only ones that this process finds."""
    folder.mkdir()
    for program in programs:
        (folder / program).write_text("#!/bin/sh\n")
        (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_dockerfiles_have_no_mistakes(bundle: Bundle, tmp_path: Path):
    assert HADOLINT
    with_plans = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 16))
    files = [
        ROOT / "deploy" / "Dockerfile",
        written(bundle, tmp_path / "python", "python") / "Dockerfile",
        written(with_plans, tmp_path / "tensorrt", "tensorrt") / "Dockerfile",
        written(bundle, tmp_path / "cuda", "python", backend="onnxruntime-cuda") / "Dockerfile",
    ]
    checked = subprocess.run([HADOLINT, *files], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_packages_are_those_of_the_platform(bundle: Bundle, tmp_path: Path):
    graphs = (written(bundle, tmp_path / "graphs", "onnxruntime") / "Dockerfile").read_text()
    assert installed(graphs) == PINS
    with_plans = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 16))
    plans = (written(with_plans, tmp_path / "plans", "tensorrt") / "Dockerfile").read_text()
    assert installed(plans) == [
        "numpy==1.26.4",
        "tensorrt-cu12==10.16.1.*",
        "cuda-core>=1.2",
        "cuda-bindings>=12.9,<13",
    ]


@pytest.mark.parametrize("platform", ["onnxruntime", "python"])
def test_tasks_on_a_gpu_have_its_packages_and_its_backend(bundle: Bundle, tmp_path: Path, platform: str):
    root = written(bundle, tmp_path / "r", platform, backend="onnxruntime-cuda")
    assert installed((root / "Dockerfile").read_text()) == [
        "numpy==1.26.4",
        "onnxruntime-gpu[cuda,cudnn]==1.23.2",
        "cuda-core>=1.2",
        "cuda-bindings>=12.9,<13",
    ]
    page = (root / "README.md").read_text()
    assert "Its Python needs numpy, onnxruntime-gpu and cuda-core." in page
    assert "The tasks run on the first GPU." in page
    assert "--gpus" in docker_run(page)
    assert config(root, "bcm_generate")["parameters"]["backend"] == {"string_value": "onnxruntime-cuda"}


def test_image_for_kubernetes_and_the_tested_server_have_the_same_packages(bundle: Bundle, tmp_path: Path):
    own = (written(bundle, tmp_path / "r", "onnxruntime") / "Dockerfile").read_text()
    kubernetes = (ROOT / "deploy" / "Dockerfile").read_text()
    image = re.search(r"^ARG BASE_IMAGE=(.*)$", own, re.MULTILINE)
    assert image
    assert f"FROM {image[1]}\n" in kubernetes
    assert installed(kubernetes) == installed(own) == PINS
    for line in re.findall(r"^(?:ENV|CMD) .*$", own, re.MULTILINE):
        assert line in kubernetes.splitlines()
    assert " ".join(PINS) in (ROOT / "tests" / "serving" / "fetch.sh").read_text()


@pytest.mark.parametrize("name", ["models", "my models"])
def test_output_shows_commands_for_docker(
    digits_bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    machine_with(monkeypatch, tmp_path / "bin", "docker")
    monkeypatch.chdir(tmp_path)
    result = cli("triton", digits_bundle, "-o", name, "--platform", "python")
    assert "next, with Docker:" in result.stderr
    build, run, client = shell_commands(result.stderr)
    assert build == ["docker", "build", "-t", "bcm-edge-server", "-", "<", f"{name}/Dockerfile"]
    assert Path(build[-1]).is_file()
    source, target, mode = run[run.index("-v") + 1].split(":")
    assert (Path(source) / "triton.json").samefile(Path(name) / "triton.json") and Path(source).is_absolute()
    assert (target, mode, run[-1]) == ("/models", "ro", "bcm-edge-server")
    assert "127.0.0.1:8000-8002:8000-8002" in run
    assert "--gpus" not in run
    assert container_options(Path(name))[0] == f"--model-repository={name}"
    assert client == ["python3", f"{name}/client.py", "--seed", "7", "--label", "3", "-o", "image.png"]


@pytest.mark.parametrize(
    ("programs", "title", "program"),
    [
        (["docker", "tritonserver"], "next:", "ORT_DISABLE_TELEMETRY=1"),
        ([], "neither tritonserver nor docker is installed here; on a machine with Docker:", "docker"),
    ],
)
def test_output_shows_what_fits_the_machine(
    digits_bundle: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    programs: list[str],
    title: str,
    program: str,
):
    machine_with(monkeypatch, tmp_path / "bin", *programs)
    result = cli("triton", digits_bundle, "-o", tmp_path / "models", "--platform", "python")
    assert title in result.stderr.splitlines()
    assert shell_commands(result.stderr)[0][0] == program


def test_installed_server_gets_the_options_of_the_container(
    digits_bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    machine_with(monkeypatch, tmp_path / "bin", "tritonserver")
    root = tmp_path / "models"
    result = cli("triton", digits_bundle, "-o", root, "--platform", "python")
    assert shell_commands(result.stderr)[0][2:] == ["tritonserver", *container_options(root)]


def test_readme_asks_for_a_gpu_where_one_is_needed(bundle: Bundle, tmp_path: Path):
    with_plans = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 16))
    plans = (written(with_plans, tmp_path / "plans", "tensorrt") / "README.md").read_text()
    cached = written(bundle, tmp_path / "cached", "onnxruntime", Serving(trt_cache="/var/cache/bcm"))
    graphs = (written(bundle, tmp_path / "graphs", "onnxruntime") / "README.md").read_text()
    assert "The TensorRT of the image must be 10.16.1" in plans
    assert "--gpus" in docker_run(plans)
    assert "--gpus" in docker_run((cached / "README.md").read_text())
    assert "bcm-edge-trt:/var/cache/bcm" in docker_run((cached / "README.md").read_text())
    assert "--gpus" not in docker_run(graphs)


def test_page_shows_the_commands_of_the_output(bundle: Bundle, tmp_path: Path):
    plan = plan_repository(bundle, tmp_path / "models", None, None, Serving(), (), False, False)
    shown = [block.text for block in blocks(ROOT / "docs" / "serving.md")]
    commands = [
        *docker_commands(plan, "models/Dockerfile", '"$PWD/models"'),
        client_command(plan, "models/client.py"),
    ]
    assert "\n".join([*commands, ""]) in shown
    (server,) = (text for text in shown if "tritonserver --model" in text)
    assert shlex.split(server.replace("\\\n", " ")) == shlex.split(server_command("models"))


def docker_run(text: str) -> list[str]:
    """Return the words of the `docker run` command of a text."""
    (command,) = (words for words in shell_commands(text) if words[:2] == ["docker", "run"])
    return command
