"""bcm-edge triton: what the command writes and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fixture_types import Cli
from plans import with_engine
from refusals import refusal
from results import only_json

from bcm_edge.errors import BcmError
from bcm_edge.export.triton.configs import Serving
from bcm_edge.export.triton.plan import plan_repository
from bcm_edge.runtime.engines.facts import Profile
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle

MOVES = ["bcm_forward", "bcm_inverse"]


@pytest.mark.parametrize(
    ("platform", "fused", "message"),
    [
        ("tensorrt", (), "has no engines of its fp32 graphs; build them with bcm-edge build"),
        ("python", ("one-step",), "played by Triton's ONNX Runtime backend"),
        ("onnxruntime", ("nonesuch",), "no schedule 'nonesuch' in this bundle; it has one-step"),
        ("onnxruntime", ("80>0.002",), "no schedule '80>0.002' in this bundle"),
    ],
)
def test_wrong_platform_or_schedule_is_refused(
    bundle: Bundle, tmp_path: Path, platform: str, fused: tuple[str, ...], message: str
):
    with pytest.raises(BcmError, match=message):
        plan_repository(bundle, tmp_path / "r", platform, None, Serving(), fused, False, False)


@pytest.mark.parametrize(
    ("profiles", "absent"),
    [([(4, 8, 16)], 1), ([(1, 1, 1), (4, 8, 16)], 2), ([(8, 8, 8), (1, 2, 4), (2, 5, 6)], 7)],
)
def test_engines_without_a_profile_for_a_batch_are_refused(
    bundle: Bundle, tmp_path: Path, profiles: list[Profile], absent: int
):
    with_plans = with_engine(bundle, tmp_path / "b", "8.7", *profiles)
    with pytest.raises(BcmError, match=rf"its profiles \(.*\) do not contain a batch of {absent}, which a"):
        plan_repository(with_plans, tmp_path / "r", None, None, Serving(), (), False, False)


def test_engines_with_different_numbers_of_profiles_are_refused(bundle: Bundle, tmp_path: Path):
    with_one = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 16))
    with_plans = with_engine(with_one, tmp_path / "c", "9.0", (1, 1, 1), (2, 4, 16))
    with pytest.raises(BcmError, match="they have different numbers of profiles"):
        plan_repository(with_plans, tmp_path / "r", None, None, Serving(), (), False, False)


@pytest.mark.parametrize("name", ["x/../../escaped", "generate", "inverse", ".hidden", "a b"])
def test_schedule_names_that_cannot_be_model_names_are_refused(bundle: Bundle, tmp_path: Path, name: str):
    named = replace(bundle, manifest=replace(bundle.manifest, schedules={name: "80>0.002"}))
    with pytest.raises(BcmError, match="cannot name a model"):
        plan_repository(named, tmp_path / "r", "onnxruntime", None, Serving(), (name,), False, False)


def test_precision_that_needs_engines_is_refused_without_them(typed_bundle: Path, tmp_path: Path):
    with pytest.raises(BcmError, match="a server without engines cannot play bf16"):
        bundle = open_bundle(typed_bundle)
        plan_repository(bundle, tmp_path / "r", "onnxruntime", "bf16", Serving(), (), False, False)


def test_stripped_plans_are_refused(bundle: Bundle, tmp_path: Path):
    with_plans = with_engine(bundle, tmp_path / "b", "8.7", (1, 4, 6), stripped=True)
    with pytest.raises(BcmError, match="its plans have no weights"):
        plan_repository(with_plans, tmp_path / "r", None, None, Serving(), (), False, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "r", "--trt-cache", "cache"), "'cache' is not an absolute path on the server"),
        (("-o", "r", "--trt-cache", "/cache", "--platform", "python"), "--trt-cache needs graphs that"),
        (("-o", "r", "--backend", "typed"), "'typed' is not one of 'onnxruntime', 'onnxruntime-cuda'"),
        (
            ("-o", "r", "--platform", "tensorrt", "--backend", "onnxruntime-cuda"),
            "with the platform tensorrt, the Python models use the engines; leave out --backend",
        ),
        (("-o", "BUNDLE/models"), "is inside the bundle that it is made from"),
        (("-o", "BUNDLE", "--force"), "is inside the bundle"),
        (("-o", "r", "--schedules", "nonesuch"), "no schedule 'nonesuch' in this bundle"),
    ],
)
def test_wrong_options_are_refused(
    digits_bundle: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("BUNDLE", str(digits_bundle)) for word in arguments]
    result = cli("triton", digits_bundle, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "r").exists()
    assert not (digits_bundle / "models").exists()


def test_command_writes_and_replaces_a_repository(digits_bundle: Path, cli: Cli, tmp_path: Path):
    root = tmp_path / "models"
    options = ("--schedules", "one-step, mixture-4", "--max-batch", 4, "--json")
    result = cli("triton", digits_bundle, "-o", root, *options)
    assert result.exit_code == 0, result.output
    report = only_json(result.stdout)
    assert report == {
        "repository": str(root),
        "platform": "onnxruntime",
        "backend": "onnxruntime",
        "precision": "fp32",
        "models": [
            *("bcm_generate", "bcm_invert", "bcm_reconstruct", "bcm_interpolate", "bcm_inpaint"),
            *MOVES,
            "bcm_one-step",
            "bcm_mixture-4",
        ],
    }
    message = refusal(cli("triton", digits_bundle, "-o", root))
    assert "exists already; --force replaces it" in message
    assert cli("triton", digits_bundle, "-o", root, "--force").exit_code == 0
    assert not (root / "bcm_mixture-4").exists()


def test_force_does_not_replace_a_folder_that_is_not_a_repository(
    digits_bundle: Path, cli: Cli, tmp_path: Path
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    refusal(cli("triton", digits_bundle, "-o", tmp_path / "mine", "--force"))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
