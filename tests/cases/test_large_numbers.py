"""Numbers of images, frames and seeds that are too large are refused before memory is allocated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fixture_types import Cli
from refusals import refusal

from bcm_edge import load
from bcm_edge.errors import InputError
from bcm_edge.runtime.arguments import check_number


def assert_too_many(result: Result, subject: str) -> None:
    """Check that a command refused a number because of memory or disk space."""
    message = refusal(result)
    assert message.startswith(subject) and " would take " in message
    assert " of memory, and " in message or " of disk space, and " in message


def test_more_images_than_the_memory_can_hold(
    generate: Cli, cli: Cli, digits_bundle: Path, tmp_path: Path
) -> None:
    number = 10**20
    assert_too_many(generate("-n", number, "-o", "out.npz"), f"{number} images")
    assert_too_many(generate("-n", 10**12, "-o", "out.png"), f"{10**12} images")
    assert_too_many(
        cli("trace", digits_bundle, "--label", 3, "-n", number, "-o", "out.npz"), f"{2 * number} states"
    )
    assert generate("-n", 2, "-o", "x.npz").exit_code == 0
    assert_too_many(
        cli("variations", digits_bundle, "x.npz", "-n", number, "-o", "out.npz"), f"{2 * number} variations"
    )
    assert_too_many(
        cli("interpolate", digits_bundle, "x.npz", "x.npz", "--frames", number, "-o", "out.npz"),
        f"{2 * number} frames",
    )
    assert_too_many(cli("bench", digits_bundle, "--batch", number), f"{number} images of a batch")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_one_picture_of_more_images_than_the_memory_can_hold(
    generate: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bcm_edge.runtime.machine.resources.available_memory", lambda: 10 << 20)
    assert generate("-n", 1000, "-o", "out.npz").exit_code == 0
    assert_too_many(generate("-n", 1000, "-o", "out.png"), "a picture of 1000 images")


def test_free_memory_is_not_read_for_4_mb_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bcm_edge.runtime.machine.resources.available_memory", lambda: 0)
    check_number(6853, (1, 8, 8))
    with pytest.raises(
        InputError, match=r"^6854 images would take 4\.19 MB of memory, and 0 MB are available"
    ):
        check_number(6854, (1, 8, 8))


@pytest.mark.parametrize(("number", "rows"), [(10**20, 1024), (10**15, 10**15), (10**12, 1)])
def test_job_with_more_images_than_the_disk_can_hold(
    cli: Cli, digits_bundle: Path, tmp_path: Path, number: int, rows: int
) -> None:
    pytest.importorskip("ray")
    options = ("--task", "generate", "--label", 3, "--rows", rows, "-o", tmp_path / "job")
    result = cli("map", digits_bundle, number, *options)
    assert_too_many(result, f"the list of {number // rows} shards" if rows < 10**15 else f"{number} images")
    assert not (tmp_path / "job").exists()


def test_seeds_have_64_bits(generate: Cli, cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    largest = 2**64 - 1
    assert generate("--seed", largest, "-o", "out.npz").exit_code == 0
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["seeds"].tolist() == [largest]
    for arguments in (("--seed", largest, "-n", 2), ("--seed", largest + 1)):
        assert refusal(generate(*arguments, "-o", "more.npz")) == f"seeds must lie in [0, 2**64), got {2**64}"
    assert generate("--seed", -1, "-o", "more.npz").exit_code == 2
    pytest.importorskip("ray")
    options = ("--task", "generate", "--label", 3, "--seed", largest, "-o", tmp_path / "job")
    result = cli("map", digits_bundle, 10, *options)
    expected = f"--seed {largest} is too large for 10 images: the largest seed is 2**64 - 1; "
    assert refusal(result).startswith(expected)


def test_batch_size_is_limited_to_the_number_of_images(generate: Cli) -> None:
    assert generate("--batch", 10**9, "-o", "out.png").exit_code == 0


def test_python_refuses_too_many_images(digits_bundle: Path) -> None:
    with (
        load(digits_bundle, "null") as bcm,
        pytest.raises(InputError, match=r"^100000000000000000000 images would take .* of memory"),
    ):
        bcm.generate(10**20, labels=3)


def test_map_refuses_more_workers_than_the_machine_can_start(
    cli: Cli, digits_bundle: Path, tmp_path: Path
) -> None:
    """Ray starts a process per worker, and does not finish starting thousands of them."""
    pytest.importorskip("ray")
    options = ("--task", "generate", "--label", 3, "-o", tmp_path / "out", "--workers", 10**6)
    assert "--workers and --threads ask for 1000000 threads, but this machine has " in refusal(
        cli("map", digits_bundle, 4, *options)
    )
