"""The command line where everything goes well: what each command prints, writes and returns."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from agreement import assert_images_agree, assert_pixels_show
from archives import write_npz
from click.testing import Result
from distributions import link
from fixture_types import ROOT
from PIL import Image

import bcm_edge
from bcm_edge.cli import main

COMMANDS = (
    *("export", "calibrate", "build", "triton"),
    *(
        "generate",
        "invert",
        "reconstruct",
        "interpolate",
        "variations",
        "trace",
        "inpaint",
        "colorize",
        "upscale",
        "restore",
        "purify",
    ),
    *("verify", "bench", "inspect", "doctor", "train", "evaluate", "map", "demo", "ui"),
)

Cli = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]
Exported = tuple[Path, "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def images_file(digits_bundle: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six generated digits, labels 0 … 5, seeds 40 … 45."""
    file = tmp_path_factory.mktemp("images") / "six.npz"
    arguments = ("-n", 6, "--label", "all", "--seed", 40, "--schedule", "mixture-4", "-o", file)
    assert cli("generate", digits_bundle, *arguments).exit_code == 0
    return file


def only_json(text: str) -> dict[str, Any]:
    """The one JSON object that a text is: strict, so no NaN and no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def assert_same_results(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """The same seeds and labels, and images that agree."""
    assert set(actual) == set(expected) == {"images", "seeds", "labels"}
    assert_images_agree(actual["images"], expected["images"])
    for name in ("seeds", "labels"):
        np.testing.assert_array_equal(actual[name], expected[name])


def rewrite_golden(bundle: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change golden.npz and make the manifest agree, as someone would who wants to pass for whole."""
    golden = bundle / "golden.npz"
    arrays = arrays_of(golden)
    change(arrays)
    write_npz(golden, arrays)
    data = golden.read_bytes()
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["golden.npz"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_that_parses(cli: Cli, name: str) -> None:
    shown = cli(name, "--help")
    assert shown.exit_code == 0
    example = re.search(rf"Example:  bcm-edge {name} (.+)", shown.stdout, re.DOTALL)
    assert example
    command = main.get_command(click.Context(main), name)
    assert command
    command.make_context(
        name, shlex.split(example[1])
    )  # a click.UsageError if an option is gone or a value not allowed


def test_help_lists_every_command_with_its_line(cli: Cli) -> None:
    shown = cli("--help")
    listed = re.findall(r"^  (\w+)  +\S.*[.]$", shown.stdout, re.MULTILINE)
    assert tuple(listed) == COMMANDS
    assert "0 fine; 1 what was checked failed; 2 usage" in shown.stdout


def test_version_is_the_packages(cli: Cli) -> None:
    assert cli("--version").stdout == f"bcm-edge, version {bcm_edge.__version__}\n"


# Export


def test_export_in_a_checkout_writes_a_whole_bundle(exported: Exported) -> None:
    bundle, ended = exported
    assert ended.returncode == 0
    assert sorted(file.name for file in bundle.iterdir()) == [
        "forward.onnx",
        "golden.npz",
        "inverse.onnx",
        "manifest.json",
        "weights.bin",
    ]
    assert [file.name for file in bundle.parent.iterdir() if file.name.startswith(".")] == []


def test_export_prints_the_bundle_on_stdout_and_progress_on_stderr(exported: Exported) -> None:
    _, ended = exported
    assert ended.stdout == "digits.bundle\n"
    assert "checkpoint: " in ended.stderr
    assert re.search(r"fp32 on onnxruntime against torch: \S+, bound 1e-04: ok \(48 moves in ", ended.stderr)


def test_export_prints_next_commands_that_work(
    exported: Exported, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, ended = exported
    (tmp_path / "digits.bundle").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    lines = ended.stderr.partition("next:\n")[2].splitlines()
    assert [line.split()[1] for line in lines] == ["generate", "inspect", "verify"]
    for line in lines:
        assert cli(*shlex.split(line)[1:]).exit_code == 0, line
    assert (tmp_path / "images.png").is_file()


def test_export_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    told = cli("export", "-o", tmp_path / "sub" / "a.bundle", "--dry-run")
    assert told.exit_code == 0
    assert told.stdout.startswith(
        f"would write {tmp_path}/sub/a.bundle: forward.onnx, inverse.onnx, weights.bin (weights in fp32: 3.0 MB)"
    )
    assert list(tmp_path.iterdir()) == []


def test_export_dry_run_json_tells_the_model(cli: Cli, tmp_path: Path) -> None:
    told = only_json(cli("export", "-o", tmp_path / "a.bundle", "--dry-run", "--json").stdout)
    assert told["dry_run"] is True
    assert told["parameters"] == 759489
    assert told["config"]["image_size"] == 8
    assert len(told["to_verify"]) == 7
    assert told["to_verify"][0] == "80>0.002" and told["to_verify"][-1] == "+0.07 0.07>1.25>80>0.002"


def test_export_no_verify_leaves_out_the_recording(cli: Cli, tmp_path: Path) -> None:
    made = cli("export", "-o", tmp_path / "a.bundle", "--no-verify", "--json")
    assert made.exit_code == 0
    assert only_json(made.stdout)["verification"] == {}
    assert not (tmp_path / "a.bundle" / "golden.npz").exists()
    refused = cli("verify", tmp_path / "a.bundle")
    assert refused.exit_code == 2
    assert "has no golden.npz to verify against" in refused.stderr


# Generate


def test_generate_png_is_a_grid(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    arguments = ("-n", 16, "--schedule", "mixture-4", "--seed", 0, "--label", 3, "-o", tmp_path / "out.png")
    made = cli("generate", digits_bundle, *arguments)
    assert made.exit_code == 0
    assert made.stdout == f"{tmp_path}/out.png\n"
    with Image.open(tmp_path / "out.png") as picture:
        assert (picture.size, picture.mode, picture.format) == ((266, 266), "L", "PNG")  # 4 × (8 · 8 + 2) + 2
        pixels = np.asarray(picture)
    assert (pixels[:2] == 255).all()
    assert pixels[2:66, 2:66].std() > 20
    assert not (pixels[2:66, 2:66] == pixels[2:66, 68:132]).all()


def test_generate_png_of_one_image_has_its_pixels(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    for name in ("one.png", "one.npz"):
        assert cli("generate", digits_bundle, "--label", 3, "-o", tmp_path / name).exit_code == 0
    with Image.open(tmp_path / "one.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (8, 8)
    assert_pixels_show(pixels, arrays_of(tmp_path / "one.npz")["images"][0, 0])


def test_generate_npz_holds_images_seeds_labels(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    assert (
        cli(
            "generate", digits_bundle, "-n", 5, "--seed", 7, "--label", "2,4", "-o", tmp_path / "out.npz"
        ).exit_code
        == 0
    )
    arrays = arrays_of(tmp_path / "out.npz")
    assert set(arrays) == {"images", "seeds", "labels"}
    assert arrays["images"].dtype == np.float32
    assert arrays["images"].shape == (5, 1, 8, 8)
    assert arrays["images"].min() >= -1
    assert arrays["images"].max() <= 1
    assert arrays["seeds"].tolist() == [7, 8, 9, 10, 11]
    assert arrays["labels"].tolist() == [2, 4, 2, 4, 2]


def test_generate_folder_holds_one_picture_per_image(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    for name in ("folder/", "out.npz"):
        assert (
            cli("generate", digits_bundle, "-n", 3, "--label", "all", "-o", f"{tmp_path}/{name}").exit_code
            == 0
        )
    *files, index = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    assert index.read_text() == "file,seeds,labels\n000000.png,0,0\n000001.png,1,1\n000002.png,2,2\n"
    images = arrays_of(tmp_path / "out.npz")["images"]
    for file, image in zip(files, images, strict=True):
        with Image.open(file) as picture:
            assert_pixels_show(picture, image[0])


def test_generate_with_the_same_seed_gives_the_same_images(
    digits_bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        arguments = (
            "-n",
            3,
            "--seed",
            seed,
            "--label",
            3,
            "--schedule",
            "zigzag-3",
            "-o",
            tmp_path / f"{name}.npz",
        )
        assert cli("generate", digits_bundle, *arguments).exit_code == 0
    a, b, c = (arrays_of(tmp_path / f"{name}.npz") for name in "abc")
    assert_same_results(a, b)
    assert np.abs(a["images"] - c["images"]).max() > 0.1
    assert_images_agree(a["images"][1:], c["images"][:2])  # seeds 6 and 7


@pytest.mark.parametrize("batch", [1, 2])
def test_generate_does_not_depend_on_the_batch(
    digits_bundle: Path, cli: Cli, tmp_path: Path, batch: int
) -> None:
    images = []
    for size in (5, batch):
        arguments = (
            "-n",
            5,
            "--label",
            "all",
            "--schedule",
            "mixture-4",
            "--batch",
            size,
            "-o",
            tmp_path / f"{size}.npz",
        )
        assert cli("generate", digits_bundle, *arguments).exit_code == 0
        images.append(arrays_of(tmp_path / f"{size}.npz")["images"])
    assert_images_agree(images[0], images[1])


def test_generate_takes_a_schedule_as_text(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    made = cli(
        "generate",
        digits_bundle,
        "--label",
        3,
        "--schedule",
        "80>5>0.5>0.002",
        "-o",
        tmp_path / "a.npz",
        "--json",
    )
    assert only_json(made.stdout)["nfe"] == 3


# Invert and reconstruct


def test_invert_npz_holds_latents_of_unit_variance(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path
) -> None:
    assert cli("invert", digits_bundle, images_file, "--seed", 9, "-o", tmp_path / "z.npz").exit_code == 0
    arrays = arrays_of(tmp_path / "z.npz")
    assert set(arrays) == {"latents", "seeds", "labels"}
    assert arrays["latents"].dtype == np.float32
    assert arrays["latents"].shape == (6, 1, 8, 8)
    assert 0.7 < arrays["latents"].std() < 1.3
    assert arrays["seeds"].tolist() == [9, 10, 11, 12, 13, 14]
    assert arrays["labels"].tolist() == [0, 1, 2, 3, 4, 5]


def test_invert_then_generate_is_reconstruct(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path
) -> None:
    latents, back, at_once = (tmp_path / name for name in ("z.npz", "back.npz", "reconstructed.npz"))
    assert cli("invert", digits_bundle, images_file, "--seed", 3, "-o", latents).exit_code == 0
    assert cli("generate", digits_bundle, "--latents", latents, "-o", back).exit_code == 0
    assert cli("reconstruct", digits_bundle, images_file, "--seed", 3, "-o", at_once).exit_code == 0
    assert_images_agree(arrays_of(back)["images"], arrays_of(at_once)["images"])
    assert arrays_of(back)["labels"].tolist() == [0, 1, 2, 3, 4, 5]


def test_reconstruct_reports_the_error_of_its_npz(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path
) -> None:
    told = only_json(
        cli("reconstruct", digits_bundle, images_file, "-o", tmp_path / "r.npz", "--json").stdout
    )
    arrays = arrays_of(tmp_path / "r.npz")
    np.testing.assert_array_equal(arrays["originals"], arrays_of(images_file)["images"])
    pixels = [
        np.rint((arrays[name].astype(np.float64) + 1) * 127.5) / 255 for name in ("images", "originals")
    ]
    expected = np.square(pixels[0] - pixels[1]).mean(axis=(1, 2, 3))
    assert told["mse"] == pytest.approx(expected.mean(), rel=1e-6)
    assert told["mse_per_image"] == pytest.approx(expected.tolist(), rel=1e-6)
    assert 0 < told["mse"] < 0.05  # digits in [0, 1]; an unrelated digit is about 0.15 away


def test_reconstruct_shows_pairs_and_a_table(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path
) -> None:
    shown = cli("reconstruct", digits_bundle, images_file, "-o", tmp_path / "pairs.png")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0].split() == ["image", "MSE"]
    assert re.search(r"^mean +0\.\d{5}$", shown.stdout, re.MULTILINE)
    assert len(re.findall(r"^six\[\d\] +0\.\d{5}$", shown.stdout, re.MULTILINE)) == 6
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.size == (4 * 66 + 2, 4 * 66 + 2)  # 4 columns; rows: originals, back, originals, back
        sheet = np.asarray(picture)
    cells = [sheet[2 + 66 * row : 66 + 66 * row : 8, 2:66:8] for row in range(4)]
    images = arrays_of(images_file)["images"]
    for row, index in ((0, 0), (2, 4)):
        assert_pixels_show(cells[row], images[index, 0])
    assert np.abs(cells[1].astype(float) - cells[0]).mean() < np.abs(cells[1].astype(float) - cells[2]).mean()


# Images in


def converted(cli: Cli, bundle: Path, picture: Image.Image, folder: Path, suffix: str = ".png") -> np.ndarray:
    """What the network would get for a picture: float32 [C, H, W]."""
    picture.save(folder / f"in{suffix}")
    made = cli(
        "reconstruct",
        bundle,
        folder / f"in{suffix}",
        "--label",
        3,
        "--backend",
        "null",
        "-o",
        folder / "r.npz",
        "--force",
    )
    assert made.exit_code == 0, made.stderr
    return arrays_of(folder / "r.npz")["originals"][0]


def test_image_of_another_shape_is_cropped_to_its_middle(
    digits_bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    pixels = np.full((8, 20), 255, np.uint8)
    pixels[:, 6:14] = np.arange(64).reshape(8, 8)
    image = converted(cli, digits_bundle, Image.fromarray(pixels), tmp_path)
    np.testing.assert_allclose(image[0], np.arange(64).reshape(8, 8) / 127.5 - 1, atol=1e-6)


def test_image_of_another_size_is_resized_with_antialiasing(
    digits_bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    checkerboard = np.indices((64, 64)).sum(axis=0) % 2 * 255
    image = converted(cli, digits_bundle, Image.fromarray(checkerboard.astype(np.uint8)), tmp_path)
    assert image.shape == (1, 8, 8)
    assert np.abs(image).max() < 0.05  # black and white average to grey; picking pixels would give ±1


def test_colour_image_becomes_grey_for_a_grey_model(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    image = converted(cli, digits_bundle, Image.new("RGB", (8, 8), (255, 0, 0)), tmp_path)
    np.testing.assert_allclose(image, 76 / 127.5 - 1, atol=1e-6)  # 0.299 · 255


def test_grey_image_becomes_colour_for_a_colour_model(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["model"]["sample_shape"] = [3, 8, 8]
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    image = converted(cli, bundle_copy, Image.new("L", (8, 8), 51), tmp_path)
    assert image.shape == (3, 8, 8)
    np.testing.assert_allclose(image, -0.6, atol=1e-6)


def test_transparent_image_lies_over_white(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    image = converted(cli, digits_bundle, Image.new("RGBA", (8, 8), (0, 0, 0, 0)), tmp_path)
    assert (image == 1).all()


def test_sixteen_bit_image_keeps_its_range(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    image = converted(cli, digits_bundle, Image.fromarray(np.full((8, 8), 51 * 257, np.uint16)), tmp_path)
    np.testing.assert_allclose(image, -0.6, atol=1e-6)


def test_folder_of_images_is_read_in_order_of_names(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, grey in (("b.png", 255), ("a.jpg", 0), ("c.bmp", 51)):
        Image.new("L", (8, 8), grey).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    made = cli(
        "reconstruct",
        digits_bundle,
        folder,
        "--label",
        "1,2,3",
        "--backend",
        "null",
        "-o",
        tmp_path / "r.npz",
    )
    assert made.exit_code == 0
    originals = arrays_of(tmp_path / "r.npz")["originals"]
    np.testing.assert_allclose(originals[:, 0, 0, 0], [-1, 1, -0.6], atol=1e-6)


# Verify, inspect, doctor


def test_verify_passes_on_an_exported_bundle(bundle_copy: Path, cli: Cli) -> None:
    told = only_json(cli("verify", bundle_copy, "--json").stdout)
    assert told["ok"] is True
    (fp32,) = told["precisions"]
    assert (fp32["precision"], fp32["backend"], fp32["against"], fp32["bound"]) == (
        "fp32",
        "onnxruntime",
        "torch",
        1e-4,
    )
    assert len(fp32["moves"]) == 48
    assert max(move["relative_l2"] for move in fp32["moves"]) == fp32["needed"] < 1e-4


def test_verify_fails_on_a_recording_that_disagrees(bundle_copy: Path, cli: Cli, process: Process) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["states 80>0.002"] = arrays["states 80>0.002"] + np.float32(0.01)

    rewrite_golden(bundle_copy, change)
    assert cli("inspect", bundle_copy).exit_code == 0  # every hash is right
    ended = process("verify", bundle_copy, "--json")
    assert ended.returncode == 1
    told = only_json(ended.stdout)
    assert told["ok"] is False
    moves = told["precisions"][0]["moves"]
    assert {(move["schedule"], move["move"]) for move in moves if not move["ok"]} == {
        ("80>0.002", "80>0.002")
    }
    shown = cli("verify", bundle_copy)
    assert shown.exit_code == 1
    assert re.search(
        r"fp32 on onnxruntime against torch: \S+, bound 1e-04: FAILED \(45 of 48 moves", shown.stdout
    )
    assert "FAILED" in cli("inspect", bundle_copy).stdout


def test_verify_fails_where_a_bound_is_too_tight(bundle_copy: Path, cli: Cli) -> None:
    assert cli("verify", bundle_copy, "--bound", "1e-12").exit_code == 1


def test_verify_fails_on_a_backend_that_computes_nothing(bundle_copy: Path, cli: Cli) -> None:
    assert cli("verify", bundle_copy, "--backend", "null").exit_code == 1


@pytest.mark.parametrize(("truth", "against"), [("fp32", "fp32"), ("torch", "torch")])
def test_verify_against_another_truth_needs_no_recording(
    bundle_copy: Path, cli: Cli, truth: str, against: str
) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    del manifest["files"]["golden.npz"]
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    assert "has no golden.npz to verify against" in cli("verify", bundle_copy).stderr
    told = only_json(cli("verify", bundle_copy, "--against", truth, "--json").stdout)
    assert told["ok"] is True and told["precisions"][0]["against"] == against


def test_a_verdict_holds_for_the_files_it_is_about_and_no_others(bundle_copy: Path, cli: Cli) -> None:
    assert "fp32 on onnxruntime against torch" in cli("inspect", bundle_copy).stdout
    file = bundle_copy / "forward.onnx"
    file.write_bytes(file.read_bytes() + b"")  # the same bytes: it still holds
    assert "fp32 on onnxruntime against torch" in cli("inspect", bundle_copy).stdout
    proto = onnx.load(file, load_external_data=False)
    proto.doc_string = "another"
    onnx.save(proto, file)
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    content = file.read_bytes()
    manifest["files"]["forward.onnx"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    assert "fp32 on onnxruntime against torch" not in cli("inspect", bundle_copy).stdout


def test_verify_of_a_bundle_that_cannot_be_written_keeps_no_verdict(
    bundle_copy: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("bcm_edge.runtime.storage.rewriting.write_atomically", refuse)
    ended = cli("verify", bundle_copy)
    assert ended.exit_code == 0
    assert (
        "the verdicts are not kept: " in ended.stderr
        and "manifest.json: cannot be written (Permission denied)" in ended.stderr
    )


def test_verify_names_a_precision_that_the_bundle_lacks(bundle_copy: Path, cli: Cli) -> None:
    ended = cli("verify", bundle_copy, "--precision", "int8")
    assert ended.exit_code == 2
    assert "has no int8 graphs (it has fp32); export with --precision fp32,int8" in ended.stderr


def test_inspect_shows_model_schedules_and_files(digits_bundle: Path, cli: Cli) -> None:
    shown = cli("inspect", digits_bundle).stdout
    assert shown.startswith("digits: 1×8×8, 10 classes, 0.76 M parameters\n")
    assert re.search(r"^one-step +1 +80>0\.002 +not measured$", shown, re.MULTILINE)
    assert re.search(r"^weights\.bin +3038020 +[0-9a-f]{12}$", shown, re.MULTILINE)
    told = only_json(cli("inspect", digits_bundle, "--json").stdout)
    assert told["schema"] == 1
    assert told["model"]["sample_shape"] == [1, 8, 8]
    digest = hashlib.sha256((digits_bundle / "weights.bin").read_bytes()).hexdigest()
    assert told["files"]["weights.bin"] == {"size": 3038020, "sha256": digest}


def test_doctor_says_that_bundles_run_here(digits_bundle: Path, cli: Cli) -> None:
    shown = cli("doctor", digits_bundle)
    assert shown.exit_code == 0
    assert "✓ backend onnxruntime: can run bundles\n" in shown.stdout
    assert shown.stdout.endswith("bundles can run here\n")
    assert only_json(cli("doctor", "--json").stdout)["ok"] is True


def test_doctor_fails_on_a_damaged_bundle(bundle_copy: Path, cli: Cli) -> None:
    (bundle_copy / "weights.bin").unlink()
    shown = cli("doctor", bundle_copy)
    assert shown.exit_code == 1
    assert "✗ bundle: " in shown.stdout
    assert "weights.bin is missing" in shown.stdout


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python cli.py …` where only the packages of a plain `pip install bcm-edge` can be imported."""
    site = tmp_path_factory.mktemp("site")
    link(["numpy", "click", "rich", "pillow"], site)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", str(ROOT / "cli.py"), *map(str, arguments)]  # -S: no site-packages
        environment = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def test_doctor_gives_the_fixing_line_where_nothing_runs(bare_python: Process) -> None:
    ended = bare_python("doctor")
    assert ended.returncode == 1, ended.stderr
    assert (
        "✗ backend onnxruntime: onnxruntime is not installed\n    fix: pip install '.[run]'\n" in ended.stdout
    )
    assert "    fix: pip install '.[export]'\n" in ended.stdout
    assert ended.stdout.endswith("bundles cannot run here yet\n")


def test_generate_runs_without_any_extra(bare_python: Process, digits_bundle: Path, tmp_path: Path) -> None:
    ended = bare_python(
        "generate", digits_bundle, "--label", 3, "--backend", "null", "-o", tmp_path / "a.png"
    )
    assert ended.returncode == 0, ended.stderr
    refused = bare_python("generate", digits_bundle, "--label", 3, "-o", tmp_path / "b.png")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: no backend can run fp32 here; onnxruntime: onnxruntime is not installed; pip install '.[run]'; "
        "openvino: openvino is not installed; pip install '.[openvino]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "extra"), [(("export",), "export"), (("train", "--data", "digits"), "train")]
)
def test_command_without_its_extra_says_what_to_install(
    bare_python: Process, tmp_path: Path, arguments: tuple[str, ...], extra: str
) -> None:
    ended = bare_python(*arguments, "-o", tmp_path / "out")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: this command needs torch, ")
    assert ended.stderr.endswith(f"; pip install '.[{extra}]'\n")
    assert ended.stderr.count("\n") == 1


# Train and demo


@pytest.mark.slow
def test_train_writes_a_checkpoint_that_exports(cli: Cli, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(8) % 2)
    arguments = ("--steps", 2, "--batch", 2, "--channels", 8, "--intervals", 10)
    trained = cli(
        "train", "--data", tmp_path / "data.npz", *arguments, "-o", tmp_path / "two.safetensors", "--json"
    )
    assert trained.exit_code == 0, trained.stderr
    checkpoint = str(tmp_path / "two.safetensors")
    assert only_json(trained.stdout) == {
        "checkpoint": checkpoint,
        "samples": str(tmp_path / "two.png"),
        "steps": 2,
    }
    with Image.open(tmp_path / "two.png") as picture:
        assert picture.format == "PNG"
    told = only_json(cli("export", checkpoint, "-o", tmp_path / "two.bundle", "--dry-run", "--json").stdout)
    assert told["config"]["num_classes"] == 2


@pytest.mark.slow
def test_demo_writes_a_folder_to_look_at(cli: Cli, tmp_path: Path) -> None:
    shown = cli("demo", "-o", tmp_path / "demo", "--json")
    assert shown.exit_code == 0, shown.stderr
    told = only_json(shown.stdout)
    assert told["output"] == str(tmp_path / "demo")
    names = {
        "digits.bundle",
        "generated.png",
        "reconstructed.png",
        "latents.npz",
        "table.txt",
        "filled.png",
        "restored.png",
        "way.gif",
    }
    names |= {"digits.npz", "damaged.npz", "small.npz", "three.png", "five.png", "hole.png"}
    assert names <= {path.name for path in (tmp_path / "demo").iterdir()}
    assert (tmp_path / "demo" / "table.txt").read_text().splitlines()[0].split() == [
        *("what", "NFE", "seconds", "per", "image", "reconstruction", "MSE")
    ]
    assert cli("verify", tmp_path / "demo" / "digits.bundle").exit_code == 0


# Streams and exit codes


def test_generate_splits_result_and_progress(digits_bundle: Path, process: Process, tmp_path: Path) -> None:
    ended = process("generate", digits_bundle, "-n", 2, "--label", 3, "-o", "out.npz", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "out.npz\n")
    assert re.fullmatch(
        r"2 images in \d+\.\d\d s \(80>0\.002, 1 NFE each\) in fp32 on onnxruntime: CPU, \d+ threads\n",
        ended.stderr,
    )


@pytest.mark.parametrize("command", ["generate", "invert", "reconstruct"])
def test_json_is_the_only_thing_on_stdout(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path, command: str
) -> None:
    inputs = ("-n", 2, "--label", 3) if command == "generate" else (images_file,)
    ended = cli(command, digits_bundle, *inputs, "-o", tmp_path / "out.npz", "--json")
    assert ended.exit_code == 0
    assert ended.stdout.count("\n") == 1
    told = only_json(ended.stdout)
    assert told["output"] == str(tmp_path / "out.npz")
    assert told["images"] == (2 if command == "generate" else 6)
    assert told["nfe"] == {"generate": 1, "invert": 2, "reconstruct": 3}[command]


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("generate",),
        ("generate", "x", "-n", "0", "-o", "y"),
        ("invert", "x", "-o", "y"),
        ("export", "--opset", "17"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_usage_error_exits_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    ended = cli(*arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "Usage: " in ended.stderr


def test_unusable_input_exits_with_2_and_one_line(process: Process, tmp_path: Path) -> None:
    ended = process("generate", "nowhere.bundle", "-o", "a.png", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr
        == "error: nowhere.bundle: not a bundle (no such folder); make a bundle with: bcm-edge export -o nowhere.bundle\n"
    )


# The cache


def test_two_processes_with_an_empty_cache_both_succeed(digits_bundle: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "BCM_EDGE_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(ROOT / "cli.py"), "generate", str(digits_bundle), "--label", "3", "-o"]
    running = [
        subprocess.Popen(
            [*command, str(tmp_path / f"{i}.npz")], env=environment, stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    for one in running:
        _, errors = one.communicate(timeout=120)
        assert one.returncode == 0, errors
    assert_same_results(arrays_of(tmp_path / "0.npz"), arrays_of(tmp_path / "1.npz"))
    assert len(list((tmp_path / "cache" / "onnxruntime").iterdir())) == 1  # one entry, nothing left over


def test_damaged_cache_entry_is_made_again(
    digits_bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "cache"))
    assert cli("generate", digits_bundle, "-n", 2, "--label", 3, "-o", tmp_path / "before.npz").exit_code == 0
    (weights,) = (tmp_path / "cache" / "onnxruntime").glob("*/forward/optimised.bin")
    good = weights.read_bytes()
    with weights.open("r+b") as file:
        file.seek(len(good) // 2)
        file.write(bytes(byte ^ 0x7F for byte in good[len(good) // 2 :][:4096]))
    assert cli("generate", digits_bundle, "-n", 2, "--label", 3, "-o", tmp_path / "after.npz").exit_code == 0
    assert_same_results(arrays_of(tmp_path / "before.npz"), arrays_of(tmp_path / "after.npz"))
    assert weights.read_bytes() == good


def test_cache_that_cannot_be_written_changes_no_picture(
    digits_bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("generate", digits_bundle, "--label", 3, "-o", tmp_path / "a.npz").exit_code == 0
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert cli("generate", digits_bundle, "--label", 3, "-o", tmp_path / "b.npz").exit_code == 0
    assert_same_results(arrays_of(tmp_path / "a.npz"), arrays_of(tmp_path / "b.npz"))
