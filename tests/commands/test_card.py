"""bcm-edge card: a model card for a hub, with metadata and pictures, in the folder of a bundle."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fixture_types import Cli
from grid_pixels import enlarged, find
from networks import TINY, random_model
from PIL import Image
from refusals import edit_manifest, refusal

import bcm_edge
from bcm_edge.commands.card_metadata import Measured, front_matter
from bcm_edge.commands.evaluate_page import provenance_line
from bcm_edge.model.checkpoint import save_checkpoint
from bcm_edge.runtime.storage.bundle import open_bundle

CARD_FILES = {"README.md", "samples.png", "reconstructions.png"}
EVALUATION: dict[str, Any] = {
    "facts": {
        "Bundle": {"model": "digits: 1×8×8, 10 classes, 759,489 parameters", "played": "in fp32 on a CPU"},
        "Data": {"held-out images": "360 of digits (test)", "features": "a small classifier"},
    },
    "generation": [
        {"family": "BCM", "name": "mixture-4", "program": "80>0.4>0.002 +0.1 0.1>1.2>0.002", "nfe": 4}
        | {"ratio": 1.3257, "agreement": 0.981},
        {"family": "Heun", "name": "Heun 18", "program": "18 steps", "nfe": 35, "ratio": 1.1, "agreement": 1},
    ],
    "inversion": [
        {
            "line": "BCM, one-step back",
            "name": "invert-2, one-step",
            "program": "+0.07 0.07>1.25>80 then 80>0.002",
        }
        | {"nfe": 3, "mse": 0.003012, "psnr": 26.1, "ssim": 0.95},
        {
            "line": "BCM, one-step back",
            "name": "3 moves, levels inserted, one-step",
            "program": "+0.07 0.07>1>9>80",
        }
        | {"nfe": 4, "mse": 0.002, "psnr": 27.0, "ssim": 0.96},
    ],
}


@pytest.fixture(scope="module")
def carded(digits_bundle: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with a card, without its measurements. Tests only read it."""
    bundle = shutil.copytree(digits_bundle, tmp_path_factory.mktemp("card") / "digits.bundle")
    edit_manifest(bundle, lambda manifest: manifest.update(quality={}))
    result = cli("card", bundle, "--license", "MIT")
    assert result.exit_code == 0, result.output
    return bundle


def parts(bundle: Path) -> tuple[dict[str, Any], str]:
    """The metadata of a card, as YAML reads them, and its text."""
    start, front, text = (bundle / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), text


def write_evaluation(file: Path, bundle: Path, values: dict[str, Any], **changes: str) -> None:
    """Write an evaluation of a bundle's model, with changed facts about it."""
    checkpoint = provenance_line(open_bundle(bundle).manifest.provenance["checkpoint"])
    facts = {**values["facts"]["Bundle"], "checkpoint": checkpoint, **changes}
    file.write_text(json.dumps({**values, "facts": {**values["facts"], "Bundle": facts}}))


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))


def test_metadata_without_measurements(carded: Path) -> None:
    metadata, text = parts(carded)
    assert metadata == {
        "license": "mit",
        "library_name": "bcm-edge",
        "pipeline_tag": "unconditional-image-generation",
        "tags": [
            *("bidirectional-consistency-model", "consistency-model", "onnx"),
            *("image-generation", "image-inversion"),
        ],
    }
    assert "No measurement of quality is recorded." in text


def test_text_has_the_facts_of_the_manifest(carded: Path) -> None:
    _, text = parts(carded)
    for line in (
        "# digits",
        "| images | 8×8 pixels, greyscale |",
        "| classes | 10, without names |",
        "| parameters | 759,489 |",
        "| trained on | digits (train) |",
        "| `invert-2` | inversion | `+0.07 0.07>1.25>80` | 2 |",
        "hf download OWNER/REPOSITORY --local-dir digits.bundle",
    ):
        assert line in text.splitlines()
    (verdict,) = [line for line in text.splitlines() if line.startswith("| fp32 | 3.1 MB |")]
    assert verdict.startswith("| fp32 | 3.1 MB | onnxruntime against torch | ")
    assert verdict.endswith(" | 1e-04 | passed |")


def test_commands_of_the_card_run(
    carded: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.bundle").symlink_to(carded)
    _, text = parts(carded)
    (command,) = [line for line in text.splitlines() if line.startswith("bcm-edge generate")]
    assert cli(*command.split()[1:]).exit_code == 0
    namespace: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], namespace)
    assert namespace["images"].shape == (16, 1, 8, 8)


def test_pictures_show_samples_and_reconstructions(carded: Path) -> None:
    samples, reconstructions = (pixels(carded / name) for name in ("samples.png", "reconstructions.png"))
    assert samples.shape[0] > 5 * 128 and samples.shape[1] > 10 * 128
    assert reconstructions.shape[0] > 2 * 128 and reconstructions.shape[1] > 10 * 128
    with bcm_edge.load(carded) as bcm:
        images = bcm.generate(10, schedule="mixture-4", labels="all")
        again = bcm.reconstruct(images, labels="all")
    for sheet, image in ((samples, images[9]), (reconstructions, images[0]), (reconstructions, again[0])):
        find(enlarged(image, 16), sheet[None], tolerance=1)


def test_bundle_is_as_before(carded: Path, digits_bundle: Path, cli: Cli) -> None:
    assert {file.name for file in carded.iterdir()} - {
        file.name for file in digits_bundle.iterdir()
    } == CARD_FILES
    assert open_bundle(carded).manifest == replace(open_bundle(digits_bundle).manifest, quality={})
    assert cli("verify", carded, "--precision", "fp32").exit_code == 0


def test_evaluation_becomes_metrics(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    write_evaluation(tmp_path / "evaluation.json", bundle_copy, EVALUATION)
    result = cli("card", bundle_copy, "--license", "mit", "--evaluation", tmp_path / "evaluation.json")
    assert result.exit_code == 0, result.output
    metadata, text = parts(bundle_copy)
    data = {"type": "digits-test", "name": "digits (test)"}
    assert metadata["model-index"] == [
        {
            "name": "digits",
            "results": [
                {
                    "task": {
                        "type": "unconditional-image-generation",
                        "name": "generation: mixture-4, 4 network calls",
                    },
                    "dataset": data,
                    "metrics": [
                        {"type": "frechet-ratio", "name": "Fréchet ratio", "value": 1.326},
                        {"type": "label-agreement", "name": "label agreement", "value": 0.981},
                    ],
                },
                {
                    "task": {
                        "type": "image-to-image",
                        "name": "inversion and reconstruction: invert-2, one-step, 3 network calls",
                    },
                    "dataset": data,
                    "metrics": [
                        {"type": "mse", "name": "reconstruction MSE", "value": 0.003012},
                        {"type": "psnr", "name": "PSNR in dB", "value": 26.1},
                        {"type": "ssim", "name": "SSIM", "value": 0.95},
                    ],
                },
            ],
        }
    ]
    assert "| mixture-4 | `80>0.4>0.002 +0.1 0.1>1.2>0.002` | 4 | 1.326 | 0.981 |\n" in text
    assert "Heun" not in text
    assert "- played: in fp32 on a CPU\n- held-out images: 360 of digits (test)" in text


def test_measurements_of_the_bundle_become_metrics(bundle_copy: Path, cli: Cli) -> None:
    facts = {"data": "digits (validation)", "images": 180}
    quality = {
        "ancestral-2": {"frechet_ratio": 1.44, "samples": 1257, **facts},
        "invert-1": {"reconstruction_mse": 0.0037, **facts},
    }
    edit_manifest(bundle_copy, lambda manifest: manifest.update(quality=quality))
    assert cli("card", bundle_copy, "--license", "mit").exit_code == 0
    metadata, text = parts(bundle_copy)
    results = metadata["model-index"][0]["results"]
    assert [result["metrics"][0]["value"] for result in results] == [1.44, 0.0037]
    assert {result["dataset"]["name"] for result in results} == {"digits (validation)"}
    assert "| invert-1, one-step | `+0.07 0.07>80 then 80>0.002` | 2 | 0.0037 |\n" in text
    data = "180 images of digits (validation)"
    assert f"- generation: 1257 generated images, compared with {data}\n- inversion: {data}\n" in text


def test_model_of_colour_images_without_classes(cli: Cli, tmp_path: Path) -> None:
    """Its weights are random. Its name contains what YAML and tables treat specially."""
    checkpoint, bundle = tmp_path / "a: #1 | yes.safetensors", tmp_path / "rgb.bundle"
    config = replace(TINY, num_classes=None)
    save_checkpoint(checkpoint, random_model(config).network.state_dict(), config, {}, {})
    assert cli("export", checkpoint, "-o", bundle, "--no-verify").exit_code == 0
    facts = {"data": "no: data # | yes", "frechet_ratio": 2.5}
    edit_manifest(bundle, lambda manifest: manifest.update(quality={"mixture-4": facts}))
    result = cli("card", bundle, "--license", "other", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["files"] == ["README.md", "samples.png", "reconstructions.png"]
    metadata, text = parts(bundle)
    (index,) = metadata["model-index"]
    assert index["name"] == "a: #1 | yes"
    assert index["results"][0]["dataset"] == {"type": "no-data-yes", "name": "no: data # | yes"}
    assert "| checkpoint | a: #1 \\| yes.safetensors |" in text
    assert "- Not verified: the graphs in fp32." in text
    assert "- The training data are not recorded in the bundle." in text
    assert "label" not in text.partition("## Model")[0]
    assert pixels(bundle / "samples.png").shape[2] == 3


def test_images_of_a_folder_are_reconstructed_with_its_labels(
    bundle_copy: Path, cli: Cli, tmp_path: Path
) -> None:
    made = ("generate", bundle_copy, "-n", 4, "--label", "3,8", "-o", tmp_path / "digits.npz")
    assert cli(*made).exit_code == 0
    images = tmp_path / "digits.npz"
    assert cli("card", bundle_copy, "--license", "mit", "--images", images).exit_code == 0
    picture = pixels(bundle_copy / "reconstructions.png")
    find(enlarged(np.load(images)["images"][0], 16), picture[None])
    assert "*Above: images. Below: the same after inversion" in parts(bundle_copy)[1]


def test_files_are_not_replaced_without_force(bundle_copy: Path, cli: Cli) -> None:
    (bundle_copy / "README.md").write_text("mine")
    command = ("card", bundle_copy, "--license", "mit")
    assert refusal(cli(*command)) == f"{bundle_copy}/README.md exists already; --force replaces it"
    assert not (bundle_copy / "samples.png").exists()
    assert cli(*command, "--force").exit_code == 0
    assert "# digits" in (bundle_copy / "README.md").read_text()


def test_bundles_that_are_not_changed_are_refused(
    digits_bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "digits.bcm"
    assert cli("pack", digits_bundle, "-o", packed).exit_code == 0
    assert refusal(cli("card", packed, "--license", "mit")).startswith(
        f"{packed}: a packed bundle is not changed"
    )
    monkeypatch.chdir(tmp_path)
    assert refusal(cli("card", "digits", "--license", "mit")).startswith("digits is a model in the package")


@pytest.mark.parametrize("licence", ["", "MIT License", "mit\ntags: []"])
def test_licence_that_is_no_name(digits_bundle: Path, cli: Cli, licence: str) -> None:
    message = refusal(cli("card", digits_bundle, "--license", licence))
    assert message.endswith("is not the name of a licence; give one such as mit or cc-by-4.0")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"facts": {"Bundle": {"model": "x"}}}'])
def test_evaluation_that_is_none(bundle_copy: Path, cli: Cli, tmp_path: Path, content: str) -> None:
    (tmp_path / "e.json").write_text(content)
    message = refusal(cli("card", bundle_copy, "--license", "mit", "--evaluation", tmp_path / "e.json"))
    assert message.startswith(f"--evaluation: {tmp_path}/e.json: not the output of an evaluation (")
    assert "bcm-edge evaluate BUNDLE --data DATA -o report.html --json > evaluation.json" in message
    assert not CARD_FILES & {file.name for file in bundle_copy.iterdir()}


@pytest.mark.parametrize(
    "facts",
    [
        {"model": "mnist: 1×28×28, 10 classes, 1,706,241 parameters"},
        {"checkpoint": "name digits.safetensors"},
    ],
    ids=["model", "weights"],
)
def test_evaluation_of_another_model(
    bundle_copy: Path, cli: Cli, tmp_path: Path, facts: dict[str, str]
) -> None:
    write_evaluation(tmp_path / "e.json", bundle_copy, EVALUATION, **facts)
    message = refusal(cli("card", bundle_copy, "--license", "mit", "--evaluation", tmp_path / "e.json"))
    assert message.startswith(f"--evaluation: {tmp_path}/e.json: measures another model (")
    assert next(iter(facts.values())) in message


@pytest.mark.parametrize(
    "name", ["a: b", "no", "1e3", "'x", "- a", "#", "日本", "a\u0085b", "a\u2028", "\ud800", "\U000f0000"]
)
@pytest.mark.parametrize("value", [5e-05, 1e-20, 2e20, 0.0, float("inf")])
def test_metadata_of_odd_names_and_small_numbers(digits_bundle: Path, name: str, value: float):
    measured = Measured("inversion", name, "+0.07 0.07>80", 1, name, {"mse": value})
    text = front_matter(open_bundle(digits_bundle).manifest, "mit", [measured]).encode().decode()
    (result,) = yaml.safe_load(text.strip("-"))["model-index"][0]["results"]
    assert result["dataset"]["name"] == name
    assert result["metrics"] == [{"type": "mse", "name": "reconstruction MSE", "value": value}]


def test_commands_of_a_card_quote_the_name(bundle_copy: Path, cli: Cli):
    def rename(manifest: dict[str, Any]) -> None:
        manifest["model"] |= {"name": "my 'best' model", "classes": ["<b>", "a|b", *"23456789"]}
        manifest["quality"] = {}

    edit_manifest(bundle_copy, rename)
    bundle = bundle_copy.rename(bundle_copy.parent / "copy")
    assert cli("card", bundle, "--license", "mit").exit_code == 0
    page = (bundle / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^bcm-edge generate .*", page, re.MULTILINE)
    assert shlex.split(command)[2] == "my 'best' model.bundle"
    assert """with bcm_edge.load("my 'best' model.bundle") as bcm:""" in page
    assert "| classes | 10: &lt;b>, a\\|b, 2" in page


def test_images_that_cannot_be_read_leave_no_pictures(bundle_copy: Path, cli: Cli):
    message = refusal(cli("card", bundle_copy, "--license", "mit", "--images", bundle_copy / "never.png"))
    assert message.endswith("never.png: cannot be read (No such file or directory)")
    assert not CARD_FILES & {file.name for file in bundle_copy.iterdir()}
