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
from ..runtime.classes import label_texts
from ..runtime.pictures.grids import Grid, rows_of
from ..runtime.schedule import ONE_STEP, SIGMA_MAX, SIGMA_MIN

SAMPLES = 100  # images in the picture
SHEET_SOLVER = Solver("heun", 18)  # for the picture of a denoiser; EDM's choice for small images
PROBED = 8  # images of the network call that is timed


def sample_sheet(checkpoint: Checkpoint) -> np.ndarray:
    """Return samples in the order of their classes, float32 [SAMPLES, C, H, W], with the seeds 0, 1, ….

    The samples of a BCM are made in one step.
    """
    labels = _labels(checkpoint)
    if checkpoint.objective == "edm":
        return SHEET_SOLVER.generate(checkpoint.denoiser(), range(SAMPLES), labels)
    backend = TorchBackend(checkpoint.model())
    return play_in_parts(partial(play, ONE_STEP, backend), BATCH, Batch(range(SAMPLES), labels))


def sheet_grid(checkpoint: Checkpoint, images: np.ndarray, title: str = "") -> Grid:
    """Return what `sample_sheet` returned as a grid with the classes of each row. title: its first words."""
    rows, labels = rows_of(images), _labels(checkpoint)
    is_bcm = checkpoint.objective != "edm"
    line = "one-step: 1 NFE" if is_bcm else f"Heun, {SHEET_SOLVER.steps} steps: {SHEET_SOLVER.nfe} NFE"
    line = f"{title}, {line}" if title else line
    if labels is None:
        return Grid(rows, line)
    prefix = "" if checkpoint.classes else "class "
    names = [prefix + text for text in label_texts(labels, checkpoint.classes)]
    ends = [(names[start], names[start + len(rows[0]) - 1]) for start in range(0, SAMPLES, len(rows[0]))]
    return Grid(rows, line, [first if first == last else f"{first} to {last}" for first, last in ends])


def _labels(checkpoint: Checkpoint) -> np.ndarray | None:
    """Return the labels int64 [SAMPLES] of the samples; None for a model without classes."""
    classes = checkpoint.config.num_classes
    return None if classes is None else np.sort(np.arange(SAMPLES) % classes)


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
