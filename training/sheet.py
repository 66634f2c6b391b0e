"""The picture of samples that shows what a model has learned."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from ..model.checkpoint import Checkpoint
from ..model.player import TorchBackend
from ..model.samplers import Solver
from ..runtime.batches import BATCH, Batch, play_in_parts
from ..runtime.chain import play
from ..runtime.schedule import ONE_STEP, SIGMA_MAX, SIGMA_MIN

SAMPLES = 100  # images in the picture
SHEET_SOLVER = Solver("heun", 18)  # for the picture of a denoiser; EDM's choice for small images
PROBED = 8  # images of the network call that is timed


def sample_sheet(checkpoint: Checkpoint) -> np.ndarray:
    """Return samples in the order of their classes, float32 [SAMPLES, C, H, W], with the seeds 0, 1, ….

    The samples of a BCM are made in one step.
    """
    classes = checkpoint.config.num_classes
    labels = None if classes is None else np.sort(np.arange(SAMPLES) % classes)
    if checkpoint.objective == "edm":
        return SHEET_SOLVER.generate(checkpoint.denoiser(), range(SAMPLES), labels)
    backend = TorchBackend(checkpoint.model())
    return play_in_parts(partial(play, ONE_STEP, backend), BATCH, Batch(range(SAMPLES), labels))


@torch.inference_mode()
def seconds_per_sheet(checkpoint: Checkpoint, clock: Callable[[], float] = time.monotonic) -> float:
    """Estimate the duration of `sample_sheet` from one network call of a few images, its second one."""
    images = torch.zeros(PROBED, *checkpoint.config.sample_shape)
    high, low = torch.full((PROBED,), SIGMA_MAX), torch.full((PROBED,), SIGMA_MIN)
    labels = None if checkpoint.config.num_classes is None else torch.zeros(PROBED, dtype=torch.int64)
    if checkpoint.objective == "edm":
        calls, call = SHEET_SOLVER.nfe, partial(checkpoint.denoiser().eval(), images, high, labels)
    else:
        calls, call = 1, partial(checkpoint.model().eval(), images, high, low, labels)
    call()  # the first call prepares kernels
    started = clock()
    call()
    return (clock() - started) * calls * SAMPLES / PROBED
