"""State files: what they hold, and files that are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import same_tensors
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import new_run, random_data, trained_a_little

from bcm_edge.errors import CheckpointError
from bcm_edge.model.checkpoint import load_checkpoint
from bcm_edge.model.weights_files import STATE_KEY
from bcm_edge.training.state import read_header, read_state

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state of a run after three steps."""
    path = tmp_path / "s"
    trained_a_little(random_data()).save(path)
    return path


def entry(state: Path) -> dict[str, Any]:
    """Return the JSON entry in the header of a state file."""
    with safe_open(state, framework="pt") as file:
        return json.loads(file.metadata()[STATE_KEY])


def rewrite(state: Path, **fields: Any) -> None:
    """Replace fields of the JSON entry of a state file."""
    text = json.dumps({**entry(state), **fields})
    save_file(load_file(state), state, {STATE_KEY: text})


def test_state_has_weights_average_and_moments_in_float32(state: Path):
    tensors = load_file(state)
    shape = (8, 1, 3, 3)
    for group in ("weights", "average", "exp_avg", "exp_avg_sq"):
        tensor = tensors[f"{group}/input_blocks.0.0.weight"]
        assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, shape)
        assert tensor.abs().max() > 0
    assert {name.split("/")[0] for name in tensors} == {"weights", "average", "exp_avg", "exp_avg_sq"}
    assert (entry(state)["version"], entry(state)["done"], entry(state)["steps"]) == (1, 3, 7)


def test_restored_run_has_the_tensors_of_the_saved_one(state: Path, tmp_path: Path):
    run = new_run(random_data())
    run.restore(state)
    run.save(tmp_path / "again")
    assert same_tensors(load_file(tmp_path / "again"), load_file(state))
    assert str(read_header(tmp_path / "again")) == "3 of 7 steps"
    steps = {float(values["step"]) for values in run.optimizer.state.values()}
    assert steps == {3.0}


def test_fields_that_were_changed_are_noticed(state: Path):
    rewrite(state, done=2)
    with pytest.raises(CheckpointError, match="its content is not what was saved"):
        read_state(state)


def test_bytes_that_were_changed_are_noticed(state: Path):
    content = bytearray(state.read_bytes())
    content[-1000] ^= 1
    state.write_bytes(content)
    with pytest.raises(CheckpointError, match="its content is not what was saved"):
        new_run(random_data()).restore(state)


def test_truncated_state_is_refused(state: Path):
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"damaged \(.*\); start a new run with --force"):
        new_run(random_data()).restore(state)


def test_state_of_a_newer_format_is_refused(state: Path):
    rewrite(state, version=2)
    with pytest.raises(CheckpointError, match="version 2 of the format, which this version does not read"):
        read_state(state)


@pytest.mark.parametrize(
    "fields", [{"done": "3"}, {"extended": [1]}, {"fingerprint": []}, {"version": {}}], ids=str
)
def test_fields_of_another_type_are_refused(state: Path, fields: dict[str, Any]):
    rewrite(state, **fields)
    with pytest.raises(CheckpointError, match=f"{state}: not the state of a training run"):
        read_header(state)


def test_safetensors_without_the_entry_are_refused(tmp_path: Path):
    save_file({"a": torch.ones(1)}, tmp_path / "s")
    with pytest.raises(CheckpointError, match="not the state of a training run"):
        read_state(tmp_path / "s")


def test_tensors_of_another_network_are_refused(state: Path, monkeypatch: pytest.MonkeyPatch):
    other = new_run(random_data(classes=2))
    monkeypatch.setitem(other.__dict__, "fingerprint", read_header(state).fingerprint)
    with pytest.raises(CheckpointError, match="does not contain the tensors of this network"):
        other.restore(state)


def test_torch_file_of_older_versions_is_refused_and_not_executed(tmp_path: Path):
    torch.save({"fingerprint": os.system}, tmp_path / "s")
    with pytest.raises(
        CheckpointError, match=r"a torch file, which may contain code and is not read; finish"
    ):
        new_run(random_data()).restore(tmp_path / "s")


def test_differences_name_the_cause_and_not_its_effects(state: Path):
    header = read_header(state)
    now = {**header.fingerprint, "held_out": 0.1, "data": "f" * 64, "levels": 3, "network": {}}
    differences = ["levels (default, now 3)", "share of held-out images (0.0, now 0.1)"]
    assert sorted(header.differences(now)) == differences


def test_state_is_not_a_checkpoint(state: Path):
    with pytest.raises(CheckpointError, match="the state of a training run, not a checkpoint"):
        load_checkpoint(state)
