"""A small classifier of a labelled data set: the judge of whether an image is of the class asked for, and a source of features.

It is trained anew from a fixed seed wherever it is needed (two seconds of one core for the digits, half a minute for MNIST), so no
weights of it have to be trusted or shipped. It is small: what tells digits apart well, and richer pictures roughly.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LabelError
from ..training.dataset import Dataset

FEATURES = 64
EPOCHS, BATCH, RATE = 15, 64, 5e-3
MAX_STEPS = 3000  # of the optimizer: large data sets are seen less than EPOCHS times
SMOOTHING = 0.1  # of the labels: keeps the features of fitted and unseen digits on one scale, which the Fréchet distance needs
SMALL = 16  # pixels a side; larger images are halved by strided convolutions until they are
PIXELS = 2**20  # in one pass of features and predictions, which bounds their memory


class Classifier(nn.Module):
    """Images [N, channels, S, S] in [-1, 1] → logits [N, classes]; an Extractor: its features are the 64 activations before the
    last layer. fitted_to: the data it knows, for its name."""

    def __init__(self, channels: int, size: int, classes: int, fitted_to: str) -> None:
        super().__init__()
        self.name = f"{FEATURES} activations of a small CNN fitted to {fitted_to}"
        stem: list[nn.Module] = []
        while size > SMALL:
            stem += [nn.Conv2d(channels, 24, 3, stride=2, padding=1), nn.ReLU()]
            channels, size = 24, (size + 1) // 2
        self.body = nn.Sequential(
            *stem,
            nn.Conv2d(channels, 24, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(4),
            nn.Conv2d(24, 48, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(48 * 16, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, C, S, S] → float32 [N, 64]. Images outside [-1, 1] are clipped, as they are when shown."""
        return torch.cat([self.body(part) for part in _parts(images)]).numpy()

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, C, S, S] → int64 [N]."""
        return torch.cat([self(part).argmax(1) for part in _parts(images)]).numpy()


def train_classifier(data: Dataset, seed: int = 0) -> Classifier:
    """Fit on labelled images. Torch's random state and number of threads are left as they were. Raises LabelError without labels."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster for work this small, and the same result on any number of cores
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _fitted(data)
    finally:
        torch.set_num_threads(threads)


def _fitted(data: Dataset) -> Classifier:
    if data.labels is None or data.num_classes is None:
        raise LabelError(f"{data.name}: has no labels, which a classifier is fitted to")
    _, channels, size, _ = data.images.shape
    model = Classifier(channels, size, data.num_classes, data.name)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    steps = min(EPOCHS * -(-len(data) // BATCH), MAX_STEPS)
    for step, chosen in enumerate(islice(_batches(len(data)), steps)):
        optimizer.param_groups[0]["lr"] = RATE * (
            1 - EPOCHS * step // steps / EPOCHS
        )  # falls EPOCHS times, however many there are
        loss = F.cross_entropy(model(data.images[chosen]), data.labels[chosen], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _batches(n: int) -> Iterator[Tensor]:
    """Indices of one batch after the other, in a new order each time all n have been seen."""
    while True:
        yield from torch.randperm(n).split(BATCH)


def _parts(images: np.ndarray) -> Iterator[Tensor]:
    """Clipped, in as many at a time as PIXELS allow."""
    size = max(1, PIXELS // (images.shape[2] * images.shape[3]))
    return (part.clamp(-1, 1) for part in torch.from_numpy(images).split(size))
