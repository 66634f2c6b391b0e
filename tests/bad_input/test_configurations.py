"""Configurations of a network that cannot be used are refused in one line, with exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import DIGITS_FIELDS
from fixture_types import Cli, Refusal

from bcm_edge.model.checkpoint import shipped_checkpoint


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"num_classes": 11}, "the tensors have num_classes = 10, but the configuration has 11"),
        (
            {"channel_mult": [1, 3]},
            "the tensors have channel_mult = (1, 2), but the configuration has (1, 3)",
        ),
        ({"num_res_blocks": 2}, "the tensors have num_res_blocks = 1, but the configuration has 2"),
        ({"colour": "red"}, "unknown field 'colour'; the fields are attention, attention_resolutions, "),
        ({"image_size": 7}, "image_size 7 cannot be halved 1 times"),
        ({"image_size": "8"}, "image_size must be a positive integer, not '8'"),
        ({"norm_groups": 7}, "32 channels at level 0 do not divide into 7 groups"),
        ({"attention_resolutions": [2, "4"]}, "the configuration has (2, '4')"),
        ({"image_size": 10**6}, "one image of 1000000 pixels a side would take "),
    ],
    ids=["classes", "channel_mult", "depth", "unknown", "odd", "text", "groups", "mixed list", "huge"],
)
def test_configuration_that_contradicts_the_tensors(
    refuse_export: Refusal, official: Path, tmp_path: Path, fields: dict[str, Any], problem: str
) -> None:
    (tmp_path / "c.json").write_text(json.dumps({**DIGITS_FIELDS, **fields}))
    assert problem in refuse_export(official, "--config", tmp_path / "c.json")


def test_configuration_that_contradicts_the_shipped_tensors(refuse_export: Refusal, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"num_classes": 3}')
    message = refuse_export(shipped_checkpoint(), "--config", tmp_path / "c.json")
    assert message.endswith("the tensors have num_classes = 10, but the configuration has 3")


@pytest.mark.parametrize(
    ("field", "value"), [("image_size", 16), ("num_head_channels", 16), ("norm_groups", 4)]
)
def test_configuration_that_contradicts_the_header(
    refuse_export: Refusal, tmp_path: Path, field: str, value: int
) -> None:
    (tmp_path / "c.json").write_text(json.dumps({field: value}))
    message = refuse_export(shipped_checkpoint(), "--config", tmp_path / "c.json")
    assert f"the file has {field} = {DIGITS_FIELDS[field]}, but the configuration has {value}. " in message


def test_configuration_with_a_byte_order_mark_is_read(cli: Cli, official: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(DIGITS_FIELDS), encoding="utf-8-sig")
    assert (
        cli(
            "export", official, "--config", tmp_path / "c.json", "--dry-run", "-o", tmp_path / "x.bundle"
        ).exit_code
        == 0
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not JSON ("),
        ("[" * 100_000, "not JSON ("),
        ("[1]", "not a JSON object of configuration fields"),
    ],
    ids=["cut", "deep", "list"],
)
def test_configuration_that_is_not_a_json_object(
    refuse_export: Refusal, official: Path, tmp_path: Path, content: str, problem: str
) -> None:
    (tmp_path / "c.json").write_text(content)
    assert refuse_export(official, "--config", tmp_path / "c.json").startswith(
        f"{tmp_path}/c.json: {problem}"
    )


def test_configuration_that_does_not_exist(refuse_export: Refusal, official: Path) -> None:
    assert (
        refuse_export(official, "--config", "no.json")
        == "no.json: cannot be read (No such file or directory)"
    )


def test_unknown_preset(refuse_export: Refusal, official: Path) -> None:
    assert (
        refuse_export(official, "--preset", "imagenet128")
        == "--preset: unknown preset 'imagenet128'; use imagenet64, lsun256"
    )


def test_missing_configuration_names_the_fields(refuse_export: Refusal, official: Path) -> None:
    assert refuse_export(official, "--opset", 18) == (
        f"{official}: image_size and num_head_channels cannot be inferred from its tensors; "
        "pass --config FILE.json with these fields"
    )


def test_configuration_without_norm_groups_is_noted(cli: Cli, official: Path, tmp_path: Path) -> None:
    fields = {name: value for name, value in DIGITS_FIELDS.items() if name != "norm_groups"}
    notes = []
    for values in (fields, DIGITS_FIELDS):
        (tmp_path / "c.json").write_text(json.dumps(values))
        arguments = ("--config", tmp_path / "c.json", "-o", tmp_path / "a.bundle", "--dry-run")
        result = cli("export", official, *arguments)
        assert result.exit_code == 0
        notes.append("note: norm_groups is not specified; 32 is assumed" in result.stderr)
    assert notes == [True, False]
