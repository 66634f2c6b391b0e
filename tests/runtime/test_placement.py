"""The arguments threads= and device=, and the options --threads and --device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import Cli
from refusals import refusal

import bcm_edge
from bcm_edge.errors import BackendError, InputError
from bcm_edge.runtime.machine.placement import Placement

PLAYING = (
    "generate",
    "invert",
    "reconstruct",
    "interpolate",
    "variations",
    "trace",
    "inpaint",
    "colorize",
    "upscale",
    "restore",
    "purify",
    "restyle",
    "verify",
    "bench",
    "evaluate",
    "map",
    "ui",
)


@pytest.mark.parametrize(
    ("device", "kind", "gpu"),
    [(None, None, 0), ("cpu", "cpu", 0), ("gpu", "gpu", 0), ("cuda", "gpu", 0), ("cuda:12", "gpu", 12)],
)
def test_device_has_a_kind_and_a_number(device: str | None, kind: str | None, gpu: int):
    placement = Placement(device=device)
    assert (placement.kind, placement.gpu) == (kind, gpu)


@pytest.mark.parametrize("name", ["tpu", "CPU", "", "cuda:", "cuda:-1", "cuda:0:1", "gpu:1"])
def test_unknown_device_is_refused(digits_bundle: Path, name: str):
    with pytest.raises(InputError, match=r"unknown device .*; expected cpu, gpu or cuda:N, for example"):
        bcm_edge.load(digits_bundle, device=name)


@pytest.mark.parametrize(
    ("threads", "message"),
    [
        (0, "threads must be from 1 to 1024, not 0"),
        (-2, "threads must be from 1 to 1024, not -2"),
        (10**30, "threads must be from 1 to 1024, not 10000"),
        ("4", "threads must be an integer, not str"),
        (2.0, "threads must be an integer, not float"),
    ],
)
def test_wrong_number_of_threads_is_refused(digits_bundle: Path, threads: Any, message: str):
    with pytest.raises(InputError, match=message):
        bcm_edge.load(digits_bundle, threads=threads)


def test_argument_comes_before_the_variable(digits_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BCM_EDGE_THREADS", "3")
    for threads, text in ((None, "CPU, 3 threads"), (1, "CPU, 1 thread"), (2, "CPU, 2 threads")):
        with bcm_edge.load(digits_bundle, "onnxruntime", threads=threads) as bcm:
            assert bcm.backend.device == text
    monkeypatch.setenv("BCM_EDGE_THREADS", "two")
    with bcm_edge.load(digits_bundle, "onnxruntime", threads=np.int64(2)) as bcm:  # pyright: ignore
        assert bcm.backend.device == "CPU, 2 threads"
        assert np.isfinite(bcm.generate(1, labels=3)).all()
    with pytest.raises(BackendError, match="BCM_EDGE_THREADS must be a positive integer up to 1024"):
        bcm_edge.load(digits_bundle, "onnxruntime")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="/proc does not list threads")
def test_onnxruntime_starts_as_many_threads(digits_bundle: Path):
    """The thread that calls is one of them."""
    code = """if True:
        import os, sys, bcm_edge
        bcm_edge.load(sys.argv[1], "onnxruntime", threads=1).generate(1, labels=3)
        before = len(os.listdir("/proc/self/task"))
        bcm = bcm_edge.load(sys.argv[1], "onnxruntime", threads=int(sys.argv[2]))
        bcm.generate(1, labels=3)
        print(len(os.listdir("/proc/self/task")) - before)
    """
    for threads in (1, 4):
        command = [sys.executable, "-c", code, str(digits_bundle), str(threads)]
        assert subprocess.check_output(command, text=True) == f"{threads - 1}\n"


def test_openvino_gets_the_number_of_threads(digits_bundle: Path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    with bcm_edge.load(digits_bundle, "openvino", threads=1, device="cpu") as bcm:
        assert bcm.backend.device == "CPU, 1 thread"
        network = bcm.backend._networks.get(("forward", 1))._compiled.network  # pyright: ignore
        assert network.get_property("INFERENCE_NUM_THREADS") == 1


def test_device_of_another_kind_than_the_backend_is_refused(digits_bundle: Path):
    for name in ("openvino", "onnxruntime", "typed"):
        message = (
            f"backend {name} computes on a CPU, not on the device gpu; choose another device, or one of "
            "these backends: tensorrt, onnxruntime-cuda, onnxruntime-tensorrt, onnxruntime-rtx$"
        )
        with pytest.raises(BackendError, match=message):
            bcm_edge.load(digits_bundle, name, device="gpu")
    with pytest.raises(BackendError, match="backend tensorrt computes on a GPU, not on the device cpu"):
        bcm_edge.load(digits_bundle, "tensorrt", device="cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:1"])
def test_gpu_is_never_replaced_by_the_cpu(digits_bundle: Path, device: str):
    try:
        with bcm_edge.load(digits_bundle, device=device) as bcm:
            assert bcm.backend.name not in ("onnxruntime", "openvino", "typed")
    except BackendError as error:
        assert str(error).startswith(f"no backend can run on the device {device} here; tensorrt")


@pytest.mark.parametrize("command", PLAYING)
def test_commands_that_play_have_both_options(cli: Cli, command: str):
    words = cli(command, "--help").output.split()
    assert "--threads" in words and "--device" in words


def test_options_of_the_command_line(cli: Cli, digits_bundle: Path, tmp_path: Path):
    arguments = ("generate", digits_bundle, "--label", 3, "-o", tmp_path / "a.npz")
    result = cli(*arguments, "--threads", 1, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert ": CPU, 1 thread\n" in result.stderr
    assert "unknown device 'tpu'; expected cpu, gpu or cuda:N, for example cuda:0" in refusal(
        cli(*arguments, "--device", "tpu", "--force")
    )
    assert "backend openvino computes on a CPU, not on the device cuda:0" in refusal(
        cli(*arguments, "--backend", "openvino", "--device", "cuda:0", "--force")
    )
    result = cli(*arguments, "--threads", 0, "--force")
    assert result.exit_code == 2 and "Invalid value for '--threads'" in result.output


def test_map_leaves_the_number_of_the_gpu_to_ray(cli: Cli, digits_bundle: Path, tmp_path: Path):
    pytest.importorskip("ray", reason="ray is not installed")
    arguments = ("map", digits_bundle, 3, "-o", tmp_path / "o", "--task", "generate", "--label", 3)
    assert "--device cuda:1: Ray chooses the GPU of each worker" in refusal(
        cli(*arguments, "--device", "cuda:1")
    )


def test_bench_measures_with_these_threads_on_this_device(cli: Cli, digits_bundle: Path):
    options = ("--precision", "fp32", "--batch", 1, "--seconds", 0.05, "--json")
    result = cli("bench", digits_bundle, *options, "--threads", 1, "--device", "cpu")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["environment"]["threads"] == 1
    assert {row["backend"] for row in values["results"]} <= {"onnxruntime", "openvino"}
    assert {failure["backend"] for failure in values["not_run"]} <= {"onnxruntime", "openvino"}
    assert all(row["first_seconds"] > 0 for row in values["results"] if "first_seconds" in row)


def test_verify_checks_on_the_device_alone(cli: Cli, digits_bundle: Path):
    result = cli("verify", digits_bundle, "--precision", "fp32", "--device", "cuda:7")
    assert "no backend can run on the device cuda:7 here; tensorrt" in refusal(result)
