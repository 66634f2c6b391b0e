"""A small classifier of a labelled data set: the judge of whether an image is of the class asked for, and the source of features.

It is trained anew from a fixed seed wherever it is needed (two seconds of one core for the digits), so no weights of it have to be
trusted or shipped. It is small: what tells 8×8 digits apart well, and larger pictures roughly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..training.data import Dataset

FEATURES = 64
EPOCHS, BATCH, RATE = 15, 64, 5e-3
SMOOTHING = 0.1  # of the labels: keeps the features of fitted and unseen digits on one scale, which the Fréchet distance needs


class Classifier(nn.Module):
    """Images [N, channels, S, S] in [-1, 1] → logits [N, classes]; `features` are the 64 activations before the last layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
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
        return self.body(torch.from_numpy(images).clamp(-1, 1)).numpy()

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, C, S, S] → int64 [N]."""
        return self(torch.from_numpy(images).clamp(-1, 1)).argmax(1).numpy()


def train_classifier(data: Dataset, seed: int = 0) -> Classifier:
    """Fit on labelled images. Torch's random state and number of threads are left as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster for work this small, and the same result on any number of cores
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _fitted(data)
    finally:
        torch.set_num_threads(threads)


def _fitted(data: Dataset) -> Classifier:
    assert data.labels is not None and data.num_classes is not None
    model = Classifier(data.images.shape[1], data.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - epoch / EPOCHS)
        for chosen in torch.randperm(len(data)).split(BATCH):
            loss = F.cross_entropy(model(data.images[chosen]), data.labels[chosen], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()
