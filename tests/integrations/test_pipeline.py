"""BCMPipeline with the real diffusers: its results, its seeds, its callbacks, and what it refuses."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree, assert_pixels_agree
from fixture_types import ROOT

from bcm_edge.errors import ImageError, InputError, LabelError, ScheduleError

torch = pytest.importorskip("torch")
SHAPE = (1, 8, 8)
LABELS = [0, 1, 2, 3]
WITHOUT_DIFFUSERS = """
import sys
sys.modules["diffusers"] = None
from bcm_edge.errors import MissingExtraError
from bcm_edge.integrations.diffusers import BCMPipeline
try:
    BCMPipeline.from_pretrained(sys.argv[1])
except MissingExtraError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def pipe(digits_bundle: Path) -> Any:
    """The shipped model, without a progress bar."""
    pytest.importorskip("diffusers")
    from bcm_edge.integrations.diffusers import BCMPipeline

    pipe = BCMPipeline.from_pretrained(digits_bundle, backend="onnxruntime", precision="fp32")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> Any:
    """A generator in a known state."""
    return torch.Generator().manual_seed(seed)


def test_script_of_the_page_runs(tmp_path: Path):
    pytest.importorskip("diffusers")
    page = (ROOT / "docs" / "diffusers.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    completed = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    from PIL import Image

    for label in LABELS:
        first, again = (
            np.asarray(Image.open(tmp_path / f"digit-{label}{end}.png")) for end in ("", "-again")
        )
        assert first.shape == again.shape == SHAPE[1:]
        assert np.corrcoef(first.ravel(), again.ravel())[0, 1] > 0.7
    assert "4/4" in completed.stderr  # the progress bar


def test_images_have_the_types_of_diffusers(pipe: Any):
    from diffusers import ImagePipelineOutput
    from PIL import Image

    def images(output_type: str) -> Any:
        return pipe(3, class_labels=5, generator=seeded(), output_type=output_type).images

    pictures, array, tensor = images("pil"), images("np"), images("pt")
    assert [(type(picture), picture.size, picture.mode) for picture in pictures] == [
        (Image.Image, (8, 8), "L")
    ] * 3
    assert (array.shape, array.dtype) == ((3, 8, 8, 1), np.float32)
    assert (tuple(tensor.shape), tensor.dtype) == ((3, *SHAPE), torch.float32)
    assert 0 <= array.min() < 0.1 and 0.9 < array.max() <= 1
    assert_images_agree(tensor.numpy(), array.transpose(0, 3, 1, 2))
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    assert_pixels_agree(pixels, np.rint(array[..., 0] * 255).astype(np.uint8))
    assert isinstance(pipe(class_labels=1), ImagePipelineOutput)
    (result,) = pipe(class_labels=1, return_dict=False)
    assert len(result) == 1


def test_repr_names_the_model(pipe: Any):
    assert repr(pipe).startswith("BCMPipeline(<BCM digits: 1×8×8, 10 classes, fp32 on onnxruntime (CPU, ")


def test_generator_determines_the_images(pipe: Any):
    def array(generator: Any, n: int = 2, **options: Any) -> np.ndarray:
        return pipe(n, output_type="np", generator=generator, **options).images

    generator = seeded()
    first, second = (array(generator, class_labels=3) for _ in range(2))
    assert_images_agree(first, array(seeded(), class_labels=3))
    assert np.abs(first - second).max() > 0.1
    assert np.abs(first[0] - first[1]).max() > 0.1
    torch.manual_seed(0)
    assert_images_agree(first, array(None, class_labels=3))
    one_each = array([seeded(4), seeded(5)], class_labels=3, num_inference_steps=3)
    alone = array([seeded(5)], 1, class_labels=3, num_inference_steps=3)
    np.testing.assert_allclose(alone[0], one_each[1], atol=1e-5)
    assert_images_agree(array(seeded(), 6), array(seeded(), 6))  # with random classes


def test_latents_return_to_the_images(pipe: Any):
    images = pipe(4, class_labels=LABELS, num_inference_steps=4, generator=seeded(), output_type="pt").images
    latents = pipe.invert(images, class_labels=LABELS, generator=seeded())
    assert (tuple(latents.shape), latents.dtype) == ((4, *SHAPE), torch.float32)
    assert 0.8 < latents.std() < 1.2
    again = pipe(latents=latents, class_labels=torch.tensor(LABELS), output_type="pt").images
    error = (again - images).square().mean()
    other = pipe(latents=torch.randn_like(latents), class_labels=LABELS, output_type="pt").images
    assert error < 0.2 * (other - images).square().mean()


def test_invert_accepts_images_in_every_form_that_the_pipeline_returns(pipe: Any):
    def inverted(images: Any) -> np.ndarray:
        return pipe.invert(images, class_labels=7, generator=seeded(1)).numpy()

    images = {
        output_type: pipe(2, class_labels=7, generator=seeded(), output_type=output_type).images
        for output_type in ("pil", "np", "pt")
    }
    assert_images_agree(inverted(images["np"]), inverted(images["pt"]))
    np.testing.assert_allclose(inverted(images["pil"]), inverted(images["np"]), atol=0.1)
    np.testing.assert_allclose(inverted(images["pil"][0]), inverted(images["pil"])[:1], atol=1.0)
    assert inverted(np.ones((1, 8, 8, 1), np.float32)).shape == (1, *SHAPE)  # a white image is one
    with pytest.raises(ImageError, match=r"images must lie in \[0, 1\]; these go from -1 to -1"):
        inverted(-np.ones((1, 8, 8, 1), np.float32))
    with pytest.raises(ImageError, match=r"images have shape \[1, 3, 8, 8\], the model takes \[N, 1, 8, 8\]"):
        inverted(np.ones((1, 8, 8, 3), np.float32))


def test_invert_can_guess_the_classes(pipe: Any):
    images = pipe(4, LABELS, generator=seeded()).images
    guessed, named = (pipe.invert(images, labels, generator=seeded()).numpy() for labels in ("guess", LABELS))
    np.testing.assert_allclose(guessed, named, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_number_of_steps_selects_the_schedule(pipe: Any, steps: int):
    name = {1: "one-step", 2: "ancestral-2", 3: "zigzag-3", 4: "mixture-4"}[steps]
    calls = []

    def record(*arguments: Any) -> None:
        calls.append(arguments)

    images = pipe(
        2, LABELS[:2], steps, generator=seeded(), output_type="np", callback_on_step_end=record
    ).images
    named = pipe(2, LABELS[:2], schedule=name, generator=seeded(), output_type="np").images
    assert_images_agree(images, named)
    moves = pipe.bcm.schedule(name).moves
    assert [call[:2] for call in calls] == [(pipe, index) for index in range(steps)]
    assert [call[2] for call in calls] == [250 * math.log(move.t) for move in moves]
    last = calls[-1][3]["latents"]
    assert (tuple(last.shape), last.dtype) == ((2, *SHAPE), torch.float32)
    np.testing.assert_allclose((last / 2 + 0.5).clamp(0, 1).numpy().transpose(0, 2, 3, 1), images)


def test_callback_gets_every_step_of_every_part(pipe: Any):
    calls = []

    def record(pipe: Any, step: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        calls.append((step, len(tensors["latents"])))
        return tensors

    pipe(18, class_labels=1, num_inference_steps=2, callback_on_step_end=record)
    assert calls == [(0, 16), (1, 16), (0, 2), (1, 2)]
    calls.clear()
    pipe.invert(np.zeros((1, 8, 8, 1), np.uint8), 1, callback_on_step_end=record)
    assert calls == [(0, 1), (1, 1)]


@pytest.mark.parametrize("in_place", [True, False])
def test_callback_cannot_change_the_latents(pipe: Any, in_place: bool):
    def change(pipe: Any, step: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": tensors["latents"].mul_(2) if in_place else tensors["latents"] * 2}

    with pytest.raises(InputError, match="callback_on_step_end changed the latents"):
        pipe(class_labels=1, callback_on_step_end=change)


def test_precision_may_be_a_type_of_torch(digits_bundle: Path):
    pytest.importorskip("diffusers")
    from bcm_edge.integrations.diffusers import BCMPipeline

    options: dict[str, Any] = {"torch_dtype": torch.float32, "backend": "onnxruntime"}
    assert BCMPipeline.from_pretrained(digits_bundle, **options).bcm.backend.precision == "fp32"
    with pytest.raises(InputError, match="dtype must be one of "):
        BCMPipeline.from_pretrained(digits_bundle, dtype=torch.int8)
    with pytest.raises(InputError, match="dtype= and precision= mean the same"):
        BCMPipeline.from_pretrained(digits_bundle, precision="fp16", **options)


def test_pipeline_stays_on_its_device(pipe: Any):
    assert pipe.to("cpu") is pipe
    assert pipe.to(torch.device("cpu")) is pipe
    assert pipe.device == torch.device("cpu")
    with pytest.raises(InputError, match=r"computes on cpu \(backend onnxruntime\) and cannot move to cuda"):
        pipe.to("cuda")
    with pytest.raises(InputError, match=r"to\(\) takes a device, not torch.float16"):
        pipe.to(torch.float16)
    with pytest.raises(InputError, match=r"to\(\) takes a device such as 'cpu' or 'cuda', not 'tpu-9'"):
        pipe.to("tpu-9")


def test_texts_of_several_labels_give_several_images(pipe: Any):
    assert len(pipe(class_labels="all").images) == 10
    assert len(pipe(class_labels="3,5").images) == 2


@pytest.mark.parametrize("outputs", [3, [1], torch.zeros(1), {"latents": np.zeros(1)}, {"latents": 3}])
def test_callback_that_returns_something_else(pipe: Any, outputs: Any):
    with pytest.raises(
        InputError, match=r"^callback_on_step_end must return None, or a dict in which latents"
    ):
        pipe(class_labels=1, callback_on_step_end=lambda *_: outputs)


REFUSED: list[tuple[dict[str, Any], type[InputError], str]] = [
    ({"num_inference_steps": 5}, ScheduleError, "has schedules with 1 (one-step), 2 (ancestral-2), 3 (zig"),
    ({"num_inference_steps": None}, ScheduleError, "num_inference_steps is None"),
    ({"num_inference_steps": None, "timesteps": [22, 0]}, InputError, "give noise levels as schedule="),
    (
        {"schedule": "invert-2"},
        ScheduleError,
        "so give it as inversion=",
    ),
    ({"output_type": "latent"}, InputError, "output_type must be one of pil, np, pt, not 'latent'"),
    ({"batch_size": 0}, InputError, "batch_size must be at least 1, not 0"),
    ({"batch_size": 3, "latents": np.zeros((2, 1, 8, 8))}, InputError, "batch_size is 3, but there are 2"),
    ({"batch_size": 3, "class_labels": [1, 2]}, LabelError, "2 labels were given for 3 images"),
    ({"class_labels": 10}, LabelError, "out of range"),
    ({"class_labels": torch.empty(1, device="meta")}, LabelError, "class_labels cannot be converted"),
    ({"batch_size": 3, "generator": [seeded()]}, InputError, "1 generators were given for 3 images"),
    ({"generator": 3}, InputError, "generator must be a torch.Generator, or a list of them, not int"),
    ({"batch_size": 2, "generator": [3, 4]}, InputError, "generator must be a torch.Generator, or a list"),
    ({"callback_on_step_end_tensor_inputs": None}, InputError, "can only be ['latents']"),
    (
        {"callback_on_step_end_tensor_inputs": ["noise_pred"]},
        InputError,
        "callback_on_step_end_tensor_inputs can only be ['latents']",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED)
def test_arguments_that_cannot_be_used_are_refused(
    pipe: Any, arguments: dict[str, Any], error: type[InputError], message: str
):
    with pytest.raises(error, match=re.escape(message)):
        pipe(**arguments)


def test_inversion_needs_the_class_and_a_schedule_of_the_model(pipe: Any):
    images = np.zeros((1, 8, 8, 1), np.uint8)
    with pytest.raises(LabelError, match="class_labels is missing"):
        pipe.invert(images)
    with pytest.raises(ScheduleError, match=r"schedules with 1 \(invert-1\), 2 \(invert-2\)"):
        pipe.invert(images, class_labels=1, num_inversion_steps=3)
    with pytest.raises(ScheduleError, match=r"does not invert: .* is given as schedule="):
        pipe.invert(images, class_labels=1, inversion="one-step")


def test_error_without_diffusers_contains_the_pip_command(digits_bundle: Path):
    command = [sys.executable, "-c", WITHOUT_DIFFUSERS, str(digits_bundle)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
    assert printed.startswith("BCMPipeline needs packages that are not installed (diffusers); pip install ")
    assert "diffusers" in printed.partition("pip install ")[2]
