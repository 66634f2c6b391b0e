"""bcm-edge calibrate: int8 graphs and searched schedules are added to a bundle, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Cli
from refusals import refusal
from results import only_json

from bcm_edge.calibration.ranges import read_calibration
from bcm_edge.errors import OutputError
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.storage.rewriting import amending, update_manifest


@pytest.mark.slow
def test_calibrate_adds_int8_to_a_bundle(bundle_copy: Path, tmp_path: Path, cli: Cli):
    untouched = {p.name: p.read_bytes() for p in bundle_copy.iterdir() if p.name != "manifest.json"}
    options = ("--data", "digits", "--size", 32, "--picture", tmp_path / "ranges.png", "--json")
    result = cli("calibrate", bundle_copy, *options)
    assert result.exit_code == 0, result.output
    report = only_json(result.stdout)
    assert (report["source"], report["images"]) == ("digits (train)", 32)
    bundle = open_bundle(bundle_copy)
    assert bundle.precisions == ["fp32", "int8"]
    assert {(v.precision, v.ok) for v in bundle.verdicts()} == {("fp32", True), ("int8", True)}
    assert read_calibration(bundle_copy / "calibration.json").kept == report["kept"]
    assert {name: (bundle_copy / name).read_bytes() for name in untouched} == untouched
    assert (tmp_path / "ranges.png").read_bytes().startswith(b"\x89PNG")
    assert not list(bundle_copy.parent.glob(".*"))  # no temporary files are left

    again = cli("calibrate", bundle_copy, "--calibration", bundle_copy / "calibration.json", "--json")
    assert again.exit_code == 0, again.output
    assert only_json(again.stdout)["kept"] == report["kept"]


def test_int8_beyond_the_bound_is_written_only_with_allow_inaccurate(
    bundle_copy: Path, typed_bundle: Path, cli: Cli, tmp_path: Path
):
    before = {p.name: p.read_bytes() for p in bundle_copy.iterdir()}
    everything = replace(read_calibration(typed_bundle / "calibration.json"), kept=[])
    (tmp_path / "all.json").write_text(everything.to_json())
    result = cli("calibrate", bundle_copy, "--calibration", tmp_path / "all.json")
    assert result.exit_code == 1
    assert "error: int8 on" in result.stderr
    assert "the bound of 6e-02." in result.stderr
    assert {p.name: p.read_bytes() for p in bundle_copy.iterdir()} == before

    options = ("--calibration", tmp_path / "all.json", "--allow-inaccurate")
    assert cli("calibrate", bundle_copy, *options).exit_code == 0
    (verdict,) = [v for v in open_bundle(bundle_copy).verdicts() if v.precision == "int8"]
    assert not verdict.ok
    assert verdict.needed is not None and 0.06 < verdict.needed < 0.5
    assert "FAILED" in cli("inspect", bundle_copy).stdout


@pytest.mark.slow
def test_bound_that_no_layer_meets_is_refused_with_the_errors(bundle_copy: Path, cli: Cli):
    result = cli("calibrate", bundle_copy, "--data", "digits", "--size", 32, "--bound", 1e-6, "-v")
    assert result.exit_code == 1
    assert "int8 everywhere: relative L2 " in result.stderr
    assert "27 of 27): relative L2 " in result.stderr
    assert "no layer can be computed in 8 bits within the bound of 1.0e-06 relative L2" in result.stderr
    assert open_bundle(bundle_copy).precisions == ["fp32"]


def test_bundle_that_another_command_changed_is_not_overwritten(bundle_copy: Path, typed_bundle: Path):
    opened = open_bundle(bundle_copy)
    manifest = (typed_bundle / "manifest.json").read_text()
    (bundle_copy / "manifest.json").write_text(manifest)  # as another command would do
    with pytest.raises(OutputError, match="another command changed the files"):
        update_manifest(opened, lambda m: m)
    with pytest.raises(OutputError, match="another command changed the files"), amending(opened) as folder:
        (folder / "manifest.json").write_text("{}")
    assert (bundle_copy / "manifest.json").read_text() == manifest


def test_link_to_a_bundle_is_followed(bundle_copy: Path, tmp_path: Path):
    link = tmp_path / "link.bundle"
    link.symlink_to(bundle_copy)
    with amending(open_bundle(link)) as folder:
        (folder / "manifest.json").write_text((bundle_copy / "manifest.json").read_text())
        (folder / "note.txt").write_text("new")
    assert link.is_symlink()
    assert (bundle_copy / "note.txt").read_text() == "new"
    assert open_bundle(link).precisions == ["fp32"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "digits", "--calibration", "x.json"), "--data and --calibration cannot be combined"),
        (("--search-schedule", 2, "--data", "digits", "--allow-inaccurate"), "are options for int8"),
        (("--data", "digits", "--size", 31), "31 images are too few"),
        (("--data", "digits", "--size", 5000), "has 1257 images, but 5000 are requested for calibration"),
        (("--data", "nowhere.npz"), "nowhere.npz"),
        (("--calibration", "nowhere.json"), "nowhere.json: not a calibration file"),
        (("--search-schedule", 2), "--search-schedule needs real images to measure on"),
        (("--search-schedule", 5, "--data", "digits"), "5 is not in the range"),
    ],
)
def test_wrong_options_are_refused(digits_bundle: Path, cli: Cli, options: tuple[object, ...], message: str):
    result = cli("calibrate", digits_bundle, *options)
    assert result.exit_code == 2
    assert message in result.output


def test_images_of_another_size_are_refused(digits_bundle: Path, tmp_path: Path, cli: Cli):
    np.savez(tmp_path / "x.npz", images=np.zeros((40, 1, 16, 16), np.uint8), labels=np.arange(40) % 10)
    message = refusal(cli("calibrate", digits_bundle, "--data", tmp_path / "x.npz"))
    assert "images of 1 × 16 × 16; the model takes 1 × 8 × 8" in message


def test_schedule_search_needs_32_held_out_images(bundle_copy: Path, tmp_path: Path, cli: Cli):
    np.savez(tmp_path / "few.npz", images=np.zeros((100, 1, 8, 8), np.uint8), labels=np.arange(100) % 10)
    before = (bundle_copy / "manifest.json").read_bytes()
    options = ("--search-schedule", 2, "--data", tmp_path / "few.npz")
    message = refusal(cli("calibrate", bundle_copy, *options))
    assert "only 20 images are held out; schedules are measured on at least 32" in message
    assert (bundle_copy / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_schedule_search_writes_schedule_and_quality_into_the_bundle(
    bundle_copy: Path, tmp_path: Path, cli: Cli
):
    options = ("--search-schedule", 1, "--data", "digits", "--picture", tmp_path / "p.png", "--json")
    result = cli("calibrate", bundle_copy, *options)
    assert result.exit_code == 0, result.output
    report = only_json(result.stdout)
    assert report["schedules"] == {"invert-1": "+0.07 0.07>80"}
    assert report["quality"]["invert-1"]["reconstruction_mse"] == pytest.approx(0.00436, abs=1e-4)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    bundle = open_bundle(bundle_copy)
    assert bundle.manifest.quality["invert-1"] == report["quality"]["invert-1"]
    assert set(bundle.manifest.quality) == set(bundle.manifest.schedules)
    assert "MSE 0.0043" in cli("inspect", bundle_copy).stdout
    assert len(bundle.verdicts()) == 1  # a search changes no graph, so the verdict of fp32 is still there
