"""An opened model as an object: its text, closing it, copies of it, and what it reads and writes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bcm_edge
from bcm_edge import BCM
from bcm_edge.errors import BackendError, BcmError, ImageError, InputError, OutputError
from bcm_edge.runtime.pixels import from_uint8, to_uint8
from bcm_edge.runtime.wording import options_in_messages

IMAGES = np.full((2, 1, 8, 8), -0.5, np.float32)

CALLS: dict[str, Callable[[BCM], Any]] = {
    "generate": lambda bcm: bcm.generate(labels=1),
    "generate with wrong arguments": lambda bcm: bcm.generate(0, output_type="pil"),
    "invert": lambda bcm: bcm.invert(IMAGES, labels=1),
    "reconstruct": lambda bcm: bcm.reconstruct(IMAGES, labels=1),
    "interpolate": lambda bcm: bcm.interpolate(IMAGES, IMAGES, labels=1),
    "variations": lambda bcm: bcm.variations(IMAGES, labels=1),
    "restyle": lambda bcm: bcm.restyle(IMAGES, labels=1, to=2),
    "inpaint": lambda bcm: bcm.inpaint(IMAGES, np.eye(8), labels=1),
    "colorize": lambda bcm: bcm.colorize(IMAGES, labels=1),
    "upscale": lambda bcm: bcm.upscale(IMAGES[..., ::2, ::2], labels=1),
    "restore": lambda bcm: bcm.restore(IMAGES, labels=1),
    "guess_labels": lambda bcm: bcm.guess_labels(IMAGES),
    "trace": lambda bcm: bcm.trace(labels=1),
    "schedule": lambda bcm: bcm.schedule("one-step"),
    "save": lambda bcm: bcm.save(IMAGES, "never.png"),
    "read_images": lambda bcm: bcm.read_images("never.png"),
    "with": lambda bcm: bcm.__enter__(),
}


def test_text_of_a_model(digits_bundle: Path):
    with bcm_edge.load(digits_bundle, backend="null") as bcm:
        assert repr(bcm) == f"<BCM digits: 1×8×8, 10 classes, fp32 on null ({bcm.backend.device})>"
    assert str(bcm) == "<BCM digits: 1×8×8, 10 classes, fp32 on null (closed)>"


@pytest.mark.parametrize("backend", ["null", "onnxruntime"])
def test_closed_model_refuses_every_call(digits_bundle: Path, backend: str):
    bcm = bcm_edge.load(digits_bundle, backend=backend)
    bcm.close()
    bcm.close()
    for call in CALLS.values():
        with pytest.raises(BackendError, match=r"^this model has been closed; load the bundle again$"):
            call(bcm)


def test_every_public_method_is_among_the_calls():
    names = {name for name in dir(BCM) if not name.startswith("_") and callable(getattr(BCM, name))}
    assert names == set(CALLS) - {"with", "generate with wrong arguments"} | {"close"}


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_model_cannot_be_copied(digits_bundle: Path, duplicate: Callable[[BCM], Any]):
    with bcm_edge.load(digits_bundle, backend="null") as bcm, pytest.raises(InputError) as raised:
        duplicate(bcm)
    assert str(raised.value).endswith(
        f"open the bundle in each process with bcm_edge.load({str(digits_bundle)!r})"
    )


# Files


def test_results_are_saved_in_every_form(digits_bundle: Path, tmp_path: Path):
    with bcm_edge.load(digits_bundle, backend="null") as bcm:
        for output_type in ("float", "uint8", "pil"):
            path = tmp_path / output_type
            images = bcm.generate(3, labels=1, output_type=output_type)
            bcm.save(images, f"{path}.npz")
            bcm.save(images, f"{path}.png")
            bcm.save(images, path)
            way = bcm.interpolate(IMAGES, -IMAGES * IMAGES, frames=5, labels=1, output_type=output_type)
            bcm.save(way, f"{path}-way.png")
        expected = to_uint8(bcm.generate(3, labels=1))
        for output_type in ("float", "uint8", "pil"):
            path = tmp_path / output_type
            saved = np.load(f"{path}.npz")["images"]
            assert saved.dtype == np.float32 and np.array_equal(to_uint8(saved), expected)
            assert sorted(file.name for file in path.iterdir())[:3] == [f"{i:06d}.png" for i in range(3)]
            assert np.array_equal(to_uint8(bcm.read_images(path)), expected)
            assert Image.open(f"{path}.png").size == (290, 290)  # a grid of two by two
            assert Image.open(f"{path}-way.png").size == (692, 290)  # two rows of five
        with pytest.raises(OutputError, match=r"exists already; force=True replaces it$"):
            bcm.save(expected, tmp_path / "pil.png")
        bcm.save(expected[:1], tmp_path / "pil.png", force=True)
        assert Image.open(tmp_path / "pil.png").size == (128, 128)  # enlarged
        bcm.save(expected[:1], tmp_path / "pil.png", force=True, scale=3)
        assert Image.open(tmp_path / "pil.png").size == (24, 24)
        wrong: list[tuple[Any, str]] = [(0, "be at least 1, not 0"), (1.5, "be an integer, not float")]
        for scale, words in wrong:
            with pytest.raises(InputError, match=f"^scale must {words}"):
                bcm.save(expected, tmp_path / "other.png", scale=scale)
        with pytest.raises(ImageError, match=r"^images must lie in \[-1, 1\]; these go from 3 to 3"):
            bcm.save(np.full((1, 1, 8, 8), 3, np.float32), tmp_path / "latents.png")


def test_images_are_read_in_their_own_size(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels.T).save(tmp_path / "b.png")
    assert np.array_equal(bcm_edge.read_images(tmp_path / "a.png"), from_uint8(pixels[None, None]))
    assert bcm_edge.read_images(str(tmp_path), size=(3, 8, 8)).shape == (2, 3, 8, 8)
    with pytest.raises(ImageError, match=r"a.png has 4×6 pixels, but .*b.png 6×4; .* size=\(C, H, W\)$"):
        bcm_edge.read_images(tmp_path)
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "b.png")
    coloured = bcm_edge.read_images([tmp_path / "a.png", tmp_path / "b.png"])
    assert coloured.shape == (2, 3, 6, 4) and np.array_equal(coloured[0], coloured[1])
    np.savez(tmp_path / "c.npz", images=np.linspace(0, 1, 50, dtype=np.float32).reshape(2, 1, 5, 5))
    unit = bcm_edge.read_images(tmp_path / "c.npz", value_range=(0, 1))
    assert unit.shape == (2, 1, 5, 5) and unit.min() == -1 and unit.max() == 1


# Messages


@pytest.mark.parametrize(
    ("call", "in_python", "in_a_command"),
    [
        (
            lambda bcm: bcm.generate(),
            "give labels from 0 to 9, for example labels=3 or",
            "give labels from 0 to 9 with --label,",
        ),
        (lambda bcm: bcm.generate(labels="guess"), "^labels='guess' needs", "^--label guess needs"),
        (lambda bcm: bcm.generate(labels="1,,2"), "^labels: empty", "^--label: empty"),
        (lambda bcm: bcm.invert(IMAGES * 0, labels=1), "value_range=", "--value-range 0,1 or -1,1$"),
        (lambda bcm: bcm.generate(10**12, labels=1), "at a time$", "at a time, or use bcm-edge map$"),
    ],
)
def test_messages_name_what_the_caller_has(
    digits_bundle: Path, call: Callable[[BCM], Any], in_python: str, in_a_command: str
):
    with bcm_edge.load(digits_bundle, backend="null") as bcm:
        with pytest.raises(BcmError, match=in_python) as raised:
            call(bcm)
        assert "--" not in str(raised.value)
        with options_in_messages(), pytest.raises(BcmError, match=in_a_command) as raised:
            call(bcm)
        assert "=" not in str(raised.value)
