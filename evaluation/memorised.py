"""What a model has memorised: the nearest training image of every sample, in pixels and in features.

    python -m bcm_edge.evaluation.memorised emoji --data emoji.npz --test emoji-test.npz -o nearest.png

A model that copies its training images makes samples that are closer to them than new images are. So the
distances of samples to their nearest training images are compared with those of held-out images.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.classes import label_texts
from ..runtime.loading import load
from ..runtime.pictures.grids import Grid
from ..runtime.pictures.writing import save_images
from ..runtime.pixels import to_uint8
from ..training.dataset import Dataset
from .classifier import train_classifier
from .data import held_out
from .extractors import Extractor

SEED = 3_000_000  # seed of the first sample; neither the search nor the report has these
SHIFT = 1  # pixels
LOW = 0.05  # quantile of the held-out distances below which a sample is called close
SHOWN = 10  # pictures per row
SCALE = 3  # the side of a pixel of the model in the pictures, in pixels


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each of N images, in one kind of distance."""

    # float64 [N]
    distances: np.ndarray
    # The training images, mirrored or shifted where that is nearer; float32 [N, C, H, W] in [-1, 1].
    images: np.ndarray


class Neighbours:
    """The training images of a model, in which nearest neighbours are searched.

    Mirrored images, and images shifted by up to one pixel, count as copies of a training image.
    """

    def __init__(self, train: np.ndarray, extractor: Extractor) -> None:
        """train: float32 [M, C, H, W] in [-1, 1]. extractor: of the features."""
        self._copies = copies(train)
        self._extractor = extractor
        self._features = extractor.features(self._copies)

    def in_pixels(self, images: np.ndarray) -> Nearest:
        """Return the nearest images by the root mean squared error of pixels in [0, 1], after rounding."""
        copied, rounded = (to_uint8(part).reshape(len(part), -1) / 255 for part in (self._copies, images))
        return self._nearest(copied, rounded, 1 / np.sqrt(copied.shape[1]))

    def in_features(self, images: np.ndarray) -> Nearest:
        """Return the nearest images by the Euclidean distance of the extractor's features."""
        return self._nearest(self._features, self._extractor.features(images), 1.0)

    def _nearest(self, copied: np.ndarray, points: np.ndarray, scale: float) -> Nearest:
        # Imported here because it takes a second.
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(copied)
        distances, rows = search.kneighbors(points)
        return Nearest(distances[:, 0] * scale, self._copies[rows[:, 0]])


def copies(images: np.ndarray) -> np.ndarray:
    """Return images, mirrored and not, shifted by -1, 0 and 1 pixel in both directions.

    images: float32 [N, C, H, W]. The border is repeated. Returns [18 N, C, H, W].
    """
    height, width = images.shape[2:]
    both = np.concatenate([images, images[..., ::-1]])
    padded = np.pad(both, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="edge")
    offsets = range(2 * SHIFT + 1)
    return np.concatenate([padded[:, :, y : y + height, x : x + width] for y in offsets for x in offsets])


def compared(samples: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """Return how close samples are to training images, beside held-out images.

    samples, others: the distances of samples and of held-out images to their nearest training images. "close"
    is the share of samples below the 5 % quantile of the held-out images: about 0.05 for a model that copies
    no more than chance.
    """
    return {
        "samples": _quantiles(samples),
        "held_out": _quantiles(others),
        "close": float((samples < np.quantile(others, LOW)).mean()),
    }


def _quantiles(distances: np.ndarray) -> dict[str, float]:
    return {
        "least": float(distances.min()),
        "low": float(np.quantile(distances, LOW)),
        "median": float(np.median(distances)),
    }


def measured(
    bundle: Path, data: str, test: str, schedule: str | None = None
) -> tuple[dict[str, Any], dict[str, Grid]]:
    """Compare the samples of a bundle, one per training image, with its training images.

    data, test: the training and the held-out images, as for `bcm-edge evaluate`. schedule: by default, the
    one with most calls. Returns the figures and two grids: "samples" and "held-out", each above the nearest
    training images.
    """
    with load(bundle, precision="fp32") as bcm:
        train, real = held_out(data, bcm.bundle.manifest.model, "test", test)
        generating = {name: s for name in bcm.schedules if not (s := bcm.bundle.schedule(name)).from_image}
        schedule = schedule or max(generating, key=lambda name: generating[name].nfe)
        labels = None if train.labels is None else train.labels.numpy()
        samples = bcm.generate(len(train), schedule=schedule, seed=SEED, labels=labels)
        label_names = bcm.classes
    neighbours = Neighbours(train.images.numpy(), train_classifier(train))
    kinds = {"pixels": neighbours.in_pixels, "features": neighbours.in_features}
    values: dict[str, Any] = {"schedule": schedule, "images": len(train), "held_out": len(real)}
    names = {"samples": label_texts(labels, label_names), "held-out": label_texts(_labels(real), label_names)}
    images = {"samples": samples, "held-out": real.images.numpy()}
    nearest = {part: {kind: find(shown) for kind, find in kinds.items()} for part, shown in images.items()}
    for kind in kinds:
        values[kind] = compared(nearest["samples"][kind].distances, nearest["held-out"][kind].distances)
    grids = {part: _grid(part, images[part], nearest[part], names[part]) for part in images}
    return values, grids


def _labels(data: Dataset) -> np.ndarray | None:
    return None if data.labels is None else data.labels.numpy()


def _grid(part: str, images: np.ndarray, nearest: dict[str, Nearest], names: list[str]) -> Grid:
    """Return a grid of some images, from the nearest to the farthest in pixels, above their neighbours."""
    order = np.argsort(nearest["pixels"].distances)
    chosen = order[np.linspace(0, len(order) - 1, min(SHOWN, len(order))).astype(int)]
    distances = [[f"{distance:.3f}" for distance in one.distances[chosen]] for one in nearest.values()]
    return Grid(
        rows=[images[chosen], *(one.images[chosen] for one in nearest.values())],
        row_labels=[part, *(f"nearest in {kind}, distance below" for kind in nearest)],
        column_labels=[names[index] for index in chosen] if names else (),
        captions=[[], *distances],
    )


def main() -> None:
    """Write the two grids, NAME.png and NAME-held-out.png, and print the figures as JSON."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True, help="training images: a folder or an npz file")
    parser.add_argument("--test", required=True, help="held-out images")
    parser.add_argument("--schedule", help="of the samples (default: the one with most calls)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a PNG file; it is replaced")
    arguments = parser.parse_args()
    values, grids = measured(arguments.bundle, arguments.data, arguments.test, arguments.schedule)
    output: Path = arguments.output
    files = {"samples": output, "held-out": output.with_stem(f"{output.stem}-held-out")}
    for part, file in files.items():
        save_images(grids[part].rows[0], file, force=True, grid=grids[part], scale=SCALE)
    print(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
