"""bcm-edge calibrate: what low precision and samplers need from data; and the options that export shares with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import ParityError
from ..runtime.accuracy import BOUNDS
from ..runtime.checks.parity import MoveError
from ..runtime.checks.recording import batches_to_check, load_recording, programs_to_check
from ..runtime.pixels import ValueRange
from ..runtime.storage.bundle import Bundle, describe_files, open_bundle
from ..runtime.storage.files import check_free, replacing
from ..runtime.storage.manifest import MANIFEST, ModelFacts
from ..runtime.storage.rewriting import amending
from .console import (
    bundle_argument,
    force_option,
    json_option,
    parity_table,
    progress,
    require_extra,
    result,
    table,
    value_range_option,
)
from .paths import PATH, PATH_OR_NAME, OutputPath

if TYPE_CHECKING:
    from ..calibration.headroom import Activation
    from ..calibration.ranges import Calibration
    from ..calibration.trajectories import Samples

Function = TypeVar("Function", bound=Callable[..., Any])

SHOWN = 6  # rows of the table of activations: of 16 bits, and of those kept in float32


def calibration_options(command: Function) -> Function:
    """Give a command the options data, size, value_range, calibration and allow_inaccurate."""
    options = (
        click.option(
            "--data",
            metavar="DATA",
            type=PATH_OR_NAME,
            help="digits, a FOLDER of images (sub-folders are classes), or an npz file.",
        ),
        click.option(
            "--size",
            default=64,
            show_default=True,
            type=click.IntRange(1),
            help="Images of DATA to calibrate on, at least 32.",
        ),
        value_range_option,
        click.option("--calibration", type=PATH, help="A calibration.json of this model, in place of data."),
        click.option(
            "--allow-inaccurate", is_flag=True, help="Keep int8 graphs that stray further than the bound."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def read_samples(data: str, size: int, model: ModelFacts, value_range: ValueRange) -> Samples:
    """Calibration samples of a model from `--data`, `--size` and `--value-range`. Raises ImageError or LabelError."""
    if data == "digits":
        require_extra("train")
    from ..calibration.trajectories import draw_samples
    from ..training.data import load_dataset

    dataset = load_dataset(data, None, model, value_range)
    for note in dataset.notes:
        progress(f"note: {note}")
    labels = None if dataset.labels is None else dataset.labels.numpy()
    return draw_samples(
        dataset.images.numpy(), labels, size, dataset.name, model.sample_shape, model.num_classes
    )


@click.command(
    short_help="Ranges for int8 graphs; levels for schedules.",
    epilog="Example:  bcm-edge calibrate digits.bundle --data digits --picture ranges.png",
)
@bundle_argument
@calibration_options
@click.option(
    "--bound",
    default=BOUNDS["int8"],
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Relative L2, all moves.",
)
@click.option(
    "--search-schedule",
    "nfe",
    type=click.IntRange(1, 4),
    help="Instead: find the levels of schedules of so many network calls.",
)
@click.option(
    "--picture", type=OutputPath("file"), help="A PNG: the activations, or the scores of the levels."
)
@force_option
@json_option
def calibrate(
    bundle: Path,
    data: str | None,
    size: int,
    value_range: ValueRange,
    calibration: Path | None,
    allow_inaccurate: bool,
    bound: float,
    nfe: int | None,
    picture: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure what int8 graphs need and add them to BUNDLE, or search levels for its schedules.

    Schedules are played on DATA (default: images by the model itself) and the range of every activation is noted. Convolutions then
    compute in 8 bits, but for the most sensitive ones: as many stay in float32 as the bound asks for. Ranges and choice go to
    calibration.json in the bundle, which --calibration takes again.

    With --search-schedule K, schedules of K network calls are scored on DATA: generations by Fréchet ratio, inversions by
    reconstruction error. The best take their place in the bundle, with what was measured.
    """
    if data and calibration:
        raise click.UsageError("give --data or --calibration, not both")
    if nfe and (calibration or allow_inaccurate):
        raise click.UsageError("--calibration and --allow-inaccurate are for int8, not for --search-schedule")
    if nfe and not data:
        raise click.UsageError("--search-schedule needs --data: real images to measure against")
    if picture:
        check_free(picture, force)
    require_extra("quantize")
    opened = open_bundle(bundle)
    if nfe:
        from .search import search

        assert data
        search(opened, nfe, data, value_range, picture, force, as_json)
        return
    from ..calibration.headroom import activations, overflowing, save_picture

    check_free(opened.path, force=True, marker=MANIFEST)  # that graphs can be added, before they are made
    try:
        samples = read_samples(data, size, opened.manifest.model, value_range) if data else None
        found, errors = _add_int8(opened, samples, calibration, allow_inaccurate, bound)
    except ParityError as error:
        if error.errors:
            progress(parity_table({"int8": error.errors}))
        raise
    progress(parity_table(errors))
    measured = activations(opened, found)
    if picture:
        with replacing(picture, force) as partial:
            save_picture(measured, partial)
    for activation in overflowing(measured):
        progress(
            f"float16 cannot hold {activation.tensor}: it reaches {activation.largest:.3g}; export bf16 instead of fp16"
        )
    kept = found.kept or []
    values = {
        "bundle": str(bundle),
        "source": found.source,
        "images": found.images,
        "kept": kept,
        "activations": [{**vars(a), "headroom": a.headroom} for a in measured],
        "verification": [vars(e) for e in errors["int8"]],
    }
    result(
        as_json,
        values,
        f"{_activation_table(measured)}\n\n{bundle} has int8 graphs; in float32: {', '.join(kept) or 'no layer'}",
    )


def _add_int8(
    bundle: Bundle, samples: Samples | None, file: Path | None, inaccurate: bool, bound: float
) -> tuple[Calibration, dict[str, list[MoveError]]]:
    """Publish the bundle with int8 graphs. Raises ParityError, and changes nothing, if they stray."""
    from ..calibration.ranges import read_calibration
    from ..export import quantise
    from ..export.graphs import graph_names
    from ..export.verification import verified

    model = bundle.manifest.model
    schedules = programs_to_check(bundle.manifest.schedules, model.parameters)
    recording = load_recording(bundle)
    calibration = read_calibration(file) if file else quantise.calibrate(bundle, samples, schedules, progress)
    how = quantise.Quantisation(schedules, bound, quantise.seeds_for(model.parameters), inaccurate)
    with amending(bundle) as folder:
        calibration = quantise.quantise(bundle, calibration, how, folder, progress)
        graphs = {**bundle.manifest.graphs, "int8": graph_names("int8")}
        amended = Bundle(
            folder,
            replace(
                bundle.manifest, graphs=graphs, files={**bundle.manifest.files, **describe_files(folder)}
            ),
        )
        batches = batches_to_check(model.parameters)
        manifest, errors = verified(amended, "int8", recording, batches, bound, inaccurate, progress)
        (folder / MANIFEST).write_text(manifest.to_json())
    return calibration, {"int8": errors}


def _activation_table(measured: Sequence[Activation]) -> str:
    """The largest activations and, where the bundle's 16-bit graphs tell, their type there and the reason for float32."""
    rows = [
        (
            a.tensor,
            f"{a.largest:.3g}",
            f"{a.headroom:.3g}×",
            "–" if a.bits is None else f"{a.bits} bits",
            a.why,
        )
        for kept in (False, True)
        for a in sorted((a for a in measured if (a.bits == 32) is kept), key=lambda a: -a.largest)[:SHOWN]
    ]
    return table(
        (f"largest of {len(measured)} activations", "max |x|", "float16 headroom", "type", "why"), rows
    )
