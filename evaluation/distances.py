"""Distances between two sets of features, and how much of one set the other covers.

Features are float [N, D] and [M, D] of any extractor. Everything is computed in float64 over all features,
without random choices. All figures depend on N and M as well as on the distributions, so compare only figures
of the same extractor, N and M.
"""

from __future__ import annotations

import numpy as np

from ..errors import ImageError

NEIGHBOUR = 3  # the radius of a sample's ball is the distance to its 3rd nearest neighbour, as in the paper
BLOCK = 1024  # rows of a matrix of pairs that are in memory at once


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Fréchet distance between two sets of features, each taken as a Gaussian.

        |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)

    It is FID if the features are Inception's. The eigenvalues of Σ_a Σ_b are those of the symmetric matrix
    Σ_a^½ Σ_b Σ_a^½, which avoids complex numbers. Small samples bias the distance upwards, by about
    (1/N + 1/M) of the variance.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    shift = a.mean(axis=0) - b.mean(axis=0)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased MMD² of two sets of features with the kernel (x·y/D + 1)³ (arXiv 1801.01401).

    It is KID if the features are Inception's. For two independent sets of one distribution its mean is 0, so
    it is negative as often as positive. It is lower if both sets have the same share of each class, because
    they are then more similar than independent sets. The paper averages over random subsets; here each pair
    counts once. Raises ImageError if a set has fewer than 2 features.
    """
    a, b = _checked(a, b, least=2)
    n, m = len(a), len(b)
    between = _kernel_sum(a, b) / (n * m)
    return _kernel_sum_of_others(a) / (n * (n - 1)) + _kernel_sum_of_others(b) / (m * (m - 1)) - 2 * between


def precision_recall(
    real: np.ndarray, generated: np.ndarray, k: int = NEIGHBOUR, real_radii: np.ndarray | None = None
) -> tuple[float, float]:
    """Return (precision, recall) of Kynkäänniemi et al. (arXiv 1904.06991), each in [0, 1].

    Precision is the share of generated features that lie in the ball of some real feature; the ball reaches
    to its k-th nearest real neighbour. Recall is the same with the two sets exchanged. Fewer samples have
    larger balls.

    real_radii: the result of `radii` for the real features, if it is known. Raises ImageError if a set has k
    or fewer features.
    """
    real, generated = _checked(real, generated, least=k + 1)
    real_radii = radii(real, k) if real_radii is None else real_radii
    return _covered(generated, real, real_radii), _covered(real, generated, radii(generated, k))


def radii(features: np.ndarray, k: int = NEIGHBOUR) -> np.ndarray:
    """Return the distance of each feature to its k-th nearest neighbour, float64 [N]."""
    # Imported here because it takes a second, and the Fréchet distance does not need it.
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=k).fit(np.asarray(features, np.float64)).kneighbors()
    return distances[:, -1]


def _covered(points: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> float:
    """The share of the points that lie in the ball of some centre."""
    from sklearn.metrics import DistanceMetric

    # This metric subtracts before it squares, so the distance to a copy is exactly 0. A copy is therefore in
    # a ball of radius 0.
    metric = DistanceMetric.get_metric("euclidean")
    rows = (metric.pairwise(points[i : i + BLOCK], centres) for i in range(0, len(points), BLOCK))
    return float(np.concatenate([(row <= reach).any(axis=1) for row in rows]).mean())


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    """Return Σ (x·y/D + 1)³ over all pairs."""
    return sum(float(_kernel(a[i : i + BLOCK] @ b.T, a.shape[1]).sum()) for i in range(0, len(a), BLOCK))


def _kernel_sum_of_others(a: np.ndarray) -> float:
    """Return Σ (x·y/D + 1)³ over all pairs of two different samples, each pair in both orders."""
    return _kernel_sum(a, a) - float(_kernel(np.square(a).sum(axis=1), a.shape[1]).sum())


def _kernel(products: np.ndarray, dimensions: int) -> np.ndarray:
    return (products / dimensions + 1) ** 3


def _checked(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets as float64. Raises ImageError if one has fewer than `least` features."""
    if min(len(a), len(b)) < least:
        raise ImageError(f"sets of {len(a)} and {len(b)} images cannot be compared; each set needs {least}")
    return np.asarray(a, np.float64), np.asarray(b, np.float64)
