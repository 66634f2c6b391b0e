"""How far apart two sets of features lie, and how much of each the other covers.

Features are float [N, D] and [M, D], of any extractor; everything is computed in float64, over all of them, and nothing is drawn
at random. All of these depend on N and M, not on the distributions alone: compare only figures of the same extractor, N and M.
"""

from __future__ import annotations

import numpy as np

from ..errors import ImageError

NEIGHBOUR = 3  # whose distance is the radius of a sample's ball, as in the paper
BLOCK = 1024  # rows of a matrix of pairs that are held at once


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½) of features [N, D] and [M, D], each taken as a Gaussian; FID where they are Inception's.

    The eigenvalues of Σ_a Σ_b are those of the symmetric Σ_a^½ Σ_b Σ_a^½, which keeps everything real. Biased upwards by small
    samples (about (1/N + 1/M) of the variance): compare only distances with the same N and M.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    shift = a.mean(axis=0) - b.mean(axis=0)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased MMD² of features [N, D] and [M, D] with the kernel (x·y/D + 1)³; KID where they are Inception's (arXiv 1801.01401).

    Unbiased: about 0, and as often below it, for two independent sets of one distribution; below it where both are drawn with the same
    share of every class, since they then are more alike than chance would have them. The paper averages over random subsets; here all
    pairs are taken once. Raises ImageError for fewer than 2 of either.
    """
    a, b = _checked(a, b, least=2)
    n, m = len(a), len(b)
    between = _kernel_sum(a, b) / (n * m)
    return _kernel_sum_of_others(a) / (n * (n - 1)) + _kernel_sum_of_others(b) / (m * (m - 1)) - 2 * between


def precision_recall(
    real: np.ndarray, generated: np.ndarray, k: int = NEIGHBOUR, real_radii: np.ndarray | None = None
) -> tuple[float, float]:
    """(precision, recall) of Kynkäänniemi et al. (arXiv 1904.06991), each in [0, 1].

    Precision: the share of generated features within the ball of some real one, which reaches to its k-th nearest other real one;
    recall: the same with the sets exchanged. The fewer samples, the larger the balls. Raises ImageError for k or fewer of either.
    real_radii: `radii` of the real ones, where they are known already.
    """
    real, generated = _checked(real, generated, least=k + 1)
    real_radii = radii(real, k) if real_radii is None else real_radii
    return _covered(generated, real, real_radii), _covered(real, generated, radii(generated, k))


def radii(features: np.ndarray, k: int = NEIGHBOUR) -> np.ndarray:
    """float64 [N]: how far each one's k-th nearest other lies."""
    # imported here: takes a second, and the Fréchet distance does without
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=k).fit(np.asarray(features, np.float64)).kneighbors()
    return distances[:, -1]


def _covered(points: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> float:
    """Share of points in some centre's ball."""
    from sklearn.metrics import DistanceMetric

    metric = DistanceMetric.get_metric(
        "euclidean"
    )  # by differences, so that a copy of a centre lies at 0, inside a ball of radius 0
    rows = (metric.pairwise(points[i : i + BLOCK], centres) for i in range(0, len(points), BLOCK))
    return float(np.concatenate([(row <= reach).any(axis=1) for row in rows]).mean())


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    """Σ (x·y/D + 1)³ over all pairs."""
    return sum(float(_kernel(a[i : i + BLOCK] @ b.T, a.shape[1]).sum()) for i in range(0, len(a), BLOCK))


def _kernel_sum_of_others(a: np.ndarray) -> float:
    """Σ (x·y/D + 1)³ over the pairs of two different samples, in both orders."""
    return _kernel_sum(a, a) - float(_kernel(np.square(a).sum(axis=1), a.shape[1]).sum())


def _kernel(products: np.ndarray, dimensions: int) -> np.ndarray:
    return (products / dimensions + 1) ** 3


def _checked(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64. Raises ImageError."""
    if min(len(a), len(b)) < least:
        raise ImageError(
            f"sets of {len(a)} and {len(b)} images cannot be compared this way; the least is {least} of each"
        )
    return np.asarray(a, np.float64), np.asarray(b, np.float64)
