"""The forms of images, latents, masks and labels that methods accept, on the model that computes nothing.

The null backend returns its input. So the latents of an image are the image with noise of its seed, and two
forms of one image have equal latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bcm_edge
from bcm_edge import BCM, NetworkCall
from bcm_edge.errors import ImageError, LabelError
from bcm_edge.runtime.pixels import from_uint8

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), np.uint8)
FLOATS = from_uint8(PIXELS)
HOLE = np.zeros((8, 8), bool)
HOLE[:, 4:] = True


@pytest.fixture(scope="module")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    """The digits model on the backend that computes nothing."""
    with bcm_edge.load(digits_bundle, backend="null") as opened:
        yield opened


def assert_inverts_like(bcm: BCM, images: Any, expected: np.ndarray, tolerance: float = 0) -> None:
    """Check that images in some form have the latents of an array."""
    latents = bcm.invert(images, labels=1)
    np.testing.assert_allclose(latents, bcm.invert(expected, labels=1), rtol=0, atol=tolerance)
    assert latents.dtype == np.float32


@pytest.mark.parametrize(
    "images",
    [
        FLOATS.astype(np.float64),
        FLOATS[:, 0],
        FLOATS.tolist(),
        list(FLOATS),
        [FLOATS[:2], FLOATS[2, 0]],
        PIXELS,
        PIXELS[:, 0],
        PIXELS.transpose(0, 2, 3, 1),
        [PIXELS[0], FLOATS[1], PIXELS[2, 0]],
        [Image.fromarray(image[0]) for image in PIXELS],
        (FLOATS[0], Image.fromarray(PIXELS[1, 0]), PIXELS[2]),
    ],
    ids=[
        "float64",
        "without channels",
        "numbers",
        "list",
        "list of batches",
        "uint8",
        "uint8 without channels",
        "uint8 channels last",
        "floats and pixels",
        "Pillow",
        "tuple of all",
    ],
)
def test_forms_of_images(bcm: BCM, images: Any) -> None:
    assert_inverts_like(bcm, images, FLOATS)


def test_half_precision(bcm: BCM) -> None:
    assert_inverts_like(bcm, FLOATS.astype(np.float16), FLOATS, tolerance=0.001)


@pytest.mark.parametrize(
    "image",
    [FLOATS[0], FLOATS[0, 0], PIXELS[0], PIXELS[0].transpose(1, 2, 0), Image.fromarray(PIXELS[0, 0])],
    ids=["C, H, W", "H, W", "uint8", "uint8 channels last", "Pillow"],
)
def test_single_image_gives_a_batch_of_one(bcm: BCM, image: Any) -> None:
    assert bcm.reconstruct(image, labels=1).shape == (1, 1, 8, 8)
    assert_inverts_like(bcm, image, FLOATS[:1])


def test_tensors(bcm: BCM) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(FLOATS)
    for form in (
        tensor,
        tensor.double(),
        torch.nn.Parameter(tensor),
        tensor.clone().requires_grad_() * 1,
        torch.tensor(PIXELS),
        list(tensor),
        tensor[:, 0],
    ):
        assert_inverts_like(bcm, form, FLOATS)
    for form in (tensor.bfloat16(), tensor.half()):
        assert_inverts_like(bcm, form, FLOATS, tolerance=0.005)
    latents = bcm.generate(latents=tensor.requires_grad_(), labels=torch.tensor([1, 2, 3]))
    assert np.array_equal(latents, bcm.generate(latents=FLOATS, labels=[1, 2, 3]))
    filled = bcm.inpaint(tensor, torch.tensor(HOLE), labels=1)
    assert np.array_equal(filled, bcm.inpaint(FLOATS, HOLE, labels=1))
    with pytest.raises(ImageError, match=r"^images cannot be converted to an array \("):
        bcm.invert(tensor.detach().to_sparse(), labels=1)


def test_files(bcm: BCM, tmp_path: Path) -> None:
    for index, image in enumerate(PIXELS):
        Image.fromarray(image[0]).save(tmp_path / f"{index}.png")
    np.savez(tmp_path / "images.npz", images=FLOATS)
    np.save(tmp_path / "images.npy", PIXELS)
    assert_inverts_like(bcm, tmp_path / "0.png", FLOATS[:1])
    assert_inverts_like(bcm, [str(tmp_path / f"{index}.png") for index in range(3)], FLOATS)
    for name in ("images.npz", "images.npy"):
        assert_inverts_like(bcm, tmp_path / name, FLOATS)
    (tmp_path / "images.npz").unlink()
    (tmp_path / "images.npy").unlink()
    assert_inverts_like(bcm, str(tmp_path), FLOATS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "I;16"])
def test_images_of_pillow_are_converted_like_files(bcm: BCM, tmp_path: Path, mode: str) -> None:
    wide = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30), np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(wide).astype(np.uint16) * 257)
    else:
        picture = wide.convert("RGB").convert(mode)
    if mode == "RGBA":
        picture.putalpha(wide)
    picture.save(tmp_path / "wide.tif")
    before = picture.copy()
    assert np.array_equal(bcm.invert(picture, labels=1), bcm.invert(tmp_path / "wide.tif", labels=1))
    assert picture == before


def test_image_of_pillow_is_turned_as_its_camera_was(bcm: BCM) -> None:
    picture = Image.fromarray(PIXELS[0, 0])
    picture.getexif()[274] = 6
    assert_inverts_like(bcm, picture, np.rot90(FLOATS[:1], -1, axes=(2, 3)))


def test_image_of_pillow_in_colour_for_a_grey_model(bcm: BCM) -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert_inverts_like(bcm, red, np.full((1, 1, 8, 8), 76, np.uint8))


def test_range_of_floats_is_checked_over_the_whole_list(bcm: BCM) -> None:
    white = np.ones((1, 8, 8), np.float32)
    assert_inverts_like(bcm, [white, FLOATS[0]], np.stack([white, FLOATS[0]]))
    with pytest.raises(ImageError, match="they seem to lie in"):
        bcm.invert([white, white], labels=1)
    with pytest.raises(ImageError, match="they seem to lie in"):
        bcm.invert([white, PIXELS[0]], labels=1)


def test_forms_of_holes(bcm: BCM, tmp_path: Path) -> None:
    expected = bcm.inpaint(FLOATS, HOLE, labels=1)
    picture = Image.fromarray(np.where(HOLE, 255, 0).astype(np.uint8))
    picture.save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", HOLE)
    forms: list[Any] = [
        picture,
        [picture] * 3,
        tmp_path / "mask.png",
        [HOLE, picture, str(tmp_path / "mask.png")],
    ]
    for holes in [*forms, tmp_path / "mask.npy", HOLE.astype(float).tolist()]:
        assert np.array_equal(bcm.inpaint(FLOATS, holes, labels=1), expected)
    pictures = [Image.fromarray(image[0]) for image in PIXELS]
    assert np.array_equal(bcm.inpaint(pictures, picture, labels=1), expected)
    with pytest.raises(ImageError, match="the mask of image 0 has 16×8 pixels, the image 8×8"):
        bcm.inpaint(pictures, picture.resize((16, 8)), labels=1)
    swapped = [(picture.resize((16, 8)), picture), (pictures[0], pictures[1].resize((16, 8)))]
    with pytest.raises(ImageError, match="the mask of image 0 has 16×8 pixels, the image 8×8"):
        bcm.inpaint(swapped[1], swapped[0], labels=1)
    with pytest.raises(ImageError, match="holes have different shapes"):
        bcm.inpaint(FLOATS[:2], [HOLE, HOLE[:4]], labels=1)


def test_small_images(bcm: BCM) -> None:
    small = FLOATS.reshape(3, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    picture = Image.fromarray(PIXELS[0, 0]).resize((40, 40))
    for form in (small, small[0], list(small), picture):
        assert bcm.upscale(form, labels=1).shape[1:] == (1, 8, 8)
    assert np.abs(bcm.upscale(picture, factor=4, labels=1).reshape(2, 4, 2, 4).std(axis=(1, 3))).max() > 0
    with pytest.raises(ImageError, match=r"^images of 4×4 pixels cannot be enlarged to 8×8; possible sizes:"):
        bcm.upscale(small, factor=4, labels=1)


# Labels


def test_labels_in_words(digits_bundle: Path) -> None:
    with bcm_edge.load(digits_bundle) as bcm:
        every = bcm.generate(labels="all")
        assert np.array_equal(every, bcm.generate(labels=np.arange(10)))
        numbers = [*range(10), 0, 1]
        np.testing.assert_allclose(bcm.generate(12, labels="all"), bcm.generate(labels=numbers), atol=1e-5)
        np.testing.assert_allclose(
            bcm.generate(4, labels="3,5"), bcm.generate(labels=[3, 5, 3, 5]), atol=1e-5
        )
        guessed = bcm.guess_labels(every)
        calls: list[NetworkCall] = []
        latents = bcm.invert(every, labels="guess", on_move=calls.append)
        np.testing.assert_allclose(latents, bcm.invert(every, labels=guessed), atol=1e-5)
        assert [(call.index, call.total) for call in calls] == [(index, 52) for index in range(52)]
        way = bcm.interpolate(every, every[::-1], frames=2, labels="guess")
        expected = bcm.interpolate(every, every[::-1], frames=2, labels=guessed, labels_b=guessed[::-1])
        np.testing.assert_allclose(way, expected, atol=1e-4)
        guessed = bcm.guess_labels(every, holes=HOLE)
        filled = bcm.inpaint(every, HOLE, labels="guess", on_move=calls.append)
        np.testing.assert_allclose(filled, bcm.inpaint(every, HOLE, labels=guessed), atol=1e-4)
        assert calls[-1].index + 1 == calls[-1].total == 58


def test_guess_needs_images(bcm: BCM) -> None:
    for call in (bcm.generate, bcm.trace):
        with pytest.raises(
            LabelError, match=r"^labels='guess' needs images as input; give a number or a name$"
        ):
            call(labels="guess")
