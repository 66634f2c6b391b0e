"""The Square attack (Andriushchenko et al. 2020, arXiv 1912.00049) on a classifier of which nothing but its logits is asked.

The adversarial-robustness-toolbox's version of it: every query tries one square, at one place and with one sign for all images, and
an image keeps it where it lowers the margin. The paper draws them per image; this one is the weaker attack for as many queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    """Images float32 [N, C, H, W] in [-1, 1], no pixel further than `budget` (L∞, in these units) from its own, that mislead the
    classifier where the attack succeeds.

    labels: int64 [N], the right ones. queries: proposals per image; images that mislead it already are left as they are. The same for
    the same arguments; numpy's global random state, which the toolbox draws from, and torch's number of threads are put back.
    Raises MissingExtraError without the toolbox, InputError for a budget below 0 or no queries.
    """
    if budget < 0 or queries < 1:
        raise InputError(
            f"an attack needs a budget from 0 and at least 1 query, not {budget:g} and {queries}"
        )
    try:  # imported here: an optional extra, and one that takes seconds and writes into the home folder
        with temporary_folder() as folder, home_folder(folder):
            from art.attacks.evasion import SquareAttack
            from art.estimators.classification import BlackBoxClassifierNeuralNetwork
    except ImportError as error:
        line = install_line("evaluate")
        raise MissingExtraError(
            f"the attack needs the adversarial-robustness-toolbox; {line} ({error})"
        ) from error
    if budget == 0:
        return images.astype(np.float32)

    @torch.inference_mode()
    def logits(x: np.ndarray) -> np.ndarray:
        return classifier(torch.from_numpy(np.asarray(x, np.float32))).numpy()

    # the toolbox's wrapper of torch modules takes a third longer, and knows gradients, which the attack must not
    estimator = BlackBoxClassifierNeuralNetwork(
        logits,
        input_shape=images.shape[1:],
        nb_classes=classifier.head.out_features,
        channels_first=True,
        clip_values=(-1, 1),
    )
    attack = SquareAttack(
        estimator,  # pyright: ignore[reportArgumentType]  # which their alias of classifiers leaves out, and the attack takes
        norm=np.inf,
        eps=float(budget),
        max_iter=queries,
        batch_size=len(images),
        verbose=False,
    )
    with _numpy_seed(seed), _one_thread():
        found = attack.generate(images.astype(np.float32), labels)
    near = np.clip(
        found, images - np.float32(budget), images + np.float32(budget)
    )  # eps itself is added in float64
    return np.clip(near, -1, 1).astype(np.float32)


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002  # the toolbox draws from it
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextmanager
def _one_thread() -> Iterator[None]:
    """Faster for networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
