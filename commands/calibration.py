"""bcm-edge calibrate: 8-bit graphs and schedules from data; and the options that `export` shares with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..runtime.accuracy import BOUNDS
from ..runtime.checks.doctor import require_extra
from ..runtime.checks.parity import MoveError
from ..runtime.checks.recording import batches_to_check, load_recording, programs_to_check
from ..runtime.pixels import ValueRange
from ..runtime.storage.bundle import Bundle, open_bundle
from ..runtime.storage.files import check_free, replacing
from ..runtime.storage.manifest import CALIBRATED, MANIFEST, ON_GPUS, ModelFacts
from ..runtime.storage.rewriting import amending, check_changeable
from .console import (
    detail,
    note,
    parity_line,
    parity_table,
    parity_table_of_failure,
    progress,
    result,
    stages,
)
from .options import (
    Function,
    bundle_argument,
    force_option,
    json_option,
    parse_precisions,
    precisions_option,
    value_range_option,
)
from .paths import PATH, PATH_OR_NAME, OutputPath
from .tables import table

if TYPE_CHECKING:
    from ..calibration.headroom import Activation
    from ..calibration.ranges import Calibration
    from ..calibration.trajectories import Samples

SHOWN = 6  # rows of the table for activations in 16 bits, and as many for those in float32


def calibration_options(command: Function) -> Function:
    """Give a command the options data, size, value_range, calibration and allow_inaccurate."""
    options = (
        click.option(
            "--data",
            metavar="DATA",
            type=PATH_OR_NAME,
            help="Images to calibrate on: digits, a FOLDER of images (its sub-folders are classes), or an "
            "npz file (default: images that the model generates).",
        ),
        click.option(
            "--size",
            metavar="N",
            default=64,
            show_default=True,
            type=click.IntRange(1),
            help="Number of images of DATA to calibrate on, at least 32.",
        ),
        value_range_option,
        click.option(
            "--calibration", type=PATH, help="A calibration.json of this model, to use instead of DATA."
        ),
        click.option(
            "--allow-inaccurate", is_flag=True, help="Keep 8-bit graphs that exceed the error bound."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def read_samples(data: str, size: int, model: ModelFacts, value_range: ValueRange) -> Samples:
    """Return the samples of --data, --size and --value-range. Raises ImageError, LabelError."""
    if data == "digits":
        require_extra("train")
    from ..calibration.trajectories import draw_samples
    from ..training.data import load_dataset

    dataset = load_dataset(data, None, model, value_range)
    for line in dataset.notes:
        note(line)
    images = dataset.images.numpy()
    labels = None if dataset.labels is None else dataset.labels.numpy()
    return draw_samples(images, labels, size, dataset.name, model.sample_shape, model.num_classes)


@click.command(
    short_help="Add 8-bit graphs to a bundle, or search schedules.",
    epilog="Example:  bcm-edge calibrate digits.bundle --data digits",
)
@bundle_argument
@precisions_option("int8", "Precisions of the graphs to add: a list of int8,int8-fp16,fp8, or all.")
@calibration_options
@click.option(
    "--bound",
    metavar="X",
    default=BOUNDS["int8"],
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Largest relative L2 error of a move with 8-bit graphs.",
)
@click.option(
    "--search-schedule",
    "nfe",
    metavar="K",
    type=click.IntRange(1, 4),
    help="Search the levels of schedules of K network calls (1 to 4) instead.",
)
@click.option(
    "--picture",
    type=OutputPath("file"),
    help="Also write a PNG file: the activations, or the scores of the schedules.",
)
@force_option
@json_option
def calibrate(
    bundle: Path,
    precisions: str,
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
    """Add 8-bit graphs to BUNDLE, or search better levels for its schedules.

    Schedules are run on DATA and the range of every activation is measured. All convolutions compute in 8
    bits except the most sensitive ones: as many stay as they are as the error bound requires. The ranges and
    the list of these layers are stored in the bundle as calibration.json, which --calibration accepts.

    In int8 graphs everything else is float32. int8-fp16 and fp8 (experimental) are for GPUs: everything else
    is float16, and the bundle must have fp16 graphs. Without DATA they use the calibration.json of the
    bundle, if it has one. All 8-bit graphs of a bundle have the same ranges, so after a new calibration
    those of other precisions are written again.

    With --search-schedule K, schedules of K network calls are scored on DATA: generation by the ratio of
    Fréchet distances, inversion by the reconstruction error. The best schedule of each kind replaces that of
    the bundle, and its score is stored.
    """
    if data and calibration:
        raise click.UsageError("--data and --calibration cannot be combined; give one of them")
    chosen = parse_precisions(precisions, CALIBRATED, CALIBRATED)
    if nfe and (calibration or allow_inaccurate):
        raise click.UsageError(
            "--calibration and --allow-inaccurate are options for int8; leave them out with --search-schedule"
        )
    if nfe and not data:
        raise click.UsageError("--search-schedule needs real images to measure on; give them with --data")
    if picture:
        check_free(picture, force)
    require_extra("quantize")
    opened = open_bundle(bundle)
    check_changeable(opened)
    if nfe:
        from .search import search

        assert data
        search(opened, nfe, data, value_range, picture, force, as_json)
        return
    # Graphs take long to make, so check first that they can be added.
    check_free(opened.path, force=True, marker=MANIFEST)
    samples = read_samples(data, size, opened.manifest.model, value_range) if data else None
    with parity_table_of_failure(", ".join(chosen)), stages() as report:
        ranges, errors = _add_graphs(opened, chosen, samples, calibration, allow_inaccurate, bound, report)
    detail(parity_table(errors))
    for precision, measured in errors.items():
        progress(f"{precision}: {parity_line(measured)}")
    _report(opened, ranges, errors, picture, force, as_json)


def _add_graphs(
    bundle: Bundle,
    precisions: Sequence[str],
    samples: Samples | None,
    file: Path | None,
    inaccurate: bool,
    bound: float,
    report: Callable[[str], None],
) -> tuple[Calibration, dict[str, list[MoveError]]]:
    """Add 8-bit graphs to the bundle; return their calibration, and precision → the errors of all moves.

    Raises ParityError, and changes nothing, if they exceed the bound and `inaccurate` is False.
    """
    from ..calibration.ranges import CALIBRATION, read_calibration
    from ..export import quantise
    from ..export.gpu_graphs import float16_graphs
    from ..export.verification import verified

    for precision in set(precisions) & set(ON_GPUS):
        float16_graphs(bundle, precision)
    model = bundle.manifest.model
    schedules = programs_to_check(bundle.manifest.schedules, model.parameters)
    recording = load_recording(bundle)
    stored = bundle.path / CALIBRATION
    if file is None and samples is None and stored.exists() and "int8" not in precisions:
        file = stored
        report(f"the ranges are those of {stored}")
    calibration = read_calibration(file) if file else quantise.calibrate(bundle, samples, schedules, report)
    if file != stored:
        precisions = [each for each in CALIBRATED if each in precisions or each in bundle.precisions]
    seeds = quantise.seeds_for(model.parameters)
    quantisation = quantise.Quantisation(schedules, bound, seeds, inaccurate)
    batches = batches_to_check(model.parameters)
    errors = {}
    with amending(bundle) as folder:
        manifest, calibration = quantise.quantise(
            bundle, precisions, calibration, quantisation, folder, report
        )
        for precision in precisions:
            amended = Bundle(folder, manifest)
            manifest, errors[precision] = verified(
                amended, precision, recording, batches, bound, inaccurate, report
            )
        (folder / MANIFEST).write_text(manifest.to_json())
    return calibration, errors


def _report(
    bundle: Bundle,
    calibration: Calibration,
    errors: dict[str, list[MoveError]],
    picture: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print the activations of the calibration, and the result."""
    from ..calibration.headroom import activations, overflowing, save_picture
    from ..export.graphs import graph_layouts
    from ..model.config import NetworkConfig

    config = NetworkConfig.from_json(bundle.manifest.model.config, str(bundle.path))
    measured = activations(graph_layouts(config), calibration)
    if picture:
        with replacing(picture, force) as partial:
            save_picture(measured, partial)
    for activation in overflowing(measured):
        progress(
            f"caution: {activation.tensor} reaches {activation.largest:.3g}, which float16 cannot represent; "
            "export bf16 instead of fp16"
        )
    float32_layers = calibration.kept or []
    values = {
        "bundle": str(bundle.path),
        "source": calibration.source,
        "images": calibration.images,
        "kept": float32_layers,
        "activations": [{**vars(activation), "headroom": activation.headroom} for activation in measured],
        "verification": {precision: [vars(error) for error in moves] for precision, moves in errors.items()},
    }
    added = " and ".join(errors)
    summary = f"{bundle.path} has {added} graphs; layers not quantised: {', '.join(float32_layers) or 'none'}"
    result(as_json, values, f"{_activation_table(measured)}\n\n{summary}")


def _activation_table(measured: Sequence[Activation]) -> str:
    """Return a table of the largest activations: those in 16 bits first, then those in float32.

    The lines below it say why tensors have 32 bits; the last column has the numbers of these lines.
    """
    by_size = sorted(measured, key=lambda activation: -activation.largest)
    in_float32 = [activation for activation in by_size if activation.bits == 32]
    others = [activation for activation in by_size if activation.bits != 32]
    listed = [*others[:SHOWN], *in_float32[:SHOWN]]
    reasons = list(dict.fromkeys(activation.why for activation in listed if activation.why))
    rows = [
        (
            activation.tensor,
            f"{activation.largest:.3g}",
            f"{activation.headroom:.3g}×",
            f"{activation.bits} bits",
            f"({reasons.index(activation.why) + 1})" if activation.why else "",
        )
        for activation in listed
    ]
    heading = f"largest of {len(measured)} activations"
    shown = table((heading, "max |x|", "headroom", "in 16-bit graphs", "why"), rows, ("why",))
    return "\n".join([shown, *(f"({number}) {reason}" for number, reason in enumerate(reasons, 1))])
