"""Training runs: options, learning rate, checkpoints, and data that does not fit the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import same_tensors
from PIL import Image
from small_runs import SMALL, new_run, random_data, trained_a_little

from bcm_edge.errors import BackendError, InputError, LabelError, NonFiniteError, OutputError
from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bcm_edge.model.preconditioning import ConsistencyModel
from bcm_edge.training.execution import Execution
from bcm_edge.training.networks import network_for, new_model
from bcm_edge.training.options import TrainOptions
from bcm_edge.training.run import train
from bcm_edge.training.summary import summary
from bcm_edge.training.trainer import Trainer
from bcm_edge.training.watch import Progress

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]


def test_learning_rate_warms_up_and_decays():
    run = new_run(random_data(), TrainOptions(steps=1000, channels=8, learning_rate=1.0))
    rates = []
    for run.done in (0, 49, 99, 500, 750, 999):
        rates.append(run.learning_rate())
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.51, 0.022], abs=0.001)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("channels", 12),
        ("intervals", 5),
        ("learning_rate", float("nan")),
        ("batch", -1),
        ("seed", -1),
    ],
)
def test_wrong_options_are_refused_by_name(name: str, value: Any):
    with pytest.raises(InputError, match=name):
        replace(SMALL, **{name: value})


def test_error_of_a_diverging_run_names_the_step():
    run = new_run(random_data())
    with torch.no_grad():
        run.parameters[0].fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="step 0"):
        run.step()


def test_unknown_device_is_refused():
    with pytest.raises(BackendError, match="'abacus'"):
        Trainer(random_data(), network_for(random_data(), 8), SMALL, Execution("abacus"))


@pytest.mark.slow
def test_train_writes_a_checkpoint_and_its_samples(tmp_path: Path):
    reports: list[Progress] = []
    np.savez(tmp_path / "data.npz", images=random_data().images.numpy(), labels=np.arange(12) % 3)
    output = tmp_path / "model.safetensors"
    pictures = train(str(tmp_path / "data.npz"), output, SMALL, reports.append)
    checkpoint = load_checkpoint(output)
    assert checkpoint.config.num_classes == 3
    assert checkpoint.provenance["steps"] == 7
    assert min(Image.open(pictures).size) > 10 * 128
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6, 7]
    assert reports[-1].seconds_left is not None and reports[-1].seconds_left > 0  # for the samples


def test_checkpoint_of_a_run_is_that_of_its_file(tmp_path: Path):
    run = trained_a_little(random_data())
    made, file = run.checkpoint(), tmp_path / "c.safetensors"
    save_checkpoint(file, run.average, run.config, made.schedules, made.provenance)
    read = load_checkpoint(file)
    assert (read.config, read.schedules, read.provenance) == (made.config, made.schedules, made.provenance)
    assert same_tensors(read.state_dict, made.state_dict)


def test_train_refuses_an_output_that_exists(tmp_path: Path):
    output = tmp_path / "model.safetensors"
    output.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        train("digits", output, SMALL)
    assert output.read_text() == "precious"


def test_network_is_chosen_for_the_image_size():
    networks = {size: network_for(random_data(size=size), 16) for size in (8, 27, 28, 32, 7)}
    shapes = {size: (config.patch_size, config.channel_mult) for size, config in networks.items()}
    assert shapes == {8: (1, (1, 2)), 27: (1, (1,)), 28: (2, (1, 2)), 32: (2, (1, 2, 2)), 7: (1, (1,))}
    model = new_model(ConsistencyModel, networks[8], 0)
    assert model(torch.ones(1, 1, 8, 8), *torch.ones(2, 1), torch.tensor([0])).shape == (1, 1, 8, 8)


def test_fine_tuning_starts_from_the_given_weights_on_the_finest_grid(tmp_path: Path):
    dataset = random_data()
    config = network_for(dataset, 8)
    other = new_run(dataset, TrainOptions(steps=4, channels=8, seed=5))
    weights = other.model.network.state_dict()
    run = Trainer(dataset, config, SMALL, init=Checkpoint("start", config, weights))
    assert run.intervals() == SMALL.intervals
    assert same_tensors(run.model.network.state_dict(), weights)


def test_data_that_the_network_cannot_take_is_refused(tmp_path: Path):
    config = network_for(random_data(), 8)
    wide = Checkpoint("wide", replace(config, num_classes=1), {})
    with pytest.raises(LabelError, match="has labels 0 to 9; the model has classes 0 to 0"):
        train("digits", tmp_path / "out.safetensors", SMALL, init=wide)
    without = Checkpoint("without", replace(config, num_classes=None), {})
    with pytest.raises(InputError, match="it has 10 classes, the network has none"):
        train("digits", tmp_path / "out.safetensors", SMALL, init=without)
    colour = Checkpoint("colour", replace(config, in_channels=3, out_channels=3, num_classes=10), {})
    with pytest.raises(InputError, match="its images are 1×8×8, the network takes 3×8×8"):
        train("digits", tmp_path / "out.safetensors", SMALL, init=colour)


def test_a_finer_grid_than_that_of_the_first_training_is_noted():
    data = random_data()
    first = Trainer(data, network_for(data, 8), replace(SMALL, intervals=20)).checkpoint()

    def notes(intervals: int) -> list[str]:
        run = Trainer(data, first.config, replace(SMALL, intervals=intervals), init=first)
        return [line for line in summary(run) if line.startswith("note: ")]

    assert notes(20) == notes(10) == []
    assert notes(40) == [
        "note: the BCM to start from was trained with up to 20 intervals. With 40, long moves learn slowly, "
        "and samples may become worse; give --intervals 20"
    ]
