"""Numbers of images, frames, batches and seeds that nothing holds are refused before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from refusals import refusal

from bcm_edge import load
from bcm_edge.errors import InputError

Cli = Callable[..., Result]


def too_many(ended: Result, what: str) -> None:
    message = refusal(ended)
    assert message.startswith(what) and " would take " in message
    assert " of memory, and " in message or " of disk space, and " in message


def test_more_images_than_memory_holds(generate: Cli, cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    number = 10**20
    too_many(generate("-n", number, "-o", "out.npz"), f"{number} images")
    too_many(generate("-n", 10**12, "-o", "out.png"), f"{10**12} images")
    too_many(cli("trace", digits_bundle, "--label", 3, "-n", number, "-o", "out.npz"), f"{2 * number} states")
    assert generate("-n", 2, "-o", "x.npz").exit_code == 0
    too_many(
        cli("variations", digits_bundle, "x.npz", "-n", number, "-o", "out.npz"), f"{2 * number} variations"
    )
    too_many(
        cli("interpolate", digits_bundle, "x.npz", "x.npz", "--frames", number, "-o", "out.npz"),
        f"{2 * number} frames",
    )
    too_many(cli("bench", digits_bundle, "--batch", number), f"{number} images of a batch")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_picture_of_more_images_than_memory_holds(generate: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bcm_edge.runtime.machine.resources.available_memory", lambda: 10 << 20)
    assert generate("-n", 1000, "-o", "out.npz").exit_code == 0
    too_many(generate("-n", 1000, "-o", "out.png"), "a picture of 1000 images")


@pytest.mark.parametrize(("number", "rows"), [(10**20, 1024), (10**15, 10**15), (10**12, 1)])
def test_job_of_more_images_than_the_disk_holds(
    cli: Cli, digits_bundle: Path, tmp_path: Path, number: int, rows: int
) -> None:
    pytest.importorskip("ray")
    ended = cli(
        "map",
        digits_bundle,
        number,
        "--task",
        "generate",
        "--label",
        3,
        "--rows",
        rows,
        "-o",
        tmp_path / "job",
    )
    too_many(ended, f"the list of {number // rows} shards" if rows < 10**15 else f"{number} images")
    assert not (tmp_path / "job").exists()


def test_seeds_end_at_64_bits(generate: Cli, cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    largest = 2**64 - 1
    assert generate("--seed", largest, "-o", "out.npz").exit_code == 0
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["seeds"].tolist() == [largest]
    for arguments in (("--seed", largest, "-n", 2), ("--seed", largest + 1)):
        assert refusal(generate(*arguments, "-o", "more.npz")) == "seeds must lie in [0, 2**64)"
    assert generate("--seed", -1, "-o", "more.npz").exit_code == 2
    pytest.importorskip("ray")
    ended = cli(
        "map",
        digits_bundle,
        10,
        "--task",
        "generate",
        "--label",
        3,
        "--seed",
        largest,
        "-o",
        tmp_path / "job",
    )
    assert refusal(ended) == f"--seed {largest} is too large for 10 images: seeds end at 2**64 - 1"


def test_batch_is_no_more_than_the_images(generate: Cli) -> None:
    assert generate("--batch", 10**9, "-o", "out.png").exit_code == 0


def test_number_in_python_is_refused_as_well(digits_bundle: Path) -> None:
    with (
        load(digits_bundle, "null") as bcm,
        pytest.raises(InputError, match=r"^100000000000000000000 images would take .* of memory"),
    ):
        bcm.generate(10**20, labels=3)


def test_map_asks_for_no_more_threads_than_a_machine_can_start(
    cli: Cli, digits_bundle: Path, tmp_path: Path
) -> None:
    """Ray starts a process for each, and with thousands it never begins."""
    pytest.importorskip("ray")
    options = ("--task", "generate", "--label", 3, "-o", tmp_path / "out", "--threads", 10**6)
    assert "1000000 threads are asked for, and this machine has " in refusal(
        cli("map", digits_bundle, 4, *options)
    )
