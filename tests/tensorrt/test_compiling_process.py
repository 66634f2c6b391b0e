"""Failures of the compiling process, which has the TensorRT-RTX library."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from build_without_gpu import ORIN, WITH_GPU
from contract import environment

from bcm_edge.errors import BackendError, BuildError
from bcm_edge.export.engines import child
from bcm_edge.export.engines.child import CHILD, compile_in_child
from bcm_edge.export.engines.plan import BuildPlan
from bcm_edge.runtime.engines.facts import BuildOptions
from bcm_edge.runtime.storage.bundle import open_bundle


@pytest.fixture(autouse=True)
def builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a test find the library."""
    for name, value in environment("builder").items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def failure(typed_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a build whose compiling process runs this code and fails; return the message."""

    def run(code: str, folder: Path = tmp_path) -> str:
        monkeypatch.setattr(child, "CHILD", code)
        plan = BuildPlan(open_bundle(typed_bundle), ORIN, "11.4.0.106", BuildOptions("fp16"))
        with pytest.raises((BuildError, BackendError)) as caught:
            compile_in_child(plan, folder, lambda line: None, lambda *step: None)
        return str(caught.value)

    return run


def test_process_without_a_gpu(failure: Callable[..., str]):
    assert re.match(
        r"no NVIDIA driver on this machine \(libcuda.so.1 cannot be loaded\)$|no GPU cuda:99 on this machine",
        failure(CHILD),
    )


def test_process_killed_by_the_system_is_out_of_memory(failure: Callable[..., str]):
    advice = (
        "The workspace was {}M: try --workspace {}M, --opt-level 1 or a smaller --batch; "
        "on a Jetson close the desktop and add swap."
    )
    killed = "import os, sys\nsys.stdin.read()\nos.kill(os.getpid(), 9)\n"
    # The workspace is half of all memory, or half of the free memory if that is known.
    assert failure(killed) == f"the build ran out of memory. {advice.format(3814, 1907)}"
    advice = advice.format(2384, 1192)
    while_parsing = "compiler.PlanWriter.write = lambda *arguments: os.kill(os.getpid(), 9)\n"
    free = "5.0 GB of 8.0 were free when it began"
    assert failure(WITH_GPU + while_parsing + CHILD) == f"the build ran out of memory: {free}. {advice}"
    in_a_shell = "compiler.PlanWriter.write = lambda *arguments: os._exit(137)\n"
    assert failure(WITH_GPU + in_a_shell + CHILD) == f"the build ran out of memory: {free}. {advice}"


def test_crash_is_reported_with_the_last_line_of_stderr(failure: Callable[..., str]):
    failures = {
        "raise ValueError('no such tactic')": "exit code 1: ValueError: no such tactic",
        "import os\nos.write(2, b'one\\ntwo\\n\\n')\nos.abort()": "signal SIGABRT: two",
        "import os\nos._exit(3)": "exit code 3: it left no message",
    }
    for code, reason in failures.items():
        message = f"the compiling process ended with {reason}"
        assert failure("import sys\nsys.stdin.read()\n" + code) == message
        # It ends before it has read the request, which is larger than the pipe.
        assert failure(code, Path("x" * 200_000)) == message


def test_output_of_a_library_is_not_an_event(failure: Callable[..., str]):
    """The compiler for a DLA, for example, writes to stdout."""
    prints = "compiler.PlanWriter.write = lambda *arguments: os.write(1, b'NVMEDIA_DLA') and os.abort()\n"
    assert (
        failure(WITH_GPU + prints + CHILD) == "the compiling process ended with signal SIGABRT: NVMEDIA_DLA"
    )
