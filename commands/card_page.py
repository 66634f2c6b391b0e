"""The text of a model card: what a bundle contains, how it is used, what was measured, and what was not."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence

from ..runtime.schedule import parse_schedule
from ..runtime.storage.bundle import Bundle
from ..runtime.storage.manifest import MANIFEST, ModelFacts
from ..runtime.wording import listed, printable
from .card_metadata import MEASURES, Measured, Quality

_PICTURES = SAMPLES, RECONSTRUCTIONS = ("samples.png", "reconstructions.png")
PAPER = "https://arxiv.org/abs/2403.18035"
_COLOURS = {1: "greyscale", 3: "colour"}
# Fields of provenance.checkpoint in a card.
_TRAINING = {
    "name": "checkpoint",
    "sha256": "sha256 of the checkpoint",
    "trained_on": "trained on",
    "images": "training images",
    "steps": "training steps",
    "batch": "batch size",
}
_HEADINGS = {"generation": "### Generation", "inversion": "### Inversion and reconstruction"}


def card_page(bundle: Bundle, licence: str, quality: Quality, captions: Sequence[str]) -> str:
    """Return the card in Markdown, without its metadata.

    captions: of SAMPLES and, if the bundle inverts, of RECONSTRUCTIONS.
    """
    sections = [
        _introduction(bundle.manifest.model),
        *(f"![{caption}]({file})\n\n*{caption}*" for file, caption in zip(_PICTURES, captions, strict=False)),
        _use(bundle),
        _model(bundle),
        _schedules(bundle),
        _precisions(bundle),
        _quality(quality),
        _limitations(bundle, quality),
        f"## Licence\n\n{licence}",
        _citation(),
    ]
    return "\n\n".join(sections) + "\n"


def _introduction(model: ModelFacts) -> str:
    return (
        f"# {printable(model.name)}\n\n"
        f"A [Bidirectional Consistency Model]({PAPER}) in the format of bcm-edge. It generates images "
        "from noise in a few network calls, and inverts images to noise. This folder is a bundle: ONNX "
        "graphs with their weights, and a manifest with the sha256 of every file. It runs without PyTorch."
    )


def _use(bundle: Bundle) -> str:
    """Return the commands and the Python code that play the bundle."""
    name = bundle.path.resolve().name
    folder = name if name.endswith(".bundle") else f"{bundle.manifest.model.name}.bundle"
    label = " --label all" if bundle.manifest.model.num_classes else ""
    labels = ", labels=0" if bundle.manifest.model.num_classes else ""
    schedule = generating(bundle)
    typed = shlex.quote(folder)
    options = f"-n 16 --schedule {shlex.quote(schedule)}{label} -o images.png"
    lines = [
        "## Use",
        "",
        "Download the files into a folder of their own (the cache of the hub has links, which are refused):",
        "",
        *_fenced("sh", f"hf download OWNER/REPOSITORY --local-dir {typed}"),
        "",
        "On the command line, after the installation of bcm-edge with its extra `run`:",
        "",
        *_fenced("sh", f"bcm-edge generate {typed} {options}"),
        "",
        "In Python:",
        "",
        *_fenced(
            "python",
            "import bcm_edge",
            "",
            f"with bcm_edge.load({json.dumps(folder, ensure_ascii=False)}) as bcm:",
            "    # float32 [16, C, H, W] with values in [-1, 1]",
            f'    images = bcm.generate(16, schedule="{schedule}"{labels})',
        ),
    ]
    return "\n".join(lines)


def _model(bundle: Bundle) -> str:
    manifest = bundle.manifest
    model, checkpoint = manifest.model, manifest.provenance.get("checkpoint", {})
    channels, height, width = model.sample_shape
    size = sum(facts.size for facts in manifest.files.values())
    rows = [
        ("images", f"{height}×{width} pixels, {_COLOURS.get(channels, f'{channels} channels')}"),
        ("classes", _classes(model)),
        ("parameters", f"{model.parameters:,}"),
        ("precisions", ", ".join(bundle.precisions)),
        ("size", f"{size / 1e6:.1f} MB in {len(manifest.files) + 1} files, listed in `{MANIFEST}`"),
        *((words, str(checkpoint[name])) for name, words in _TRAINING.items() if checkpoint.get(name)),
        ("exported with", ", ".join(f"{n} {v}" for n, v in manifest.provenance.get("versions", {}).items())),
    ]
    return _table("## Model", ("property", "value"), [row for row in rows if row[1]])


def _classes(model: ModelFacts) -> str:
    if not model.num_classes:
        return "none"
    return (
        f"{model.num_classes}: {listed(model.classes)}"
        if model.classes
        else f"{model.num_classes}, without names"
    )


def _schedules(bundle: Bundle) -> str:
    rows = [
        (f"`{name}`", "inversion" if parse_schedule(text).from_image else "generation", f"`{text}`", nfe)
        for name, text in bundle.manifest.schedules.items()
        for nfe in [parse_schedule(text).nfe]
    ]
    return _table("## Schedules", ("name", "purpose", "noise levels", "network calls"), rows)


def _precisions(bundle: Bundle) -> str:
    """Return the size of each precision, and the verdicts that apply to the files as they are."""
    files, verdicts = bundle.manifest.files, bundle.verdicts()
    rows = []
    for precision in bundle.precisions:
        size = sum(files[name].size for name in bundle.hashes(precision)) / 1e6
        own = [verdict for verdict in verdicts if verdict.precision == precision]
        rows += [
            (
                precision,
                f"{size:.1f} MB",
                f"{verdict.backend} against {verdict.against}",
                "NaN or infinity" if verdict.needed is None else f"{verdict.needed:.1e}",
                f"{verdict.bound:.0e}",
                "passed" if verdict.ok else "**failed**",
            )
            for verdict in own
        ] or [(precision, f"{size:.1f} MB", "not verified", "", "", "")]
    columns = (
        "precision",
        "graphs and weights",
        "verification",
        "largest relative L2 error",
        "bound",
        "result",
    )
    return _table("## Precisions", columns, rows)


def _quality(quality: Quality) -> str:
    if not quality.measured:
        return "## Quality\n\nNo measurement of quality is recorded."
    sections = ["## Quality"]
    for task, heading in _HEADINGS.items():
        if own := [one for one in quality.measured if one.task == task]:
            sections.append(_measures(heading, own))
    lines = [f"- {name}: {printable(fact)}" for name, fact in quality.protocol.items()]
    return "\n\n".join([*sections, "### How it was measured", "\n".join(lines)])


def _measures(heading: str, measured: Sequence[Measured]) -> str:
    """Return a table of the measurements of one task."""
    present = [name for name in MEASURES if any(name in one.values for one in measured)]
    columns = ("schedule", "noise levels", "network calls", *(MEASURES[name] for name in present))
    rows = [
        (one.name, f"`{one.program}`", one.nfe, *(_figure(one.values.get(name)) for name in present))
        for one in measured
    ]
    return _table(heading, columns, rows)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _limitations(bundle: Bundle, quality: Quality) -> str:
    """Return what follows from the facts of the bundle. Nothing is claimed that is not recorded."""
    return "\n".join(["## Limitations", "", *(f"- {line}" for line in _limits(bundle, quality))])


def _limits(bundle: Bundle, quality: Quality) -> Iterator[str]:
    model = bundle.manifest.model
    _, height, width = model.sample_shape
    yield f"All images have {height}×{width} pixels. Images of other sizes are converted before inversion."
    if model.num_classes:
        yield f"A label is required: one of {model.num_classes} classes."
    if bundle.manifest.provenance.get("checkpoint", {}).get("trained_on"):
        yield "The training data are named in the table above; the bundle does not describe their content."
    else:
        yield "The training data are not recorded in the bundle."
    verified = {verdict.precision for verdict in bundle.verdicts() if verdict.ok}
    if missing := [name for name in bundle.precisions if name not in verified]:
        yield f"Not verified: the graphs in {', '.join(missing)}."
    if not quality.measured:
        yield "Quality: no measurement is recorded."
    elif any("frechet-ratio" in one.values for one in quality.measured):
        features = quality.protocol.get("features")
        named = f" ({features})" if features else ""
        yield (
            f"The Fréchet ratio depends on the features that it was measured with{named} and on the "
            "held-out images. It is not an FID, and cannot be compared with one."
        )
    yield "Editing (inpainting, colouring, upscaling and so on): no measurement is part of this card."


def _citation() -> str:
    paper = "Liangchen Li and Jiajun He, *Bidirectional Consistency Models*, 2024"
    return f"## Citation\n\nThe method: {paper}, [arXiv:2403.18035]({PAPER})."


def generating(bundle: Bundle) -> str:
    """Return the schedule of the bundle that generates with the most network calls, by name."""
    schedules = {name: parse_schedule(text) for name, text in bundle.manifest.schedules.items()}
    names = [name for name, schedule in schedules.items() if schedule.generates]
    return max(names, key=lambda name: schedules[name].nfe, default="80>0.002")


def _fenced(language: str, *lines: str) -> list[str]:
    return [f"```{language}", *lines, "```"]


def _table(heading: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join([heading, "", *("| " + " | ".join(map(_cell, line)) + " |" for line in lines)])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
