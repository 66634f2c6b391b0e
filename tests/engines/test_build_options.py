"""Options of bcm-edge build: profiles, amounts of memory, devices and precisions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import click
import pytest
from fixture_types import Cli, Process

from bcm_edge.commands.build import parse_bytes, parse_profile
from bcm_edge.errors import InputError
from bcm_edge.runtime.engines.store import workspace_limit
from bcm_edge.runtime.machine.gpu import parse_device, probe


@pytest.mark.parametrize(
    ("integrated", "option", "limit"),
    [
        (False, None, None),  # the default of TensorRT
        (True, None, 3_000_000_000),  # half of the free memory
        (False, 512 << 20, 512 << 20),
        (True, 512 << 20, 512 << 20),
    ],
)
def test_workspace_limit(record: ModuleType, integrated: bool, option: int | None, limit: int | None):
    gpu = replace(probe(), integrated=integrated)
    assert workspace_limit(option, gpu, 6_000_000_000) == limit
    if integrated and option is None:
        # Half of all memory, if the free memory is unknown.
        assert workspace_limit(option, gpu, None) == 4_000_000_000


def test_dry_run_builds_nothing(typed_copy: Path, run: Process):
    completed = run("build", typed_copy, "--dry-run")
    assert completed.returncode == 0 and completed.stdout.startswith(
        f"would write {typed_copy}/engines/fp16-sm87-trt10.3.0-"
    )
    assert "  batch: 1:4:16, verified at 1, 4, 16\n" in completed.stdout
    assert not (typed_copy / "engines").exists()
    assert json.loads(run("build", typed_copy, "--dry-run", "--json").stdout)["to_verify"] == [1, 4, 16]


def test_default_precision_is_fp16_or_else_the_most_accurate(
    bundle_copy: Path, typed_copy: Path, run: Process
):
    assert (
        "would write" in run("build", bundle_copy, "--dry-run").stdout
        and "/fp32-sm87" in run("build", bundle_copy, "--dry-run").stdout
    )
    assert "/fp16-sm87" in run("build", typed_copy, "--dry-run").stdout


def test_missing_precision_is_refused_before_the_gpu_is_used(bundle_copy: Path, cli: Cli):
    result = cli("build", bundle_copy, "--precision", "fp16")
    assert (
        result.exit_code == 2
        and "has no fp16 graphs (it has fp32); export with --precision fp32,fp16" in result.stderr
    )


def test_valid_profiles_amounts_and_devices():
    assert [parse_profile(text) for text in ("1:4:16", "8", "2:2:2")] == [(1, 4, 16), (8, 8, 8), (2, 2, 2)]
    assert [parse_bytes(text) for text in ("2G", "512M", "2048k", "1073741824", "1GiB")] == [
        2 << 30,
        512 << 20,
        2 << 20,
        1 << 30,
        1 << 30,
    ]
    assert [parse_device(text) for text in ("cuda", "cuda:0", "cuda:3")] == [0, 0, 3]


@pytest.mark.parametrize("text", ["", "0:1:2", "4:2:8", "1:2", "1:2:3:4", "a", "1.5", "-1", "1:4:999999"])
def test_invalid_profiles(text: str):
    with pytest.raises(click.BadParameter, match="expected MIN:OPT:MAX"):
        parse_profile(text)


@pytest.mark.parametrize("text", ["", "0", "2", "1023K", "2T", "99999999G", "-1G", "1.5G", "G", "nan"])
def test_invalid_amounts_of_memory(text: str):
    with pytest.raises(click.BadParameter, match="expected a whole number of bytes of at least 1M"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "cpu", "cuda:", "cuda:-1", "cuda:x", "gpu:0", "0"])
def test_unknown_devices(text: str):
    with pytest.raises(InputError, match=f"unknown device '{text}'; expected cuda:N, for example cuda:0"):
        parse_device(text)


def test_option_device_selects_the_gpu(typed_copy: Path, run: Process):
    assert run("build", typed_copy, "--device", "cuda:1", FAKE_GPUS="2").returncode == 0
    completed = run("build", typed_copy, "--device", "cuda:2", FAKE_GPUS="2")
    assert "no GPU cuda:2 on this machine; available: cuda:0, cuda:1." in completed.stderr
