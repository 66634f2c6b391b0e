"""The Square attack on a classifier (Andriushchenko et al. 2020, arXiv 1912.00049). It needs only the logits.

The implementation is that of the adversarial-robustness-toolbox. Each query tries one square, with the same
place and sign for all images, and each image keeps the square if it lowers the margin of the right class. In
the paper every image has squares of its own; for the same number of queries, this attack is the weaker one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..errors import InputError, MissingExtraError
from ..runtime.machine.install_hints import install_line
from ..runtime.machine.privacy import home_folder
from ..runtime.machine.temporary import temporary_folder
from .classifier import Classifier


def square_attack(
    classifier: Classifier, images: np.ndarray, labels: np.ndarray, budget: float, queries: int, seed: int
) -> np.ndarray:
    """Change the images so that the classifier answers wrongly, if the attack succeeds.

    images: float32 [N, C, H, W] in [-1, 1]. labels: int64 [N], the right classes. budget: the largest change
    of a pixel (L∞, in units of [-1, 1]). queries: proposals per image; an image that is already misclassified
    is not changed further. Returns float32 [N, C, H, W] in [-1, 1]; equal arguments give equal images.

    numpy's global random state, which the toolbox uses, and torch's number of threads are restored. Raises
    MissingExtraError without the toolbox, InputError if the budget is negative or queries is less than 1.
    """
    if budget < 0 or queries < 1:
        raise InputError(
            f"an attack needs a budget of 0 or more and at least 1 query, got {budget:g} and {queries}"
        )
    toolbox_classifier, toolbox_attack = _toolbox()
    if budget == 0:
        return images.astype(np.float32)

    @torch.inference_mode()
    def logits(x: np.ndarray) -> np.ndarray:
        return classifier(torch.from_numpy(np.asarray(x, np.float32))).numpy()

    # The toolbox's wrapper of torch modules is a third slower, and it offers gradients.
    estimator = toolbox_classifier(
        logits,
        input_shape=images.shape[1:],
        nb_classes=classifier.head.out_features,
        channels_first=True,
        clip_values=(-1, 1),
    )
    attack = toolbox_attack(
        estimator,
        norm=np.inf,
        eps=float(budget),
        max_iter=queries,
        batch_size=len(images),
        verbose=False,
    )
    with _numpy_seed(seed), _one_thread():
        attacked = attack.generate(images.astype(np.float32), labels)
    # The toolbox adds eps in float64, so a pixel in float32 may lie slightly outside the budget.
    within = np.clip(attacked, images - np.float32(budget), images + np.float32(budget))
    return np.clip(within, -1, 1).astype(np.float32)


def _toolbox() -> tuple[Any, Any]:
    """The toolbox's class of black-box classifiers, and its Square attack. Raises MissingExtraError.

    It is imported here because it is an optional extra, takes seconds, and writes into the home folder.
    """
    try:
        with temporary_folder() as folder, home_folder(folder):
            from art.attacks.evasion import SquareAttack
            from art.estimators.classification import BlackBoxClassifierNeuralNetwork
    except ImportError as error:
        line = install_line("evaluate")
        raise MissingExtraError(
            f"the attack needs the adversarial-robustness-toolbox; {line} ({error})"
        ) from error
    return BlackBoxClassifierNeuralNetwork, SquareAttack


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global random state, which the toolbox draws from, and restore it."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch with one thread, which is faster for networks as small as the classifier."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
