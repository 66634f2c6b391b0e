"""Ways to compute a step: parts of a batch, mixed precision, compiled networks, devices; augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import relative_l2
from small_runs import EDM, SMALL, random_data, two_shapes

from bcm_edge.errors import BackendError, InputError
from bcm_edge.training.augmentation import augmented
from bcm_edge.training.execution import Execution
from bcm_edge.training.networks import network_for
from bcm_edge.training.options import TrainOptions
from bcm_edge.training.trainer import Trainer

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]


def run_of(options: TrainOptions, steps: int = 4, **execution: Any) -> Trainer:
    """Return a run of the random images after some steps."""
    data = random_data()
    run = Trainer(data, network_for(data, 8), options, Execution(**execution))
    for _ in range(steps):
        run.step()
    return run


def gradient(run: Trainer) -> torch.Tensor:
    """Return the gradient of the last step, clipped to a norm of 1."""
    gradients = [parameter.grad for parameter in run.parameters if parameter.grad is not None]
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("options", [SMALL, EDM], ids=["bcm", "edm"])
def test_parts_of_a_batch_give_the_same_step(options: TrainOptions):
    options = replace(options, batch=8)
    whole, parts = run_of(options), run_of(options, accumulate=4)
    assert relative_l2(gradient(parts), gradient(whole)) < 1e-3  # 0.5 and more with the noise of other images
    assert parts.fingerprint == whole.fingerprint


def test_a_batch_without_equal_parts_is_refused():
    with pytest.raises(
        InputError, match="accumulate must divide the batch of 4 images into equal parts, not 3"
    ):
        run_of(SMALL, accumulate=3)


def test_mixed_precision_computes_the_gradient_of_float32_up_to_its_rounding():
    gradients = []
    for precision in ("fp32", "bf16"):
        run = run_of(SMALL)  # after steps in float32, so that the last layer is not zero
        run.options = replace(SMALL, precision=precision)
        run.step()
        gradients.append(gradient(run))
    full, mixed = gradients
    assert mixed.dtype == torch.float32
    assert 1e-5 < relative_l2(mixed, full) < 0.1


@pytest.mark.slow
def test_a_compiled_network_computes_the_gradient_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Code compiled for other vector instructions is not valid for ATEN_CPU_CAPABILITY.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    gradients = []
    data = random_data()
    for compiled in (False, True):
        run = Trainer(data, network_for(data, 8, levels=1), EDM)  # few blocks, which compile fast
        for _ in range(4):  # in float32, so that the last layer is not zero
            run.step()
        run.options = replace(EDM, precision="bf16")
        Execution(compile=compiled).prepare(run.model.network)
        run.step()
        gradients.append(gradient(run))
    plain, compiled_gradient = gradients
    assert relative_l2(compiled_gradient, plain) < 0.1


def test_mixed_precision_belongs_to_the_run():
    assert run_of(replace(SMALL, precision="bf16"), 0).provenance()["precision"] == "bf16"


def test_automatic_device_is_the_processor_without_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Execution("auto").torch_device() == "cpu"
    with pytest.raises(BackendError, match="'cuda': torch does not find it"):
        Execution("cuda").torch_device()


def test_automatic_device_is_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Execution("auto").torch_device() == "cuda"


def test_mirror_exchanges_left_and_right_of_half_of_the_images():
    images = two_shapes(2).images[:1].repeat(400, 1, 1, 1)
    mirrored = augmented(images, ["mirror"], torch.Generator().manual_seed(0))
    changed = (mirrored == images.flip(3)).flatten(1).all(1)
    assert ((mirrored == images).flatten(1).all(1) ^ changed).all()
    assert 160 < changed.sum() < 240


def test_shift_moves_by_at_most_one_pixel_and_repeats_the_edge():
    image = torch.arange(12.0).reshape(1, 2, 2, 3)
    shifted = augmented(image.repeat(400, 1, 1, 1), ["shift"], torch.Generator().manual_seed(0))
    assert len(shifted.unique(dim=0)) == 9
    down_and_left = torch.tensor([[1.0, 2, 2], [1, 2, 2]])
    assert any(torch.equal(one[0], down_and_left) for one in shifted)
    assert any(torch.equal(one, image[0]) for one in shifted)


def test_a_network_has_at_least_one_level():
    with pytest.raises(InputError, match="levels must be at least 1, not 0"):
        TrainOptions(levels=0)


def test_augmentation_changes_the_run_and_is_recorded():
    plain, mirrored = run_of(SMALL), run_of(replace(SMALL, augment=("mirror",)))
    assert relative_l2(gradient(mirrored), gradient(plain)) > 0.05
    assert mirrored.provenance()["augment"] == ["mirror"]
    with pytest.raises(InputError, match="augment must be a list of mirror, shift, not 'rotate'"):
        TrainOptions(augment=("rotate",))
