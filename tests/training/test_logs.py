"""What a training run records: the table, curves, samples, validation losses, event files."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import SMALL, new_run, random_data

from bcm_edge.errors import InputError, MissingExtraError, OutputError
from bcm_edge.runtime.pictures.grids import Grid
from bcm_edge.training.networks import network_for
from bcm_edge.training.options import LogOptions
from bcm_edge.training.record import Record, check_folder
from bcm_edge.training.run import fit, train
from bcm_edge.training.sheet import sheet_grid
from bcm_edge.training.validation import split, validation_losses
from bcm_edge.training.watch import Progress

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]

RATE = {"learning_rate": 0.5, "intervals": 10}


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the table in a log folder."""
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_has_the_mean_losses_of_ten_steps(tmp_path: Path):
    record = Record(tmp_path / "log", ["soft"])
    for step in range(1, 13):
        record.step(step, {"soft": float(step)}, RATE, {}, last=step == 12)
    record.close()
    columns = ["step", "learning_rate", "intervals", "soft", "validation_soft"]
    rows = [
        dict(zip(columns, values, strict=True))
        for values in (
            ("10", "0.5", "10", "5.5", ""),
            ("12", "0.5", "10", "11.5", ""),
        )
    ]
    assert rows_of(tmp_path / "log") == rows


def test_validation_losses_are_in_the_row_of_their_step(tmp_path: Path):
    record = Record(tmp_path / "log", ["soft"])
    record.step(1, {"soft": 2.0}, RATE, {"soft": 3.0}, last=False)
    record.close()
    assert [(row["step"], row["validation_soft"]) for row in rows_of(tmp_path / "log")] == [("1", "3")]


def test_continued_run_replaces_the_records_after_its_state(tmp_path: Path):
    record = Record(tmp_path, ["soft"])
    for step in range(1, 31):
        record.step(step, {"soft": 1.0}, RATE, {}, last=False)
    for step in (10, 30):
        record.samples(step, Grid([np.zeros((1, 1, 8, 8), np.float32)]))
    record.close()
    Record(tmp_path, ["soft"], done=20).close()
    assert [row["step"] for row in rows_of(tmp_path)] == ["10", "20"]
    assert sorted(path.name for path in tmp_path.glob("samples-*")) == ["samples-000010.png"]


@pytest.mark.parametrize("text", ["date,price\n1,2\n", "step\nfirst\n"])
def test_table_of_another_program_is_not_continued(tmp_path: Path, text: str):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(OutputError, match=r"log\.csv: not the table of a training run"):
        Record(tmp_path, ["soft"], done=20)
    assert (tmp_path / "log.csv").read_text() == text


def test_records_of_another_run_are_kept_without_force(tmp_path: Path):
    Record(tmp_path / "log", ["soft"]).close()
    with pytest.raises(OutputError, match="exists"):
        check_folder(tmp_path / "log", continued=False, force=False)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file: is a file, .* --log-dir"):
        check_folder(tmp_path / "file", continued=False, force=True)
    check_folder(tmp_path / "log", continued=True, force=False)
    check_folder(tmp_path / "log", continued=False, force=True)


def test_run_with_samples_and_validation(tmp_path: Path):
    data, held_out = split(random_data(20, classes=2), 0.25)
    folder, reports = tmp_path / "log", list[Progress]()
    logs = LogOptions(folder, samples_every=3, eval_every=4, tensorboard=True)
    state = tmp_path / "state"
    fit(data, network_for(data, 8), SMALL, state, reports.append, logs=logs, held_out=held_out)
    with Image.open(folder / "curve.png") as curve:
        assert curve.size == (720, 600)
    assert sorted(path.name for path in folder.glob("samples-*")) == [
        "samples-000003.png",
        "samples-000006.png",
    ]
    measured = {report.step: report.validation for report in reports if report.validation}
    assert list(measured) == [4, 7]
    assert measured[7].keys() == {"consistency", "soft"}
    assert [row["step"] for row in rows_of(folder) if row["validation_soft"]] == ["4", "7"]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    left = [report.seconds_left for report in reports]
    assert all(seconds is not None and seconds > 0 for seconds in left)  # for the samples at the end


def test_sheet_of_samples_says_the_step_and_the_classes():
    checkpoint = new_run(random_data(20, classes=2)).checkpoint()
    grid = sheet_grid(checkpoint, np.zeros((100, 1, 8, 8), np.float32), "step 3")
    assert grid.title == "step 3, one-step: 1 NFE"
    assert list(grid.row_labels) == ["class 0"] * 5 + ["class 1"] * 5


def test_split_holds_out_the_same_share_of_every_class():
    data = random_data(60, classes=3)
    train_part, held_out = split(data, 0.1)
    assert (train_part.counts(), held_out.counts()) == ([18, 18, 18], [2, 2, 2])
    images = torch.cat([train_part.images, held_out.images]).flatten(1)
    assert len(images.unique(dim=0)) == 60
    assert split(data, 0.1)[1].digest == held_out.digest


def test_split_keeps_an_image_of_every_class_and_refuses_an_empty_part():
    train_part, held_out = split(random_data(5, classes=2), 0.5)
    assert (train_part.counts(), held_out.counts()) == ([1, 1], [2, 1])
    with pytest.raises(InputError, match=r"12 images are too few to hold out 0\.1 of each class"):
        split(random_data(12), 0.1)


def test_split_holds_out_all_images_of_a_name():
    data = replace(random_data(60, classes=3), names=tuple(f"thing {row // 3}" for row in range(60)))
    train_part, held_out = split(data, 0.1)
    assert (len(train_part), len(held_out)) == (54, 6)
    assert train_part.names and held_out.names
    assert len(set(held_out.names)) == 2
    assert not set(train_part.names) & set(held_out.names)


def test_split_refuses_to_hold_out_all_images_of_a_class():
    data = replace(random_data(4, classes=2), names=("cat", "dog", "cat", "dog"))
    with pytest.raises(InputError, match=r"no images of these classes are left to train on: [01];"):
        split(data, 0.5)


def test_validation_losses_belong_to_the_average_and_do_not_change_the_run():
    data, held_out = split(random_data(20, classes=2), 0.25)
    measured, plain = new_run(data), new_run(data)
    for run in (measured, plain):
        run.step()
    before = validation_losses(measured, held_out)
    assert validation_losses(measured, held_out) == pytest.approx(before, rel=1e-5)
    for tensor in measured.average.values():
        tensor.add_(0.1)
    assert validation_losses(measured, held_out) != pytest.approx(before, rel=1e-3)
    assert measured.step() == pytest.approx(plain.step(), rel=1e-5)


def test_tensorboard_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("bcm_edge.runtime.checks.doctor.missing_packages", lambda extra: ["tensorboardX"])
    with pytest.raises(MissingExtraError, match=r"TensorBoard needs .*tensorboardX.*\[tensorboard\]"):
        train(
            "digits", tmp_path / "a.safetensors", SMALL, logs=LogOptions(tmp_path / "log", tensorboard=True)
        )
