"""bcm-edge inspect of a checkpoint: the source of every field, and the line to type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixture_types import Cli
from networks import TINY, random_model
from refusals import refusal
from results import only_json

torch = pytest.importorskip("torch")
from safetensors import safe_open  # noqa: E402

from bcm_edge.model.checkpoint import save_checkpoint, shipped_checkpoint  # noqa: E402


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A state dict without a configuration."""
    torch.save(random_model().network.state_dict(), tmp_path / "ema.pt")
    return tmp_path / "ema.pt"


def sources(report: dict[str, object]) -> dict[str, tuple[object, str]]:
    """Return field → its value and source."""
    fields = report["fields"]
    assert isinstance(fields, (list, tuple))
    return {field["name"]: (field["value"], field["source"]) for field in fields}


def test_missing_fields_are_named_with_the_line_to_type(cli: Cli, weights: Path):
    result = cli("inspect", weights)
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["image_size", "?", "must", "be", "given"] in lines
    assert ["model_channels", str(TINY.model_channels), "its", "tensors"] in lines
    assert ["norm_groups", "32", "assumed"] in lines
    assert '{"image_size": ?, "num_head_channels": ?}' in result.stdout
    assert result.stdout.endswith(f"bcm-edge export {weights} --config network.json -o ema.bundle\n")


def test_fields_of_the_user_complete_the_configuration(cli: Cli, weights: Path, tmp_path: Path):
    fields = {"image_size": TINY.image_size, "num_head_channels": TINY.num_head_channels}
    (tmp_path / "network.json").write_text(json.dumps(fields))
    report = only_json(cli("inspect", weights, "--config", tmp_path / "network.json", "--json").stdout)
    assert report["missing"] == [] and report["kind"] == "bcm"
    assert sources(report)["image_size"] == (TINY.image_size, "the options")
    (tmp_path / "wrong.json").write_text(json.dumps({**fields, "model_channels": 7}))
    message = refusal(cli("inspect", weights, "--config", tmp_path / "wrong.json"))
    assert "the tensors have model_channels" in message


def test_network_with_one_noise_level_is_a_start_for_training(cli: Cli, tmp_path: Path):
    tensors = random_model().network.state_dict()
    names = [name for name in tensors if not name.startswith(("time_embed_end", "time_embed_align"))]
    torch.save({name: tensors[name] for name in names}, tmp_path / "ict.pt")
    result = cli("inspect", tmp_path / "ict.pt")
    assert "like iCT; it must be trained further to invert" in result.stdout
    assert f"bcm-edge train --init {tmp_path}/ict.pt --config network.json" in result.stdout


def test_shipped_checkpoint_has_its_fields_in_the_header(cli: Cli):
    report = only_json(cli("inspect", shipped_checkpoint(), "--json").stdout)
    found = sources(report)
    assert found["image_size"] == (8, "its header") and found["channel_mult"] == ([1, 2], "its tensors")
    assert report["missing"] == [] and report["next"] == [
        f"use it:  bcm-edge export {shipped_checkpoint()} -o digits.bundle"
    ]


def test_type_of_the_tensors_is_shown(cli: Cli, weights: Path, tmp_path: Path):
    assert "0.76 M parameters, stored as float16\n" in cli("inspect", shipped_checkpoint()).stdout
    assert only_json(cli("inspect", weights, "--json").stdout)["stored_as"] == "float32"
    saved = tmp_path / "half.safetensors"
    save_checkpoint(saved, random_model().network.state_dict(), TINY, {}, {})
    with safe_open(saved, framework="pt") as file:
        assert json.loads(file.metadata()["bcm_edge"])["stored_as"] == "float16"


def test_preset_that_cannot_exist_says_why(cli: Cli, weights: Path):
    message = refusal(cli("inspect", weights, "--preset", "cifar10"))
    assert message.startswith("--preset cifar10: no weights of a BCM of CIFAR-10 are published")


def test_options_of_checkpoints_are_refused_for_bundles(cli: Cli, digits_bundle: Path):
    result = cli("inspect", digits_bundle, "--preset", "imagenet64")
    assert result.exit_code == 2 and "--preset and --config are for checkpoints" in result.stderr
