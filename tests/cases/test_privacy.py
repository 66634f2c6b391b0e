"""Commands send nothing and write only to their output, the cache folder and the temporary folder.

Real commands run under strace, with an empty home folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from fixture_types import ROOT
from guard import look_ups_and_connections, traced, written
from processes import child

# onnxruntime 1.32 is the first version with telemetry on Linux.
ORT_SENDS = tuple(map(int, version("onnxruntime").split(".")[:2])) >= (1, 32)

SWITCHES = ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "HF_HUB_DISABLE_TELEMETRY")
SWITCHED = """
import os, subprocess, sys
import bcm_edge
child = "import os, sys; print(*map(os.environ.get, sys.argv[1:]))"
command = [sys.executable, "-c", child, *sys.argv[1:]]
process = subprocess.run(command, capture_output=True, text=True, check=True)
print(process.stdout.strip())
try:
    import openvino_telemetry
    print("openvino_telemetry")
except ImportError:
    print("no openvino_telemetry")
"""

PLAYING_AS_DIFFUSERS = """
import sys
from bcm_edge.integrations.diffusers import BCMPipeline
pipe = BCMPipeline.from_pretrained(sys.argv[1])
pipe.invert(pipe(2, class_labels=3, num_inference_steps=2).images, class_labels=3)
"""

EVALUATING = """
import numpy as np
from bcm_edge.cli import keep_files_in_cache
keep_files_in_cache()
from bcm_edge.evaluation.attack import square_attack
from bcm_edge.evaluation.exhibits import Curves
from bcm_edge.evaluation.plots import svg
square_attack(None, np.zeros((1, 1, 8, 8), np.float32), np.zeros(1, np.int64), 0.0, 1, 0)
"""


@dataclass(frozen=True)
class User:
    """The folders of a user: home (empty at first), the current one, a temporary one, and one for traces."""

    home: Path
    cwd: Path
    temporary: Path
    traces: Path

    @property
    def cache(self) -> Path:
        """The cache folder below the home folder."""
        return self.home / ".cache" / "bcm-edge"

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a process of this user."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG")
        }
        private = {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**inherited, **private, **more}

    def run(self, *arguments: object, **environment: str) -> None:
        """Run a command of bcm-edge under strace."""
        self.python(ROOT / "cli.py", *arguments, **environment)

    def python(self, *arguments: object, **environment: str) -> None:
        """Run Python under strace."""
        completed = subprocess.run(
            traced([sys.executable, *arguments], self.traces),
            cwd=self.cwd,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr

    def strays(self) -> list[Path]:
        """Paths that were written outside the documented folders."""
        inside = (self.cwd, self.temporary, self.cache)
        return [
            path
            for path in written(self.traces, self.cwd)
            if path != self.cache.parent and not any(map(path.is_relative_to, inside))
        ]

    def left_at_home(self) -> list[Path]:
        """Paths in the home folder outside the cache."""
        return [
            path
            for path in self.home.rglob("*")
            if path != self.cache.parent and not path.is_relative_to(self.cache)
        ]

    def check(self) -> None:
        """Check that nothing was sent and nothing was written elsewhere."""
        assert look_ups_and_connections(self.traces) == []
        assert self.strays() == []
        assert self.left_at_home() == []


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """A user with an empty home folder."""
    # A short name, because Ray makes sockets in this folder.
    with tempfile.TemporaryDirectory(prefix="t") as temporary:
        user = User(tmp_path / "home", tmp_path / "cwd", Path(temporary).resolve(), tmp_path / "traces")
        user.home.mkdir()
        user.cwd.mkdir()
        yield user


def test_telemetry_is_off_unless_the_user_switches_it_on():
    def settings(**environment: str) -> list[str]:
        inherited = {name: value for name, value in os.environ.items() if name not in SWITCHES}
        command = [sys.executable, "-c", SWITCHED, *SWITCHES]
        return subprocess.run(
            command, env={**inherited, **environment}, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    assert settings() == ["1 0 1", "no openvino_telemetry"]
    assert settings(**dict.fromkeys(SWITCHES, "")) == ["1 0 1", "no openvino_telemetry"]
    assert settings(**dict(zip(SWITCHES, "010", strict=True))) == ["0 1 0", "no openvino_telemetry"]


def test_openvino_uses_its_stub_for_telemetry():
    pytest.importorskip("openvino")
    code = "import bcm_edge, openvino.tools.ovc.telemetry_utils as utils; print(utils.tm.__name__)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout == "openvino.tools.ovc.telemetry_stub\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "export -o digits.bundle",
        "train --data digits --steps 2 -o two.safetensors",
        "generate BUNDLE -n 2 --label 3 -o images.png",
        "generate BUNDLE -n 2 --label 3 -o images.png --backend openvino",
        "invert BUNDLE IMAGES -o latents.npz",
        "map BUNDLE IMAGES --task invert --workers 1 -o latents",
    ],
)
def test_command_sends_nothing_and_writes_nowhere_else(
    user: User, digits_bundle: Path, images: Path, command: str
):
    if "openvino" in command:
        pytest.importorskip("openvino")
    user.run(*({"BUNDLE": digits_bundle, "IMAGES": images}.get(word, word) for word in command.split()))
    user.check()


@pytest.mark.slow
def test_libraries_of_evaluate_send_nothing_and_write_nowhere_else(user: User):
    pytest.importorskip("art")
    user.python("-c", EVALUATING)
    user.check()
    assert list(user.cache.glob("matplotlib/fontlist*"))  # matplotlib would write them to the home folder


@pytest.mark.slow
def test_pipeline_of_diffusers_sends_nothing_and_writes_nowhere_else(user: User, digits_bundle: Path):
    pytest.importorskip("diffusers")
    user.python("-c", PLAYING_AS_DIFFUSERS, digits_bundle)
    user.check()


@pytest.mark.slow
def test_browser_page_sends_nothing_and_writes_nowhere_else(user: User, digits_bundle: Path):
    command = traced([sys.executable, ROOT / "cli.py", "ui", digits_bundle, "--port", "0"], user.traces)
    options = {
        "cwd": user.cwd,
        "env": user.environment(),
        "stdout": subprocess.PIPE,
        "start_new_session": True,
    }
    with child(command, **options) as running:
        assert running.stdout
        address = running.stdout.readline().strip()
        fields = json.dumps({"seed": 7, "label": 3}).encode()
        request = urllib.request.Request(
            f"{address}api/generate", fields, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) == 0
    user.check()


@pytest.mark.skipif(not ORT_SENDS, reason="this version of onnxruntime has no telemetry on Linux")
def test_strace_shows_telemetry_that_the_user_switched_on(user: User, digits_bundle: Path):
    user.run(
        "generate", digits_bundle, "-n", "2", "--label", "3", "-o", "images.png", ORT_DISABLE_TELEMETRY="0"
    )
    database = user.home / ".cache" / "Microsoft" / "DeveloperTools" / ".onnxruntime" / "onnxruntime.db"
    assert database in user.strays()
    assert database in user.left_at_home()


def test_strace_shows_a_connection(user: User):
    user.python(
        "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('203.0.113.7', 443))"
    )
    assert "203.0.113.7" in "".join(look_ups_and_connections(user.traces))


def test_served_model_switches_telemetry_off(tmp_path: Path):
    from bcm_edge.export.triton.contents import archive_runtime

    archive = tmp_path / "bcm_edge.zip"
    archive_runtime(archive)
    code = (
        "import bcm_edge, os, sys; "
        "print(bcm_edge.__file__.startswith(sys.path[0]), os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    program = f"import sys; sys.path.insert(0, {str(archive)!r}); {code}"
    completed = subprocess.run(
        [sys.executable, "-c", program], env=inherited, capture_output=True, text=True, check=False
    )
    assert completed.stdout == "True 1\n", completed.stderr
