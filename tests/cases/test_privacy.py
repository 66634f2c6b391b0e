"""Nothing is sent and nothing is left behind: every command keeps to its output, the cache folder and the temporary folder.

Real commands run under strace, in a home folder of their own that was empty before.
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

ORT_SENDS = tuple(map(int, version("onnxruntime").split(".")[:2])) >= (
    1,
    32,
)  # the first version with telemetry on Linux

SWITCHED = """
import os, subprocess, sys
import bcm_edge
child = "import os; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['RAY_USAGE_STATS_ENABLED'])"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout.strip())
try:
    import openvino_telemetry
    print("openvino_telemetry")
except ImportError:
    print("no openvino_telemetry")
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
class Place:
    """Folders of one user: an empty home, the current folder, the temporary one, and where traces go."""

    home: Path
    cwd: Path
    temporary: Path
    traces: Path

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "bcm-edge"

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG")
        }
        own = {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**kept, **own, **more}

    def run(self, *arguments: object, **environment: str) -> None:
        """A command of bcm-edge under strace."""
        self.python(ROOT / "cli.py", *arguments, **environment)

    def python(self, *arguments: object, **environment: str) -> None:
        ended = subprocess.run(
            traced([sys.executable, *arguments], self.traces),
            cwd=self.cwd,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr

    def strays(self) -> list[Path]:
        """What was written outside the documented folders."""
        inside = (self.cwd, self.temporary, self.cache)
        return [
            path
            for path in written(self.traces, self.cwd)
            if path != self.cache.parent and not any(map(path.is_relative_to, inside))
        ]

    def left_at_home(self) -> list[Path]:
        return [
            path
            for path in self.home.rglob("*")
            if path != self.cache.parent and not path.is_relative_to(self.cache)
        ]

    def check(self) -> None:
        assert look_ups_and_connections(self.traces) == []
        assert self.strays() == []
        assert self.left_at_home() == []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="t") as temporary:  # a short name: Ray's sockets lie there
        found = Place(tmp_path / "home", tmp_path / "cwd", Path(temporary).resolve(), tmp_path / "traces")
        found.home.mkdir()
        found.cwd.mkdir()
        yield found


def test_telemetry_is_off_here_and_in_child_processes_unless_the_user_wants_it():
    def said(**environment: str) -> list[str]:
        unset = {
            name: value
            for name, value in os.environ.items()
            if name not in ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
        }
        command = [sys.executable, "-c", SWITCHED]
        return subprocess.run(
            command, env={**unset, **environment}, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    assert said() == ["1 0", "no openvino_telemetry"]
    assert said(ORT_DISABLE_TELEMETRY="", RAY_USAGE_STATS_ENABLED="") == ["1 0", "no openvino_telemetry"]
    assert said(ORT_DISABLE_TELEMETRY="0", RAY_USAGE_STATS_ENABLED="1") == ["0 1", "no openvino_telemetry"]


def test_openvino_takes_its_own_stub_for_telemetry():
    pytest.importorskip("openvino")
    code = "import bcm_edge, openvino.tools.ovc.telemetry_utils as utils; print(utils.tm.__name__)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "openvino.tools.ovc.telemetry_stub\n"


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
def test_a_command_sends_nothing_and_leaves_nothing(
    place: Place, digits_bundle: Path, images: Path, command: str
):
    if "openvino" in command:
        pytest.importorskip("openvino")
    place.run(*({"BUNDLE": digits_bundle, "IMAGES": images}.get(word, word) for word in command.split()))
    place.check()


@pytest.mark.slow
def test_libraries_of_evaluate_send_nothing_and_leave_nothing(place: Place):
    pytest.importorskip("art")
    place.python("-c", EVALUATING)
    place.check()
    assert list(place.cache.glob("matplotlib/fontlist*"))  # where they would lie in the home folder otherwise


@pytest.mark.slow
def test_the_window_sends_nothing_and_leaves_nothing(place: Place, digits_bundle: Path):
    command = traced([sys.executable, ROOT / "cli.py", "ui", digits_bundle, "--port", "0"], place.traces)
    options = {
        "cwd": place.cwd,
        "env": place.environment(),
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
    place.check()


@pytest.mark.skipif(not ORT_SENDS, reason="this version of onnxruntime has no telemetry on Linux")
def test_the_guard_sees_telemetry_that_the_user_switched_on(place: Place, digits_bundle: Path):
    place.run(
        "generate", digits_bundle, "-n", "2", "--label", "3", "-o", "images.png", ORT_DISABLE_TELEMETRY="0"
    )
    database = place.home / ".cache" / "Microsoft" / "DeveloperTools" / ".onnxruntime" / "onnxruntime.db"
    assert database in place.strays()
    assert database in place.left_at_home()


def test_the_guard_sees_a_look_up_and_a_connection(place: Place):
    place.python(
        "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('203.0.113.7', 443))"
    )
    assert "203.0.113.7" in "".join(look_ups_and_connections(place.traces))


def test_a_served_model_brings_the_switches_along(tmp_path: Path):
    from bcm_edge.export.triton.contents import archive_runtime

    archive = tmp_path / "bcm_edge.zip"
    archive_runtime(archive)
    code = "import bcm_edge, os, sys; print(bcm_edge.__file__.startswith(sys.path[0]), os.environ['ORT_DISABLE_TELEMETRY'])"
    unset = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    program = f"import sys; sys.path.insert(0, {str(archive)!r}); {code}"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=unset, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "True 1\n", ended.stderr
