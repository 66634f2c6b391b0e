"""Checkpoints that cannot be used are refused in one line, with exit code 2, and leave no file behind."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import DIGITS_FIELDS
from fixture_types import Cli, Refusal
from fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st
from refusals import Payload
from torch import Tensor

from bcm_edge.errors import CheckpointError
from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint


def test_official_pt_file_is_read(cli: Cli, official: Path, fields_file: Path, tmp_path: Path) -> None:
    result = cli(
        "export", official, "--config", fields_file, "--dry-run", "--json", "-o", tmp_path / "x.bundle"
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["parameters"] == 759489


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "an empty file. Download or copy it again"),
        (b"hello, world\n", "not a checkpoint (neither safetensors nor a torch file)"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image. Give a torch state dict or safetensors"),
        (b"cposix\nsystem\n(S'touch x'\ntR.", "not a checkpoint (neither safetensors nor a torch file)"),
        (
            b"PK\x03\x04 and no archive",
            "damaged, truncated or not a torch checkpoint (File is not a zip file)",
        ),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "damaged or truncated safetensors ("),
        (
            b"\x80\x02}q\x00.",
            "damaged, truncated or not a torch checkpoint (Invalid magic number; corrupt file?)",
        ),
    ],
    ids=["empty", "text", "picture", "text-pickle", "zip-head", "safetensors-head", "pickled-dict"],
)
def test_file_that_is_not_a_checkpoint(
    refuse_export: Refusal, tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    assert refuse_export(tmp_path / "weights.pt").startswith(f"{tmp_path}/weights.pt: {problem}")


@pytest.mark.parametrize("content", [b"\x80", b"\x80\x02"])
def test_pickle_that_ends_after_its_first_bytes(
    refuse_export: Refusal, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    assert refuse_export(tmp_path / "weights.pt").startswith(
        f"{tmp_path}/weights.pt: damaged, truncated or not a torch checkpoint"
    )


def test_checkpoint_that_does_not_exist(refuse_export: Refusal, tmp_path: Path) -> None:
    assert (
        refuse_export(tmp_path / "no.pt") == f"{tmp_path}/no.pt: cannot be read (No such file or directory)"
    )


def test_unknown_name_of_a_model(refuse_export: Refusal) -> None:
    assert refuse_export(Path("digit")) == (
        "digit: no such file; give a checkpoint, or a shipped model: emoji, digits, mnist"
    )


def test_checkpoint_that_is_a_folder(refuse_export: Refusal, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (
        refuse_export(tmp_path / "empty") == f"{tmp_path}/empty: a folder without a weights file; it is empty"
    )


@pytest.mark.parametrize("form", ["zip", "legacy", "bare", "beside weights"])
def test_code_in_a_pickle_is_never_executed(
    refuse_export: Refusal, tmp_path: Path, weights: dict[str, Tensor], form: str
) -> None:
    target, file = tmp_path / "executed", tmp_path / "evil.pt"
    payload = (
        {**weights, "payload": Payload(target)} if form == "beside weights" else {"payload": Payload(target)}
    )
    if form == "bare":
        file.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=form != "legacy")
    assert refuse_export(file).startswith(f"{file}: ")
    assert not target.exists()
    if form == "bare":
        pickle.loads(file.read_bytes())["payload"].close()
    else:
        torch.load(file, weights_only=False)["payload"].close()
    assert target.exists()  # the payload works where it is allowed to run


def test_pickle_with_code_is_refused(refuse_export: Refusal, tmp_path: Path) -> None:
    torch.save({"payload": Payload(tmp_path / "executed")}, tmp_path / "evil.pt")
    assert refuse_export(tmp_path / "evil.pt") == (
        f"{tmp_path}/evil.pt: refused, because it contains more than tensors, for example io.open "
        "(nothing in it was executed). Save the state dict alone, with the program that wrote the file: "
        "torch.save(network.state_dict(), 'weights.pt')"
    )


@pytest.mark.parametrize("fraction", [0.001, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_truncated_weights(
    refuse_export: Refusal, official: Path, tmp_path: Path, kind: str, fraction: float
) -> None:
    data = {"pt": official, "safetensors": shipped_checkpoint()}[kind].read_bytes()
    file = tmp_path / f"cut.{kind}"
    file.write_bytes(data[: int(fraction * len(data))])
    message = refuse_export(file)
    assert message.startswith(f"{file}: damaged")
    assert "truncated" in message


@fuzzed
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flip_in_official_weights_is_detected_or_harmless(
    official: Path, scratch: Path, weights: dict[str, Tensor], position: float, bit: int
) -> None:
    data = bytearray(official.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    file = scratch / "flipped.pt"
    file.write_bytes(data)
    try:
        loaded = load_checkpoint(file, DIGITS_FIELDS).state_dict
    except CheckpointError as error:
        assert str(error).startswith(f"{file}: ")
    else:  # padding between the records of the archive
        assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_bit_flip_in_a_tensor_of_official_weights_is_detected(
    refuse_export: Refusal, official: Path, tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    data = bytearray(official.read_bytes())
    at = data.find(weights["out.2.weight"].numpy().tobytes())
    assert at > 0
    data[at] ^= 1
    (tmp_path / "flipped.pt").write_bytes(data)
    assert "damaged, the checksum of official/data/" in refuse_export(tmp_path / "flipped.pt")


@fuzzed
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flip_in_shipped_tensors_is_detected(scratch: Path, position: float, bit: int) -> None:
    data = bytearray(shipped_checkpoint().read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    data[begin + int(position * (len(data) - begin))] ^= 1 << bit
    file = scratch / "flipped.safetensors"
    file.write_bytes(data)
    with pytest.raises(
        CheckpointError,
        match=r"flipped\.safetensors: the weights are not those that were saved \(their sha256 differs\)",
    ):
        load_checkpoint(file)


@fuzzed
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flip_in_the_shipped_header_is_detected_or_harmless(
    scratch: Path, weights: dict[str, Tensor], position: float, bit: int
) -> None:
    data = bytearray(shipped_checkpoint().read_bytes())
    data[int(position * (8 + int.from_bytes(data[:8], "little")))] ^= 1 << bit
    file = scratch / "header.safetensors"
    file.write_bytes(data)
    try:
        loaded = load_checkpoint(file).state_dict
    except CheckpointError as error:
        assert str(file) in str(error)
    else:
        assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(
    refuse_export: Refusal,
    save_pt: Callable[[Any], Path],
    weights: dict[str, Tensor],
    value: float,
) -> None:
    bad = weights["out.2.bias"].clone()
    bad[0] = value
    file = save_pt({**weights, "out.2.bias": bad})
    assert refuse_export(file) == f"{file}: NaN or infinity in 1 tensors (out.2.bias)"


def test_missing_tensor_is_named(
    refuse_export: Refusal, save_pt: Callable[[Any], Path], weights: dict[str, Tensor]
) -> None:
    file = save_pt({name: tensor for name, tensor in weights.items() if name != "time_embed.0.bias"})
    assert refuse_export(file) == f"{file}: the tensors do not fit the network: 1 missing (time_embed.0.bias)"


def test_unexpected_tensor_is_named(
    refuse_export: Refusal, save_pt: Callable[[Any], Path], weights: dict[str, Tensor]
) -> None:
    file = save_pt({**weights, "surplus.weight": torch.zeros(3)})
    assert refuse_export(file) == f"{file}: the tensors do not fit the network: 1 unexpected (surplus.weight)"


def test_tensor_of_the_wrong_shape_is_named(
    refuse_export: Refusal, save_pt: Callable[[Any], Path], weights: dict[str, Tensor]
) -> None:
    file = save_pt({**weights, "time_embed.0.bias": torch.zeros(7)})
    assert refuse_export(file).endswith(
        "do not fit the network: 1 misshapen (time_embed.0.bias [7] instead of [128])"
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"epoch": 3}, " (input_blocks.0.0.weight is not found); its keys are epoch"),
        (
            {"epoch": 3, "model": {f"conv{i}.weight": torch.zeros(1) for i in range(9)}},
            " (input_blocks.0.0.weight is not found); its keys are epoch, model; "
            "those of model are conv0.weight, conv1.weight, conv2.weight, conv3.weight, conv4.weight, "
            "conv5.weight, conv6.weight, conv7.weight, conv8.weight",
        ),
        (
            {"a\n\x1b[31m": torch.zeros(1)},
            r" (input_blocks.0.0.weight is not found); its keys are a\n\x1b[31m",
        ),
        ({}, ", but an empty mapping"),
        ([torch.zeros(1)], ", but a value of type list"),
        (torch.zeros(1), ", but a value of type Tensor"),
        (None, ", but a value of type NoneType"),
    ],
    ids=["counter", "another network", "control characters", "empty", "list", "tensor", "nothing"],
)
def test_torch_file_without_a_network(
    refuse_export: Refusal, save_pt: Callable[[Any], Path], value: Any, problem: str
) -> None:
    file = save_pt(value)
    assert refuse_export(file) == f"{file}: contains no state dict of a BCM{problem}"


def test_network_without_its_last_layer(
    refuse_export: Refusal, save_pt: Callable[[Any], Path], weights: dict[str, Tensor]
) -> None:
    file = save_pt({name: tensor for name, tensor in weights.items() if not name.startswith("out.")})
    assert "not the state dict of a BCM ('out.2.weight' is missing or has the wrong shape" in refuse_export(
        file
    )
