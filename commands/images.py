"""bcm-edge generate, invert, reconstruct: from a bundle to pictures and latents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..errors import ImageError, LabelError
from ..runtime.files import check_free
from ..runtime.images import INDEX, ImageSet, mean_squared_error, read_images, read_npz, save_images, save_npz
from ..runtime.pipeline import BCM, load
from .console import (
    backend_option,
    batch_option,
    bundle_argument,
    force_option,
    json_option,
    label_option,
    move_progress,
    output_option,
    parse_labels,
    progress,
    result,
    seed_option,
    table,
)

images_argument = click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.command(
    short_help="Images from noise, or from latents.",
    epilog="Example:  bcm-edge generate digits.bundle -n 16 --schedule mixture-4 --seed 0 --label 3 -o out.png",
)
@bundle_argument
@click.option("-n", "--number", type=click.IntRange(1), help="How many images (default 1, or one per latent).")
@click.option("--schedule", default="one-step", show_default=True, help="A schedule's name or text, as in '80>2.4>0.002'.")
@click.option("--latents", "latents_file", type=click.Path(path_type=Path), help="Start from the latents of an npz that invert wrote.")
@seed_option
@label_option
@output_option("out.png (a grid if n > 1), out.npz, or a folder.")
@backend_option
@batch_option
@force_option
@json_option
def generate(
    bundle: Path,
    number: int | None,
    schedule: str,
    latents_file: Path | None,
    seed: int,
    label: str | None,
    output: Path,
    backend: str,
    batch: int,
    force: bool,
    as_json: bool,
) -> None:
    """Generate images from noise, or from latents."""
    check_free(output, force, INDEX)
    with load(bundle, backend, batch) as bcm:
        latents, labels = None, None
        if latents_file:
            latents, labels = _read_latents(latents_file)
            if number not in (None, len(latents)):
                raise ImageError(f"{latents_file} has {len(latents)} latents, but -n asks for {number} images")
        n = number or (1 if latents is None else len(latents))
        label_list = parse_labels(label, n, bcm.bundle.manifest.model.num_classes) if label else labels
        program = bcm.bundle.schedule(schedule)
        with move_progress(program.nfe * -(-n // batch), "generating") as on_move:
            started = time.perf_counter()
            images = bcm.generate(n, schedule=program, seed=seed, labels=label_list, latents=latents, on_move=on_move)
            seconds = time.perf_counter() - started
        save_images(images, output, force, arrays=_per_image(seed, n, label_list))
    _report(as_json, bcm, output, n, str(program), program.nfe, seconds)


@click.command(short_help="Images to latents.", epilog="Example:  bcm-edge invert digits.bundle photos/ --label 3 -o latents.npz")
@bundle_argument
@images_argument
@click.option("--schedule", default="invert-2", show_default=True, help="An inversion's name or text, as in '+0.07 0.07>15>80'.")
@seed_option
@label_option
@output_option("An npz file: latents, seeds, labels.")
@backend_option
@batch_option
@force_option
@json_option
def invert(
    bundle: Path,
    images: tuple[Path, ...],
    schedule: str,
    seed: int,
    label: str | None,
    output: Path,
    backend: str,
    batch: int,
    force: bool,
    as_json: bool,
) -> None:
    """Invert IMAGES (files, folders, or one npz) to latents of unit variance, from which generate brings them back."""
    if output.suffix != ".npz":
        raise ImageError(f"{output}: latents are written as .npz")
    check_free(output, force)
    with load(bundle, backend, batch) as bcm:
        given, labels = _read_inputs(bcm, images, label)
        program = bcm.bundle.schedule(schedule)
        n = len(given.images)
        with move_progress(program.nfe * -(-n // batch), "inverting") as on_move:
            started = time.perf_counter()
            latents = bcm.invert(given.images, schedule=program, seed=seed, labels=labels, on_move=on_move)
            seconds = time.perf_counter() - started
        save_npz(output, {"latents": latents, **_per_image(seed, n, labels)}, force)
    progress(f"latents: standard deviation {latents.std():.3f}, mean {latents.mean():+.3f} (white noise has 1 and 0)")
    _report(as_json, bcm, output, n, str(program), program.nfe, seconds)


@click.command(
    short_help="Images to latents and back, with the error.",
    epilog="Example:  bcm-edge reconstruct digits.bundle photos/ --label 3 -o pairs.png",
)
@bundle_argument
@images_argument
@click.option("--inversion", default="invert-2", show_default=True, help="The schedule up to the noise.")
@click.option("--schedule", default="one-step", show_default=True, help="The schedule back to the image.")
@seed_option
@label_option
@output_option("pairs.png (originals above reconstructions), out.npz, or a folder of reconstructions.")
@backend_option
@batch_option
@force_option
@json_option
def reconstruct(
    bundle: Path,
    images: tuple[Path, ...],
    inversion: str,
    schedule: str,
    seed: int,
    label: str | None,
    output: Path,
    backend: str,
    batch: int,
    force: bool,
    as_json: bool,
) -> None:
    """Invert IMAGES and generate them again; shows pairs and the mean squared error (of uint8 pixels, in [0, 1])."""
    check_free(output, force, INDEX)
    with load(bundle, backend, batch) as bcm:
        given, labels = _read_inputs(bcm, images, label)
        program = bcm.bundle.schedule(inversion) + bcm.bundle.schedule(schedule)
        n = len(given.images)
        with move_progress(program.nfe * -(-n // batch), "reconstructing") as on_move:
            started = time.perf_counter()
            images_back = bcm.reconstruct(given.images, inversion=inversion, schedule=schedule, seed=seed, labels=labels, on_move=on_move)
            seconds = time.perf_counter() - started
    errors = mean_squared_error(given.images, images_back)
    if output.suffix == ".npz":
        save_images(images_back, output, force, arrays={"originals": given.images, **_per_image(seed, n, labels)})
    elif output.suffix:
        columns = int(np.ceil(np.sqrt(2 * n)))
        save_images(pairs(given.images, images_back, columns), output, force, columns)
    else:
        save_images(images_back, output, force, arrays=_per_image(seed, n, labels))
    rows = [(name, f"{error:.5f}") for name, error in zip(given.names, errors, strict=True)]
    if not as_json:
        click.echo(table(("image", "MSE"), [*rows, ("mean", f"{errors.mean():.5f}")]))
    mse = {"mse": float(errors.mean()), "names": given.names, "mse_per_image": errors.tolist()}
    _report(as_json, bcm, output, n, str(program), program.nfe, seconds, **mse)


def pairs(originals: np.ndarray, reconstructions: np.ndarray, columns: int) -> np.ndarray:
    """Rows of originals, each above the row of their reconstructions, for a grid of so many columns."""
    white = np.ones((columns, *originals.shape[1:]), np.float32)
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, reconstructions):
            row = images[start : start + columns]
            rows.append(np.concatenate([row, white[len(row) :]]))
    return np.concatenate(rows)


def _read_inputs(bcm: BCM, paths: tuple[Path, ...], label: str | None) -> tuple[ImageSet, Any]:
    """The images, and their labels: from --label, else from the npz."""
    given = read_images(paths, bcm.sample_shape)
    classes = bcm.bundle.manifest.model.num_classes
    labels = parse_labels(label, len(given.images), classes) if label else given.labels
    if labels is not None and classes is None:
        if label:
            raise LabelError("this model has no classes, so it takes no labels")
        labels = None  # an npz may carry labels that this model has no use for
    return given, labels


def _read_latents(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    arrays = read_npz(path)
    if "latents" not in arrays:
        raise ImageError(f"{path}: has no array `latents` (it has {', '.join(arrays) or 'none'})")
    return np.atleast_1d(arrays["latents"]), arrays.get("labels")  # a lone number is refused by its shape


def _per_image(seed: int, n: int, labels: Any) -> dict[str, np.ndarray | None]:
    return {"seeds": np.array(range(seed, seed + n), np.uint64), "labels": None if labels is None else np.asarray(labels, np.int64)}


def _report(as_json: bool, bcm: BCM, output: Path, n: int, schedule: str, nfe: int, seconds: float, **more: Any) -> None:
    progress(f"{n} images in {seconds:.2f} s ({schedule}, {nfe} NFE each) on {bcm.backend.name}: {bcm.backend.device}")
    facts = {"output": str(output), "images": n, "schedule": schedule, "nfe": nfe, "seconds": seconds, "backend": bcm.backend.name}
    result(as_json, {**facts, **more}, str(output))
