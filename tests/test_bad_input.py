"""What cannot be used gets one clear line, exit code 2, and nothing is lost: no half output, no old output gone."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from bcm_edge.errors import BundleError, CheckpointError, OutputError
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from bcm_edge.runtime.bundle import open_bundle
from bcm_edge.runtime.images import save_images

ROOT = Path(__file__).resolve().parent.parent
BUNDLE_FILES = ("forward.onnx", "golden.npz", "inverse.onnx", "weights.bin")
DIGITS_FIELDS = {"image_size": 8, "num_head_channels": 32, "norm_groups": 8}  # what the digits' tensors do not tell

Cli = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]

fuzzed = settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def refusal(ended: Result, lines: int = 1) -> str:
    """The message of a command that refused its input: exit code 2, nothing on stdout, one line at the end of stderr."""
    assert ended.exit_code == 2
    assert ended.stdout == ""
    message = ended.stderr.rpartition("error: ")[2]
    assert message != ended.stderr
    assert message.count("\n") == lines
    return message.rstrip("\n")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """The shipped model's tensors, float32."""
    return load_checkpoint(shipped_checkpoint()).state_dict


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def fields_file(scratch: Path) -> Path:
    (scratch / "fields.json").write_text(json.dumps(DIGITS_FIELDS))
    return scratch / "fields.json"


@pytest.fixture(scope="module")
def official(scratch: Path, weights: dict[str, Tensor]) -> Path:
    """The digits model as the authors' trainer saves one: an OrderedDict of float32 tensors that require gradients."""
    torch.save(OrderedDict((name, tensor.clone().requires_grad_()) for name, tensor in weights.items()), scratch / "official.pt")
    return scratch / "official.pt"


@pytest.fixture
def save_pt(tmp_path: Path) -> Callable[[Any], Path]:
    def save(value: Any) -> Path:
        torch.save(value, tmp_path / "weights.pt")
        return tmp_path / "weights.pt"

    return save


@pytest.fixture
def refuse_export(cli: Cli, tmp_path: Path, fields_file: Path) -> Callable[..., str]:
    """The message with which `export CHECKPOINT` refuses; afterwards no bundle is there, and no part of one."""

    def run(checkpoint: Path, *options: object) -> str:
        message = refusal(cli("export", checkpoint, *(options or ("--config", fields_file)), "-o", tmp_path / "out" / "x.bundle"))
        assert not (tmp_path / "out").exists()
        return message

    return run


# Checkpoints


def test_official_pt_file_is_read(cli: Cli, official: Path, fields_file: Path, tmp_path: Path) -> None:
    told = cli("export", official, "--config", fields_file, "--dry-run", "--json", "-o", tmp_path / "x.bundle")
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["parameters"] == 759489


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a checkpoint (neither safetensors nor a torch file)"),
        (b"hello, world\n", "not a checkpoint (neither safetensors nor a torch file)"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not a checkpoint (neither safetensors nor a torch file)"),
        (b"cposix\nsystem\n(S'touch x'\ntR.", "not a checkpoint (neither safetensors nor a torch file)"),
        (b"PK\x03\x04 and no archive", "damaged, truncated or not a torch checkpoint (File is not a zip file)"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "damaged or truncated safetensors ("),
        (b"\x80\x02}q\x00.", "damaged, truncated or not a torch checkpoint (Invalid magic number; corrupt file?)"),
    ],
    ids=["empty", "text", "picture", "text-pickle", "zip-head", "safetensors-head", "pickled-dict"],
)
def test_file_that_is_no_checkpoint(refuse_export: Callable[..., str], tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    assert refuse_export(tmp_path / "weights.pt").startswith(f"{tmp_path}/weights.pt: {problem}")


@pytest.mark.parametrize("content", [b"\x80", b"\x80\x02"])
def test_bare_pickle_cut_off_at_its_head(refuse_export: Callable[..., str], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    assert refuse_export(tmp_path / "weights.pt").startswith(f"{tmp_path}/weights.pt: damaged, truncated or not a torch checkpoint")


def test_checkpoint_that_is_not_there(refuse_export: Callable[..., str], tmp_path: Path) -> None:
    assert refuse_export(tmp_path / "no.pt") == f"{tmp_path}/no.pt: cannot be read (No such file or directory)"


def test_checkpoint_that_is_a_folder(refuse_export: Callable[..., str], tmp_path: Path) -> None:
    assert refuse_export(tmp_path) == f"{tmp_path}: cannot be read (Is a directory)"


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("form", ["zip", "legacy", "bare", "beside weights"])
def test_pickle_with_code_is_never_executed(
    refuse_export: Callable[..., str], tmp_path: Path, weights: dict[str, Tensor], form: str
) -> None:
    target, file = tmp_path / "executed", tmp_path / "evil.pt"
    payload = {**weights, "payload": Payload(target)} if form == "beside weights" else {"payload": Payload(target)}
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
    assert target.exists()  # the payload does work where it is let in


def test_pickle_with_code_is_refused_as_such(refuse_export: Callable[..., str], tmp_path: Path) -> None:
    torch.save({"payload": Payload(tmp_path / "executed")}, tmp_path / "evil.pt")
    expected = "refused, because it holds more than tensors (nothing in it was executed). Save the state dict alone."
    assert refuse_export(tmp_path / "evil.pt") == f"{tmp_path}/evil.pt: {expected}"


@pytest.mark.parametrize("part", [0.001, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_truncated_weights(refuse_export: Callable[..., str], official: Path, tmp_path: Path, kind: str, part: float) -> None:
    data = {"pt": official, "safetensors": shipped_checkpoint()}[kind].read_bytes()
    file = tmp_path / f"cut.{kind}"
    file.write_bytes(data[: int(part * len(data))])
    message = refuse_export(file)
    assert message.startswith(f"{file}: damaged")
    assert "truncated" in message


@fuzzed
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flip_in_official_weights_is_found_or_harmless(
    official: Path, scratch: Path, weights: dict[str, Tensor], position: float, bit: int
) -> None:
    data = bytearray(official.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    file = scratch / "flipped.pt"
    file.write_bytes(data)
    try:
        read = load_checkpoint(file, DIGITS_FIELDS).state_dict
    except CheckpointError as error:
        assert str(error).startswith(f"{file}: ")
    else:  # padding between the records of the archive
        assert all(torch.equal(read[name], tensor) for name, tensor in weights.items())


def test_bit_flip_in_a_tensor_of_official_weights_is_found(
    refuse_export: Callable[..., str], official: Path, tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    data = bytearray(official.read_bytes())
    at = data.find(weights["out.2.weight"].numpy().tobytes())
    assert at > 0
    data[at] ^= 1
    (tmp_path / "flipped.pt").write_bytes(data)
    assert "damaged, the checksum of official/data/" in refuse_export(tmp_path / "flipped.pt")


@fuzzed
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flip_in_our_tensors_is_found(scratch: Path, position: float, bit: int) -> None:
    data = bytearray(shipped_checkpoint().read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    data[begin + int(position * (len(data) - begin))] ^= 1 << bit
    file = scratch / "flipped.safetensors"
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"flipped\.safetensors: the weights are not those that were saved \(their hash differs\)"):
        load_checkpoint(file)


@fuzzed
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flip_in_our_header_is_found_or_leaves_the_weights(
    scratch: Path, weights: dict[str, Tensor], position: float, bit: int
) -> None:
    data = bytearray(shipped_checkpoint().read_bytes())
    data[int(position * (8 + int.from_bytes(data[:8], "little")))] ^= 1 << bit
    file = scratch / "header.safetensors"
    file.write_bytes(data)
    try:
        read = load_checkpoint(file).state_dict
    except CheckpointError as error:
        assert str(file) in str(error) or str(error).startswith("this network cannot be built: ")
    else:
        assert all(torch.equal(read[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(
    refuse_export: Callable[..., str], save_pt: Callable[[Any], Path], weights: dict[str, Tensor], value: float
) -> None:
    bad = weights["out.2.bias"].clone()
    bad[0] = value
    file = save_pt({**weights, "out.2.bias": bad})
    assert refuse_export(file) == f"{file}: NaN or infinity in 1 tensors (out.2.bias)"


def test_missing_tensor_is_named(refuse_export: Callable[..., str], save_pt: Callable[[Any], Path], weights: dict[str, Tensor]) -> None:
    file = save_pt({name: tensor for name, tensor in weights.items() if name != "time_embed.0.bias"})
    assert refuse_export(file) == f"{file}: the tensors do not fit the network: 1 missing (time_embed.0.bias)"


def test_unexpected_tensor_is_named(refuse_export: Callable[..., str], save_pt: Callable[[Any], Path], weights: dict[str, Tensor]) -> None:
    file = save_pt({**weights, "surplus.weight": torch.zeros(3)})
    assert refuse_export(file) == f"{file}: the tensors do not fit the network: 1 unexpected (surplus.weight)"


def test_misshapen_tensor_is_named(refuse_export: Callable[..., str], save_pt: Callable[[Any], Path], weights: dict[str, Tensor]) -> None:
    file = save_pt({**weights, "time_embed.0.bias": torch.zeros(7)})
    assert refuse_export(file).endswith("do not fit the network: 1 misshapen (time_embed.0.bias [7] instead of [128])")


@pytest.mark.parametrize("value", [{"epoch": 3}, {"model": {"a": torch.zeros(1)}}, {}, [torch.zeros(1)]], ids=repr)
def test_torch_file_that_is_no_state_dict(refuse_export: Callable[..., str], save_pt: Callable[[Any], Path], value: Any) -> None:
    file = save_pt(value)
    assert refuse_export(file) == f"{file}: not a state dict; expected a mapping of names to tensors"


def test_state_dict_of_another_network(refuse_export: Callable[..., str], save_pt: Callable[[Any], Path]) -> None:
    message = refuse_export(save_pt({"conv1.weight": torch.zeros(4, 3, 3, 3), "conv1.bias": torch.zeros(4)}))
    assert "not the state dict of a BCM ('input_blocks.0.0.weight' not found or misshapen; it begins with conv1.weight" in message


# Configuration


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"num_classes": 11}, "the tensors say num_classes = 10, the configuration says 11"),
        ({"channel_mult": [1, 3]}, "the tensors say channel_mult = (1, 2), the configuration says (1, 3)"),
        ({"num_res_blocks": 2}, "the tensors say num_res_blocks = 1, the configuration says 2"),
        ({"colour": "red"}, "unknown field 'colour'; the fields are attention_resolutions, "),
        ({"image_size": 7}, "image_size 7 cannot be halved 1 times"),
        ({"image_size": "8"}, "image_size must be a positive integer, not '8'"),
        ({"norm_groups": 7}, "32 channels at level 0 do not divide into 7 groups"),
    ],
    ids=["classes", "channel_mult", "depth", "unknown", "odd", "text", "groups"],
)
def test_config_that_the_tensors_contradict(
    refuse_export: Callable[..., str], official: Path, tmp_path: Path, fields: dict[str, Any], problem: str
) -> None:
    (tmp_path / "c.json").write_text(json.dumps({**DIGITS_FIELDS, **fields}))
    assert problem in refuse_export(official, "--config", tmp_path / "c.json")


def test_config_that_contradicts_the_header_of_our_file(refuse_export: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"num_classes": 3}')
    message = refuse_export(shipped_checkpoint(), "--config", tmp_path / "c.json")
    assert message.endswith("the tensors say num_classes = 10, the configuration says 3")


@pytest.mark.parametrize(("content", "problem"), [("{", "not JSON ("), ("[1]", "not a JSON object of configuration fields")])
def test_config_file_that_is_no_object(
    refuse_export: Callable[..., str], official: Path, tmp_path: Path, content: str, problem: str
) -> None:
    (tmp_path / "c.json").write_text(content)
    assert refuse_export(official, "--config", tmp_path / "c.json").startswith(f"{tmp_path}/c.json: {problem}")


def test_config_file_that_is_not_there(refuse_export: Callable[..., str], official: Path) -> None:
    assert refuse_export(official, "--config", "no.json") == "no.json: cannot be read (No such file or directory)"


def test_preset_unknown(refuse_export: Callable[..., str], official: Path) -> None:
    assert refuse_export(official, "--preset", "imagenet128") == "no preset 'imagenet128'; there is imagenet64"


def test_config_missing_says_what_to_pass(refuse_export: Callable[..., str], official: Path) -> None:
    assert refuse_export(official, "--opset", 18) == (
        f"{official}: its tensors do not tell image_size and num_head_channels; "
        "pass --preset imagenet64, or --config FILE.json with these fields"
    )


# Bundles


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def rename_in_manifest(name: str) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop("golden.npz")

    return change


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_bundle_with_a_missing_file(bundle_copy: Path, cli: Cli, name: str) -> None:
    (bundle_copy / name).unlink()
    assert refusal(cli("inspect", bundle_copy)) == f"{bundle_copy}: {name} is missing; export the bundle again or copy it whole"


@pytest.mark.parametrize("command", ["generate", "invert", "reconstruct", "verify", "inspect"])
def test_bundle_with_a_renamed_file_is_refused_by_every_command(bundle_copy: Path, cli: Cli, tmp_path: Path, command: str) -> None:
    (bundle_copy / "inverse.onnx").rename(bundle_copy / "Inverse.onnx")
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    inputs = {"generate": (), "invert": (tmp_path / "in.png",), "reconstruct": (tmp_path / "in.png",)}.get(command)
    more = () if inputs is None else (*inputs, "--label", 3, "-o", tmp_path / "out.npz")
    assert refusal(cli(command, bundle_copy, *more)).startswith(f"{bundle_copy}: inverse.onnx is missing")
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_bundle_with_a_file_that_grew(bundle_copy: Path, cli: Cli, name: str) -> None:
    with (bundle_copy / name).open("ab") as file:
        file.write(b"x")
    message = refusal(cli("inspect", bundle_copy))
    assert message.startswith(f"{bundle_copy}: {name} has ")
    assert message.endswith("it was changed or cut off")


@fuzzed
@given(name=st.sampled_from(BUNDLE_FILES), position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_flipped_byte_in_any_file_names_the_file(digits_bundle: Path, scratch: Path, name: str, position: float, flip: int) -> None:
    bundle = shutil.copytree(digits_bundle, scratch / "flipped.bundle", dirs_exist_ok=True)
    data = bytearray((bundle / name).read_bytes())
    data[int(position * len(data))] ^= flip
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"flipped\.bundle: {name} is not the file that was exported"):
        open_bundle(bundle)


@fuzzed
@given(name=st.sampled_from(BUNDLE_FILES), part=st.floats(0, 1, exclude_max=True))
def test_truncated_file_of_a_bundle_names_the_file(digits_bundle: Path, scratch: Path, name: str, part: float) -> None:
    bundle = shutil.copytree(digits_bundle, scratch / "cut.bundle", dirs_exist_ok=True)
    size = (bundle / name).stat().st_size
    os.truncate(bundle / name, int(part * size))
    with pytest.raises(BundleError, match=rf"cut\.bundle: {name} has {int(part * size)} bytes, the manifest says {size}"):
        open_bundle(bundle)


@fuzzed
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_flipped_byte_in_the_manifest_is_refused_or_harmless(digits_bundle: Path, scratch: Path, position: float, flip: int) -> None:
    bundle = scratch / "manifest.bundle"
    if not bundle.exists():
        shutil.copytree(digits_bundle, bundle)
    data = bytearray((digits_bundle / "manifest.json").read_bytes())
    data[int(position * len(data))] ^= flip
    (bundle / "manifest.json").write_bytes(data)
    try:
        opened = open_bundle(bundle)
    except BundleError as error:
        assert str(error).startswith(str(bundle))
    else:  # a character of a name, a schedule or the provenance
        assert set(opened.manifest.files) == set(BUNDLE_FILES)


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_bundle_file_that_is_a_link_out_of_it(bundle_copy: Path, cli: Cli, tmp_path: Path, name: str) -> None:
    (bundle_copy / name).rename(tmp_path / "outside")
    (bundle_copy / name).symlink_to(tmp_path / "outside")
    assert refusal(cli("inspect", bundle_copy)) == f"{bundle_copy}: {name} is a link out of the bundle"


def test_bundle_manifest_that_is_a_link(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    (bundle_copy / "manifest.json").rename(tmp_path / "outside.json")
    (bundle_copy / "manifest.json").symlink_to(tmp_path / "outside.json")
    assert refusal(cli("inspect", bundle_copy)) == f"{bundle_copy}: not a bundle, it has no manifest.json"


def test_bundle_file_below_a_folder_that_is_a_link_out(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (bundle_copy / "golden.npz").rename(tmp_path / "outside" / "golden.npz")
    (bundle_copy / "sub").symlink_to(tmp_path / "outside")
    edit_manifest(bundle_copy, rename_in_manifest("sub/golden.npz"))
    assert refusal(cli("inspect", bundle_copy)) == f"{bundle_copy}: sub/golden.npz is a link out of the bundle"


@pytest.mark.parametrize("name", ["../golden.npz", "sub/../../golden.npz", "/etc/hostname", "..\\golden.npz", "C:golden.npz", ".", ""])
def test_bundle_path_that_leaves_it(bundle_copy: Path, cli: Cli, name: str) -> None:
    shutil.copy(bundle_copy / "golden.npz", bundle_copy.parent / "golden.npz")
    edit_manifest(bundle_copy, rename_in_manifest(name))
    assert refusal(cli("inspect", bundle_copy)) == f"{bundle_copy}: the manifest names {name!r}, which is not a path inside the bundle"


def test_bundle_of_a_newer_schema(bundle_copy: Path, cli: Cli) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest.update(schema=2, model="of another shape"))
    expected = "made by a newer bcm-edge (bundle schema 2, this one reads up to 1); upgrade bcm-edge"
    assert refusal(cli("inspect", bundle_copy)) == f"{bundle_copy}: {expected}"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"schema": 0}', b'{"schema": "1"}', b"\xff\xfe", b"[" * 100_000],
    ids=lambda content: repr(content[:16]),
)
def test_bundle_manifest_that_is_not_valid(bundle_copy: Path, cli: Cli, content: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(content)
    assert refusal(cli("inspect", bundle_copy)).startswith(f"{bundle_copy}/manifest.json: not a valid manifest (")


@pytest.mark.parametrize("field", ["model", "graphs", "schedules", "files", "provenance"])
def test_bundle_manifest_without_a_field(bundle_copy: Path, cli: Cli, field: str) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest.pop(field))
    assert refusal(cli("inspect", bundle_copy)) == f"{bundle_copy}/manifest.json: not a valid manifest (KeyError: '{field}')"


@pytest.mark.parametrize("shape", [[1, 8], [1, 8, None], [1, 8, float("inf")], "8x8", {}])
def test_bundle_manifest_with_a_shape_that_is_none(bundle_copy: Path, cli: Cli, shape: Any) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest["model"].update(sample_shape=shape))
    assert refusal(cli("inspect", bundle_copy)).startswith(f"{bundle_copy}/manifest.json: not a valid manifest (")


def test_bundle_with_a_schedule_that_cannot_be_played(bundle_copy: Path, cli: Cli) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest["schedules"].update(mine="80>90"))
    message = refusal(cli("inspect", bundle_copy), lines=3)
    assert "not a valid manifest (ScheduleError: schedule: level 90 is outside [0.002, 80] (column 4)" in message


def test_bundle_that_is_not_one(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    advice = "make one with: bcm-edge export -o"
    assert refusal(cli("inspect", tmp_path / "file")) == f"{tmp_path}/file: not a bundle (a file); {advice} {tmp_path}/file"
    assert refusal(cli("inspect", tmp_path / "no")) == f"{tmp_path}/no: not a bundle (nothing there); {advice} {tmp_path}/no"
    assert refusal(cli("inspect", tmp_path / "empty")) == f"{tmp_path}/empty: not a bundle, it has no manifest.json"


def test_network_that_gives_nan_makes_no_image(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    data = np.full((bundle_copy / "weights.bin").stat().st_size // 4, np.nan, "<f4").tobytes()
    (bundle_copy / "weights.bin").write_bytes(data)
    facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(bundle_copy, lambda manifest: manifest["files"].update({"weights.bin": facts}))
    ended = cli("generate", bundle_copy, "--label", 3, "--schedule", "80>2.4>0.002", "-o", tmp_path / "a.png")
    assert ended.exit_code == 1
    assert ended.stderr == (
        "error: move 1 of 2 (80>2.4) on backend onnxruntime gave NaN or infinity (first in sample 0); no image was made\n"
    )
    assert not (tmp_path / "a.png").exists()


# Schedules and labels


@pytest.fixture
def refuse_generate(cli: Cli, digits_bundle: Path, tmp_path: Path) -> Callable[..., str]:
    """The message with which `generate` refuses its options; afterwards no picture is there."""

    def run(*options: object, lines: int = 1) -> str:
        message = refusal(cli("generate", digits_bundle, "--backend", "null", *options, "-o", tmp_path / "refused.png"), lines)
        assert [file.name for file in tmp_path.iterdir() if "refused" in file.name] == []
        return message

    return run


def test_schedule_unknown(refuse_generate: Callable[..., str]) -> None:
    assert refuse_generate("--label", 3, "--schedule", "mixture-5") == (
        "no schedule 'mixture-5' in this bundle; it has one-step, ancestral-2, zigzag-3, mixture-4, invert-1, invert-2, "
        "or write one in quotes, as in '80>2.4>0.002'"
    )


@pytest.mark.parametrize(
    ("text", "problem", "column"),
    [
        ("80>100>0.002", "level 100 is outside [0.002, 80]", 4),
        ("80>0.001", "level 0.001 is outside [0.002, 80]", 4),
        ("81>0.002", "level 81 is outside [0.002, 80]", 1),
        ("80>-1", "level -1 is outside [0.002, 80]", 4),
        ("80>nan", "level nan is outside [0.002, 80]", 4),
        ("80>inf>0.002", "level inf is outside [0.002, 80]", 4),
        ("80>2.4>2.4>0.002", "a move from 2.4 to itself does nothing", 8),
        ("80>80.0", "a move from 80 to itself does nothing", 4),
        ("80>two", "'two' is not a noise level", 4),
        ("80>>0.002", "a noise level is missing", 4),
        ("80>0.002 +nan 0.1>0.002", "level nan is outside [0.002, 80]", 11),
        ("80>0.002 0.1>0.002", "the program stands at level 0.002 here, so the next move starts there", 10),
        ("80>0.002 +0.1", "noise is added, but no move follows", 14),
    ],
)
def test_schedule_that_cannot_be_played_points_at_its_column(
    refuse_generate: Callable[..., str], text: str, problem: str, column: int
) -> None:
    message = refuse_generate("--label", 3, "--schedule", text, lines=3)
    assert message == f"schedule: {problem} (column {column})\n  {text}\n  {' ' * (column - 1)}^"


def test_schedule_that_starts_from_an_image_cannot_generate(refuse_generate: Callable[..., str]) -> None:
    message = refuse_generate("--label", 3, "--schedule", "+0.07 0.07>1>80")
    assert message == "schedule '+0.07 0.07>1>80' starts from an image, so it cannot generate"


def test_schedule_that_does_not_end_in_noise_cannot_invert(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    ended = cli("invert", digits_bundle, tmp_path / "in.png", "--label", 3, "--schedule", "+0.07 0.07>15", "-o", tmp_path / "z.npz")
    assert refusal(ended).startswith("schedule '+0.07 0.07>15' does not invert: an inversion adds noise to an image and ends at 80")
    assert not (tmp_path / "z.npz").exists()


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("10", "label 10 is out of range; this model has classes 0 to 9"),
        ("-1", "label -1 is out of range; this model has classes 0 to 9"),
        ("0,99", "label 99 is out of range; this model has classes 0 to 9"),
        ("three", "--label 'three' is not a label, a list such as 0,1,2, or all"),
        ("3,", "--label '3,' is not a label, a list such as 0,1,2, or all"),
        ("1.5", "--label '1.5' is not a label, a list such as 0,1,2, or all"),
    ],
)
def test_label_that_the_model_does_not_have(refuse_generate: Callable[..., str], label: str, problem: str) -> None:
    assert refuse_generate("-n", 2, "--label", label) == problem


def test_label_missing(refuse_generate: Callable[..., str]) -> None:
    assert refuse_generate() == "this model is class-conditional: give labels from 0 to 9 (--label on the command line)"


@pytest.mark.parametrize("label", ["0", "all"])
def test_label_for_a_model_without_classes(bundle_copy: Path, cli: Cli, tmp_path: Path, label: str) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest["model"].update(num_classes=None))
    ended = cli("generate", bundle_copy, "--backend", "null", "--label", label, "-o", tmp_path / "a.png")
    assert refusal(ended) == "this model has no classes, so it takes no labels"


def test_seed_beyond_64_bits(refuse_generate: Callable[..., str]) -> None:
    assert refuse_generate("--label", 3, "--seed", 2**64) == "seeds must lie in [0, 2**64)"


def test_seed_of_64_bits(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    arguments = ("--backend", "null", "--label", 3, "--seed", 2**64 - 1, "-o", tmp_path / "a.npz")
    assert cli("generate", digits_bundle, *arguments).exit_code == 0
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["seeds"].tolist() == [2**64 - 1]


def test_backend_unknown(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    ended = cli("generate", digits_bundle, "--backend", "abacus", "--label", 3, "-o", tmp_path / "a.png")
    assert refusal(ended).startswith("unknown backend 'abacus'; there are auto, ")


# Images and latents


@pytest.fixture
def refuse_invert(cli: Cli, digits_bundle: Path, tmp_path: Path) -> Callable[..., str]:
    def run(*images: Path) -> str:
        message = refusal(cli("invert", digits_bundle, *images, "--backend", "null", "--label", 3, "-o", tmp_path / "refused.npz"))
        assert [file.name for file in tmp_path.iterdir() if "refused" in file.name] == []
        return message

    return run


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_image_that_cannot_be_read(refuse_invert: Callable[..., str], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    assert refuse_invert(tmp_path / "bad.png").startswith(f"{tmp_path}/bad.png: not a readable image (")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
def test_image_that_is_cut_off(refuse_invert: Callable[..., str], tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(file)
    os.truncate(file, file.stat().st_size // 2)
    assert refuse_invert(file).startswith(f"{file}: not a readable image (")


def test_one_bad_image_among_good_ones_is_named(refuse_invert: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    (folder / "b.png").write_text("not a picture")
    assert refuse_invert(folder).startswith(f"{folder}/b.png: not a readable image (")


def test_image_that_is_not_there(refuse_invert: Callable[..., str], tmp_path: Path) -> None:
    assert refuse_invert(tmp_path / "no.png").startswith(f"{tmp_path}/no.png: not a readable image (")


def test_folder_without_images(refuse_invert: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    assert refuse_invert(folder).startswith(f"{folder}: no images in this folder (looked for .png, .jpg, ")


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"pictures": np.zeros((1, 1, 8, 8), np.float32)}, "has no array `images` (it has pictures)"),
        ({"images": np.zeros((2, 3, 8, 8), np.float32)}, "images has shape [2, 3, 8, 8], the model takes [N, 1, 8, 8]"),
        ({"images": np.zeros((0, 1, 8, 8), np.float32)}, "images has shape [0, 1, 8, 8]; expected N pictures"),
        ({"images": np.full((1, 1, 8, 8), np.nan, np.float32)}, "images must be uint8, or floats in [-1, 1]"),
        ({"images": np.full((1, 1, 8, 8), 255, np.float32)}, "images must be uint8, or floats in [-1, 1]"),
        ({"images": np.zeros((1, 1, 8, 8), np.int64)}, "images must be uint8, or floats in [-1, 1]"),
        ({"images": np.zeros((1, 1, 8, 8), np.uint8), "labels": np.zeros(2, int)}, "labels must be 1 integers, one per image"),
    ],
    ids=["no-images", "shape", "none", "nan", "range", "kind", "labels"],
)
def test_npz_whose_images_do_not_fit(
    refuse_invert: Callable[..., str], tmp_path: Path, arrays: dict[str, np.ndarray], problem: str
) -> None:
    np.savez(tmp_path / "in.npz", **arrays)
    assert refuse_invert(tmp_path / "in.npz") == f"{tmp_path}/in.npz: {problem}"


def test_npz_with_code_is_never_executed(refuse_invert: Callable[..., str], tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", images=np.array([Payload(tmp_path / "executed")], dtype=object))
    assert refuse_invert(tmp_path / "in.npz").startswith(f"{tmp_path}/in.npz: not a readable npz file of arrays (")
    assert not (tmp_path / "executed").exists()


def test_npy_file_named_npz(refuse_invert: Callable[..., str], tmp_path: Path) -> None:
    with (tmp_path / "in.npz").open("wb") as file:
        np.save(file, np.zeros((1, 1, 8, 8), np.float32))
    assert refuse_invert(tmp_path / "in.npz").startswith(f"{tmp_path}/in.npz: not a readable npz file of arrays (")


def test_npz_damaged_anywhere_is_refused_or_harmless(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 3, (2, 1, 8, 8), dtype=np.uint8)
    np.savez_compressed(tmp_path / "good.npz", images=pictures)
    good = (tmp_path / "good.npz").read_bytes()
    refused = 0
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 0x21
        (tmp_path / "in.npz").write_bytes(bad)
        arguments = ("--backend", "null", "--label", 3, "-o", tmp_path / "z.npz", "--force")
        ended = cli("invert", digits_bundle, tmp_path / "in.npz", *arguments)
        if ended.exit_code:
            assert refusal(ended).startswith(f"{tmp_path}/in.npz: ")
            refused += 1
    assert refused > len(good) / 2


@pytest.mark.parametrize(
    ("latents", "problem"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), "latents have shape [1, 3, 8, 8], the model takes [N, 1, 8, 8]"),
        (np.float32(1), "latents have shape [1], the model takes [N, 1, 8, 8]"),
        (np.zeros((1, 1, 8, 8), np.int64), "latents must be finite floats, not int64"),
        (np.full((1, 1, 8, 8), np.inf, np.float32), "latents must be finite floats, not float32 with NaN or infinity"),
    ],
    ids=["shape", "number", "kind", "infinity"],
)
def test_latents_that_do_not_fit(refuse_generate: Callable[..., str], tmp_path: Path, latents: np.ndarray, problem: str) -> None:
    np.savez(tmp_path / "z.npz", latents=latents)
    assert refuse_generate("--label", 3, "--latents", tmp_path / "z.npz") == problem


def test_latents_of_another_number(refuse_generate: Callable[..., str], tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", latents=np.zeros((2, 1, 8, 8), np.float32))
    message = refuse_generate("--label", 3, "--latents", tmp_path / "z.npz", "-n", 3)
    assert message == f"{tmp_path}/z.npz has 2 latents, but -n asks for 3 images"


def test_latents_file_without_latents(refuse_generate: Callable[..., str], tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", images=np.zeros((2, 1, 8, 8), np.float32))
    message = refuse_generate("--label", 3, "--latents", tmp_path / "z.npz")
    assert message == f"{tmp_path}/z.npz: has no array `latents` (it has images)"


# Outputs


@pytest.mark.parametrize("name", ["out.png", "out.npz", "folder"])
def test_generate_onto_an_output_that_exists(cli: Cli, digits_bundle: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    if name == "folder":
        output.mkdir()
        (output / "images.csv").write_text("file\n")  # as a folder that was written here has it
    kept = output / "000000.png" if name == "folder" else output
    kept.write_text("mine")
    arguments = ("generate", digits_bundle, "-n", 2, "--label", 3, "-o", output)
    assert refusal(cli(*arguments)) == f"{output} exists already; --force replaces it"
    assert kept.read_text() == "mine"
    assert cli(*arguments, "--force").exit_code == 0
    assert kept.read_bytes()[:2] == {"out.png": b"\x89P", "out.npz": b"PK", "folder": b"\x89P"}[name]
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("command", [("generate", "-n", 2, "--label", 3), ("export",), ("demo",)], ids=lambda c: c[0])
def test_force_does_not_replace_a_folder_of_the_users_own(cli: Cli, digits_bundle: Path, tmp_path: Path, command: tuple[Any, ...]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "000000.png").write_text("mine")
    bundle = (digits_bundle,) if command[0] == "generate" else ()
    message = refusal(cli(command[0], *bundle, *command[1:], "-o", tmp_path / "photos", "--force"))
    assert message == f"{tmp_path}/photos is a folder with other files in it, which --force does not replace; choose another name"
    assert (tmp_path / "photos" / "000000.png").read_text() == "mine"


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    ).stdout.strip()
    leftover = tmp_path / f".out.png.partial-{platform.node()}-{dead}"
    elsewhere = tmp_path / f".out.png.partial-another-machine-{dead}"
    alive = tmp_path / f".out.png.partial-{platform.node()}-{os.getppid()}"
    for file in (leftover, elsewhere, alive):
        file.write_text("part")
    save_images(np.zeros((1, 1, 8, 8), np.float32), tmp_path / "out.png")
    assert not leftover.exists() and elsewhere.exists() and alive.exists()


@pytest.mark.parametrize("command", ["invert", "reconstruct"])
def test_invert_and_reconstruct_onto_an_output_that_exists(cli: Cli, digits_bundle: Path, tmp_path: Path, command: str) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    (tmp_path / "out.npz").write_text("mine")
    arguments = (command, digits_bundle, tmp_path / "in.png", "--label", 3, "-o", tmp_path / "out.npz")
    assert refusal(cli(*arguments)) == f"{tmp_path}/out.npz exists already; --force replaces it"
    assert (tmp_path / "out.npz").read_text() == "mine"
    assert cli(*arguments, "--force").exit_code == 0
    assert (tmp_path / "out.npz").read_bytes()[:2] == b"PK"


def test_export_onto_a_bundle_that_exists(cli: Cli, bundle_copy: Path) -> None:
    before = (bundle_copy / "manifest.json").read_bytes()
    assert refusal(cli("export", "-o", bundle_copy)) == f"{bundle_copy} exists already; --force replaces it"
    assert (bundle_copy / "manifest.json").read_bytes() == before
    assert cli("export", "-o", bundle_copy, "--no-verify", "--force").exit_code == 0
    assert not (bundle_copy / "golden.npz").exists()
    assert [file.name for file in bundle_copy.parent.iterdir()] == ["copy.bundle"]


@pytest.mark.parametrize("command", [("demo",), ("train", "--data", "digits")], ids=["demo", "train"])
def test_demo_and_train_onto_an_output_that_exists(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "out").write_text("mine")
    assert refusal(cli(*command, "-o", tmp_path / "out")) == f"{tmp_path}/out exists already; --force replaces it"
    assert (tmp_path / "out").read_text() == "mine"


def test_output_below_a_file(refuse_generate: Callable[..., str], cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    ended = cli("generate", digits_bundle, "--backend", "null", "--label", 3, "-o", tmp_path / "file" / "a.png")
    assert refusal(ended).startswith(f"{tmp_path}/file/a.png: cannot be written (")
    assert (tmp_path / "file").read_text() == "mine"


def test_output_of_a_kind_that_cannot_be_written(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    ended = cli("generate", digits_bundle, "--backend", "null", "--label", 3, "-o", tmp_path / "a.mp4")
    assert refusal(ended).startswith(f"{tmp_path}/a.mp4: cannot write .mp4 files; use .npz, .png, ")
    assert list(tmp_path.iterdir()) == []


def test_latents_are_written_as_npz_only(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    ended = cli("invert", digits_bundle, tmp_path / "in.png", "--label", 3, "-o", tmp_path / "z.png")
    assert refusal(ended) == f"{tmp_path}/z.png: latents are written as .npz"


# Disk full, and kill -9


def no_room() -> None:
    """In a child: a write beyond 64 kB fails, as on a full disk, instead of killing the process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))


def on_a_full_disk(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(command, preexec_fn=no_room, capture_output=True, text=True, timeout=300, check=False)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def test_export_on_a_full_disk_leaves_the_old_bundle(bundle_copy: Path) -> None:
    before = contents(bundle_copy.parent)
    ended = on_a_full_disk("export", "-o", bundle_copy, "--force")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1] == f"error: {bundle_copy}: cannot be written (File too large)"
    assert contents(bundle_copy.parent) == before


@pytest.mark.parametrize("name", ["out.npz", "out.bmp"])
def test_generate_on_a_full_disk_leaves_the_old_file(digits_bundle: Path, cache: Path, cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    arguments = ("-n", 300, "--backend", "null", "--label", 3, "-o", tmp_path / name)
    ended = on_a_full_disk("generate", digits_bundle, *arguments, "--force")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {tmp_path}/{name}: cannot be written (File too large)\n"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "mine"}


def test_checkpoint_on_a_full_disk_leaves_the_old_file(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    file = tmp_path / "w.safetensors"
    file.write_text("mine")
    config = load_checkpoint(shipped_checkpoint()).config
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    try:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, limits[1]))
        with pytest.raises(OutputError, match=r"w\.safetensors: cannot be written \(File too large\)"):
            save_checkpoint(file, weights, config, {}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {left.name: left.read_text() for left in tmp_path.iterdir()} == {"w.safetensors": "mine"}


@pytest.mark.parametrize("old", [False, True], ids=["new", "over-an-old-one"])
def test_kill_in_the_middle_of_an_export(digits_bundle: Path, tmp_path: Path, cli: Cli, old: bool) -> None:
    output = tmp_path / "digits.bundle"
    if old:
        shutil.copytree(digits_bundle, output)
    before = contents(output)
    command = [sys.executable, str(ROOT / "cli.py"), "export", "-o", str(output), "--force"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (partials := list(tmp_path.glob(".digits.bundle.partial-*/forward.onnx"))) and time.monotonic() < deadline:
            assert running.poll() is None, "the export ended before it could be killed"
            time.sleep(0.002)
    finally:
        running.kill()
    assert running.wait(timeout=60) == -signal.SIGKILL
    assert len(partials) == 1
    assert contents(output) == before
    if old:
        assert cli("inspect", output).exit_code == 0
    else:
        assert not output.exists()


def test_export_after_a_kill_works(tmp_path: Path, cli: Cli) -> None:
    leftover = tmp_path / f".digits.bundle.partial-{platform.node()}-{os.getpid()}"  # of a killed process that had our number
    leftover.mkdir()
    (leftover / "weights.bin").write_text("half")
    ended = cli("export", "-o", tmp_path / "digits.bundle", "--no-verify")
    assert ended.exit_code == 0, ended.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["digits.bundle"]
