"""The shipped models, opened by their names from the bundles in the package."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree
from fixture_types import Cli
from refusals import refusal

import bcm_edge
from bcm_edge.errors import BundleError, OutputError
from bcm_edge.runtime.pixels import from_uint8
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.storage.rewriting import amending, update_manifest
from bcm_edge.runtime.storage.shipped import SHIPPED, shipped_bundle, shipped_drawings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """The inode, size and time of every file in a folder."""
    stats = {file.name: file.stat() for file in folder.iterdir()}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("emoji", (3, 32, 32), ("fluent", "noto", "twemoji")),
        ("digits", (1, 8, 8), None),
        ("mnist", (1, 28, 28), None),
    ],
)
def test_name_opens_the_model(name: str, shape: tuple[int, int, int], classes: tuple[str, ...] | None):
    for path in (name, Path(name)):
        with bcm_edge.load(path) as bcm:
            assert bcm.bundle.path == shipped_bundle(name)
            assert bcm.bundle.manifest.model.name == name
            assert bcm.bundle.precisions == ["fp32"]
            assert (bcm.sample_shape, bcm.classes) == (shape, classes)
            assert bcm.num_classes == (10 if classes is None else 3)
    assert set(SHIPPED) == {"emoji", "digits", "mnist"}


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_model_makes_the_digits_of_its_labels(name: str):
    """The model recognises its own images, also through both graphs."""
    with bcm_edge.load(name) as bcm:
        images = bcm.generate(20, labels=np.arange(20) % 10, schedule="mixture-4")
        assert np.isfinite(images).all() and images.std() > 0.5
        assert (bcm.guess_labels(images) == np.arange(20) % 10).mean() >= 0.8
        again = bcm.reconstruct(images, labels=np.arange(20) % 10)
        assert np.mean((again - images) ** 2) < 0.1 * images.var()


def test_emoji_are_in_colour_on_white_and_come_back_from_their_noise():
    with bcm_edge.load("emoji") as bcm, np.load(shipped_drawings()) as drawings:
        images = bcm.generate(9, labels="all", schedule="mixture-4")
        assert np.isfinite(images).all()
        assert images[:, :, 0, 0].mean() > 0.8  # a corner is white
        assert np.ptp(images, axis=1).mean() > 0.1  # channels differ
        noto = from_uint8(drawings["images"][8:16])
        again = bcm.reconstruct(noto, labels="noto")
        assert np.mean((again - noto) ** 2) < 0.25 * noto.var()
        assert np.abs(bcm.restyle(noto, labels="noto", to="twemoji") - again).mean() > 0.01


def test_images_are_those_of_an_exported_bundle(digits_bundle: Path):
    """The weights of the export are the same numbers, in float32."""
    with (
        bcm_edge.load("digits", "onnxruntime") as shipped,
        bcm_edge.load(digits_bundle, "onnxruntime", precision="fp32") as exported,
    ):
        images = exported.generate(4, labels=[1, 2, 3, 4], schedule="mixture-4")
        assert_images_agree(shipped.generate(4, labels=[1, 2, 3, 4], schedule="mixture-4"), images)
        assert_images_agree(shipped.invert(images, labels=1), exported.invert(images, labels=1))


@pytest.mark.parametrize("name", SHIPPED)
def test_openvino_plays_the_same_images(name: str):
    pytest.importorskip("openvino", reason="openvino is not installed")
    with bcm_edge.load(name, "onnxruntime") as one, bcm_edge.load(name, "openvino") as other:
        assert_images_agree(one.generate(2, labels=2), other.generate(2, labels=2))


def test_path_that_exists_comes_first(elsewhere: Path):
    shutil.copytree(shipped_bundle("mnist"), elsewhere / "digits")
    with bcm_edge.load("digits") as bcm:
        assert bcm.sample_shape == (1, 28, 28)
    assert open_bundle("digits").path == Path("digits")
    assert open_bundle("mnist").path == shipped_bundle("mnist")


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_path_that_hides_a_model_is_named(elsewhere: Path, cli: Cli, kind: str):
    make = {
        "folder": lambda: os.mkdir("digits"),  # noqa: PTH102
        "file": lambda: Path("digits").write_text("no bundle"),
        "link": lambda: Path("digits").symlink_to("nowhere"),
    }
    make[kind]()
    what = "a folder" if kind == "folder" else "a file"
    message = f"digits: not a bundle ({what} in the current folder); rename it to use the shipped model"
    with pytest.raises(BundleError) as caught:
        bcm_edge.load("digits")
    assert str(caught.value).startswith(message)
    assert message in refusal(cli("generate", "digits", "--label", 3, "-o", "a.png"))


def test_log_says_which_one_is_opened(elsewhere: Path, cli: Cli):
    arguments = ("-v", "generate", "digits", "--label", 3, "-o", "a.png", "--force")
    assert "bundle: the shipped model digits" in cli(*arguments).stderr
    shutil.copytree(shipped_bundle("digits"), elsewhere / "digits")
    assert "bundle: 'digits' in the current folder, not the shipped model" in cli(*arguments).stderr


@pytest.mark.parametrize("name", ["digit", "Digits"])
def test_misspelt_name(name: str, elsewhere: Path):
    message = rf"^{name}: not a bundle \(no such folder\); did you mean digits, a model in the package\?$"
    with pytest.raises(BundleError, match=message):
        bcm_edge.load(name)


def test_precision_that_a_shipped_model_does_not_have(elsewhere: Path):
    message = r"^digits: has no fp16 .*: bcm-edge export digits --precision fp32,fp16 -o digits\.bundle$"
    with pytest.raises(BundleError, match=message):
        bcm_edge.load("digits", precision="fp16")


def test_unknown_name_is_a_missing_folder():
    with pytest.raises(BundleError, match=r"cifar: not a bundle \(no such folder\)"):
        bcm_edge.load("cifar")
    message = (
        r"give mnist, a model in the package, or make a bundle with: bcm-edge export mnist -o mnist.bundle"
    )
    with pytest.raises(BundleError, match=message):
        bcm_edge.load("mnist.bundle")


def test_commands_take_the_name_and_leave_the_package_alone(elsewhere: Path, cli: Cli):
    before = state(shipped_bundle("digits"))
    for arguments in (
        ("generate", "digits", "-n", 10, "--label", "all", "-o", "a.npz"),
        ("invert", "digits", "a.npz", "-o", "l.npz"),
        ("reconstruct", "digits", "a.npz", "-o", "r.png"),
        ("trace", "digits", "--label", 3, "-o", "t.png"),
        ("verify", "digits"),
        ("inspect", "digits"),
        ("doctor", "digits"),
    ):
        result = cli(*arguments)
        assert result.exit_code == 0, result.output
    result = cli("verify", "digits", "--json")
    assert json.loads(result.stdout)["ok"] is True
    assert "not stored" not in result.stderr
    assert state(shipped_bundle("digits")) == before
    assert sorted(file.name for file in elsewhere.iterdir()) == ["a.npz", "l.npz", "r.png", "t.png"]


def test_bench_takes_the_name(cli: Cli):
    options = ("--batch", 1, "--seconds", 0.05, "--backend", "onnxruntime", "--json")
    (row,) = json.loads(cli("bench", "digits", *options).stdout)["results"]
    assert (row["backend"], row["precision"]) == ("onnxruntime", "fp32")


def test_bundles_of_the_package_are_not_changed(cli: Cli):
    pytest.importorskip("torch", reason="torch is not installed, which calibrate needs")
    before = state(shipped_bundle("digits"))
    advice = (
        "digits is a model in the package, whose files are not changed; "
        "make a bundle of your own first: bcm-edge export digits -o digits.bundle"
    )
    assert refusal(cli("build", "digits")) == advice
    assert refusal(cli("calibrate", shipped_bundle("digits"), "--data", "digits")) == advice
    bundle = open_bundle("digits")
    with pytest.raises(OutputError, match="digits is a model in the package"):
        update_manifest(bundle, lambda manifest: manifest)
    with pytest.raises(OutputError, match="digits is a model in the package"), amending(bundle):
        pass
    assert state(shipped_bundle("digits")) == before


def test_model_opens_without_a_cache(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    (elsewhere / "file").write_text("in the way")
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(elsewhere / "file" / "cache"))
    with bcm_edge.load("digits", "onnxruntime") as bcm:
        assert "no cache" in bcm.backend.device
        assert np.isfinite(bcm.generate(2, labels=3)).all()
