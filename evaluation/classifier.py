"""A small classifier of a labelled data set, which judges the classes of images and gives features.

It is trained from a fixed seed each time it is needed (two seconds of one core for the digits, half a minute
for MNIST), so no weights have to be shipped or trusted. It is accurate on digits, and only roughly on richer
images.
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
MAX_STEPS = 3000  # optimizer steps; a large data set is seen fewer than EPOCHS times
# Label smoothing keeps the features of training images and of new images on one scale, which the Fréchet
# distance needs.
SMOOTHING = 0.1
SMALL = 16  # pixels; strided convolutions halve larger images until their side is at most this
PIXELS = 2**20  # the most pixels in one pass, which limits the memory of features and predictions


class Classifier(nn.Module):
    """Return the logits [N, classes] of images [N, channels, S, S] in [-1, 1].

    It is also an Extractor: its features are the 64 activations before the last layer. fitted_to: the name of
    the training data, for the name of the features.
    """

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
        """Return the logits, float32 [N, classes]."""
        return self.head(self.body(images))

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features of float32 [N, C, S, S], float32 [N, 64]. Values are clipped to [-1, 1]."""
        return torch.cat([self.body(part) for part in _parts(images)]).numpy()

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the classes of float32 [N, C, S, S], int64 [N]. Values are clipped to [-1, 1]."""
        return torch.cat([self(part).argmax(1) for part in _parts(images)]).numpy()


def train_classifier(data: Dataset, seed: int = 0) -> Classifier:
    """Train a classifier on labelled images.

    torch's random state and number of threads are restored. Raises LabelError if the data has no labels.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster for a network this small, and the same result on any number of cores
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _fitted(data)
    finally:
        torch.set_num_threads(threads)


def _fitted(data: Dataset) -> Classifier:
    if data.labels is None or data.num_classes is None:
        raise LabelError(f"{data.name}: has no labels; a classifier cannot be trained without them")
    _, channels, size, _ = data.images.shape
    model = Classifier(channels, size, data.num_classes, data.name)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    steps_per_epoch = -(-len(data) // BATCH)
    steps = min(EPOCHS * steps_per_epoch, MAX_STEPS)
    for step, chosen in enumerate(islice(_batches(len(data)), steps)):
        # The learning rate decreases in EPOCHS stages, however many steps there are.
        optimizer.param_groups[0]["lr"] = RATE * (1 - EPOCHS * step // steps / EPOCHS)
        logits = model(data.images[chosen])
        loss = F.cross_entropy(logits, data.labels[chosen], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _batches(n: int) -> Iterator[Tensor]:
    """Yield the indices of batches without end, in a new random order for each pass over all n."""
    while True:
        yield from torch.randperm(n).split(BATCH)


def _parts(images: np.ndarray) -> Iterator[Tensor]:
    """Yield the images, clipped, in parts of at most PIXELS pixels."""
    size = max(1, PIXELS // (images.shape[2] * images.shape[3]))
    for part in torch.from_numpy(images).split(size):
        yield part.clamp(-1, 1)
