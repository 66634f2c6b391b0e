"""Write a model into the package, and its figures into its page in docs: `make emoji` and `make mnist`.

    python -m bcm_edge.evaluation.figures mnist build/mnist

The folder is that of `python -m bcm_edge.evaluation.ship`, with the output of `bcm-edge evaluate --json` in
report.json; nearest.json, the output of `python -m bcm_edge.evaluation.memorised`, is optional. The part of
the page between two marks is replaced; everything else is written by people.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model.checkpoint import Checkpoint, load_checkpoint
from ..runtime.schedule import ONE_STEP_BACK
from ..runtime.storage.bundle import open_bundle
from ..runtime.storage.rewriting import update_manifest
from ..runtime.storage.shipped import shipped_bundle

DOCS = Path(__file__).parents[1] / "docs"
START = "<!-- figures: written by evaluation/figures.py -->"
END = "<!-- end of figures -->"
SHA256 = re.compile("[0-9a-f]{64}")
# Provenance → its name in the table of the page.
SETTINGS = {
    "steps": "steps",
    "batch": "batch size",
    "learning_rate": "learning rate",
    "intervals": "intervals, up to",
    "augment": "augmentation",
    "precision": "precision",
    "init": "initial weights",
    "teacher": "teacher",
    "seed": "seed",
    "processor_minutes": "CPU time in minutes",
    "images": "training images",
}
# Model → what its results are measured on.
DATA = {"emoji": "emoji (held-out names)", "mnist": "MNIST (test)"}
GENERATING = ("DDIM 1", "DDIM 2", "DDIM 3", "Heun 18")  # baselines on a page: with few calls, and EDM's
INVERTING = ("DDIM 1", "DDIM 2", "DDIM 3", "Heun 2")  # the same for inversion: with few calls


def main() -> None:
    """Replace the figures of the page, and the bundle in the package."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("name", choices=DATA, help="the name of the model")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    name, folder = arguments.name, arguments.folder
    report = json.loads((folder / "report.json").read_text())
    nearest_file = folder / "nearest.json"
    nearest = json.loads(nearest_file.read_text()) if nearest_file.exists() else None
    bundle = open_bundle(folder / f"{name}.bundle")
    measured = quality(report, bundle.manifest.schedules, DATA[name])
    update_manifest(bundle, lambda manifest: replace(manifest, quality=measured))
    page = DOCS / f"{name}.md"
    lines = figures(load_checkpoint(folder / f"{name}.safetensors"), report, nearest)
    text = with_figures(page.read_text(encoding="utf-8"), lines)
    shutil.copytree(bundle.path, shipped_bundle(name), dirs_exist_ok=True)
    page.write_text(text, encoding="utf-8")


def with_figures(page: str, lines: Sequence[str]) -> str:
    """Return the text of a page with these lines between its two marks. Raises InputError without marks."""
    before, _, rest = page.partition(START)
    if END not in rest:
        raise InputError(f"the page has no place for the figures; add the lines {START} and {END}")
    return f"{before}{START}\n\n{_joined(lines)}\n{END}{rest.partition(END)[2]}"


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"


def quality(report: dict[str, Any], schedules: Collection[str], data: str) -> dict[str, dict[str, Any]]:
    """Return schedule → its figures, rounded as on the page, for the manifest of the bundle.

    schedules: the names of the bundle's schedules; the report also has those of the baseline. data: the name
    of the held-out images.
    """
    of_data = report["facts"]["Data"]
    facts = {"data": data, "images": _number(of_data["held-out images"])}
    samples = _number(of_data["generated"])
    measured = {
        sample["name"]: {"frechet_ratio": round(sample["ratio"], 2), **facts, "samples": samples}
        for sample in report["generation"]
        if sample["name"] in schedules
    }
    for inversion in named_inversions(report):
        name = inversion["name"].removesuffix(ONE_STEP_BACK)
        measured[name] = {
            "reconstruction_mse": round(inversion["mse"], 4),
            "data": data,
            "images": _number(of_data["inverted"]),
        }
    return measured


def _number(text: str) -> int:
    """Return the number that a fact begins with, as in "63 of emoji-test.npz"."""
    return int(text.split()[0])


def named_inversions(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the inversions of one and two calls, each followed by one step back."""
    names = {f"{name}{ONE_STEP_BACK}" for name in ("invert-1", "invert-2")}
    return [inversion for inversion in report["inversion"] if inversion["name"] in names]


def figures(checkpoint: Checkpoint, report: dict[str, Any], nearest: dict[str, Any] | None) -> list[str]:
    """Return the lines of the page that depend on the weights. nearest: what was memorised, if measured."""
    return [
        *_weights(checkpoint),
        *_generation(report),
        *_inversion(report),
        *_restyling(report),
        *(_memorised(nearest) if nearest else ()),
    ]


def _weights(checkpoint: Checkpoint) -> Iterator[str]:
    config, channels = checkpoint.config, checkpoint.config.model_channels
    levels = " and ".join(str(multiple * channels) for multiple in config.channel_mult)
    yield from ("## Network and training", "")
    yield f"- {checkpoint.facts.parameters:,} parameters, {checkpoint.size / 1e6:.1f} MB in float16"
    yield f"- U-Net with {levels} channels over patches of {config.patch_size}×{config.patch_size} pixels"
    yield from ("", "| setting | value |", "|---|---|")
    for key, name in SETTINGS.items():
        value = checkpoint.provenance.get(key)
        if value is not None:
            yield f"| {name} | {_setting(value)} |"
    yield ""


def _setting(value: Any) -> str:
    """Return the value of a setting: a list with commas, and the first digits of a sha256."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    text = str(value)
    return f"a checkpoint, sha256 {text[:8]}…" if SHA256.fullmatch(text) else text


def _generation(report: dict[str, Any]) -> Iterator[str]:
    yield from ("## Generation", "")
    yield "| sampler | levels | calls | Fréchet ratio | precision | recall | label agreement |"
    yield "|---|---|---|---|---|---|---|"
    for sample in report["generation"]:
        if sample["family"] != "BCM" and sample["name"] not in GENERATING:
            continue
        scores, levels = sample["scores"], _levels(sample["program"])
        precision, recall = (sum(s[key] for s in scores) / len(scores) for key in ("precision", "recall"))
        ratio = f"{sample['ratio']:.2f}" + ("" if sample["spread"] is None else f" ± {sample['spread']:.2f}")
        yield (
            f"| {sample['name']} | {levels} | {sample['nfe']} | {ratio} | {precision:.2f} | {recall:.2f} "
            f"| {sample['agreement']:.0%} |"
        )
    real, accuracy = report["real"], report["facts"]["Data"].get("classifier", "")
    yield f"| training images | | | 1 | {real['precision']:.2f} | {real['recall']:.2f} | |"
    yield from ("", f"The unit of the ratio is {report['floor']:.3g}. The classifier is {accuracy}.", "")


def _inversion(report: dict[str, Any]) -> Iterator[str]:
    yield from ("## Inversion and reconstruction", "")
    yield "| method | levels | calls, both ways | reconstruction MSE | SSIM | latent mean | latent std |"
    yield "|---|---|---|---|---|---|---|"
    baselines = [one for one in report["inversion"] if one["name"] in INVERTING]
    for one in (*named_inversions(report), *baselines):
        error = f"{one['mse']:.4f} | {one['ssim']:.2f}"
        moments = f"{one['latent_mean']:.2f} | {one['latent_std']:.2f}"
        yield f"| {one['name']} | {_levels(one['program'])} | {one['nfe']} | {error} | {moments} |"
    yield ""


def _levels(program: str) -> str:
    """Return a schedule as code, and the steps of a baseline as they are."""
    return f"`{program}`" if ">" in program else program


def _restyling(report: dict[str, Any]) -> Iterator[str]:
    tables = [one for one in report["exhibits"]["Tasks"] if one["title"] == "Restyling" and "columns" in one]
    if tables:
        yield from ("## Restyling", "")
    for table in tables:
        yield f"| {' | '.join(table['columns'])} |"
        yield "|" + "---|" * len(table["columns"])
        for row in table["rows"]:
            cells = [f"`{cell}`" if ">" in str(cell) else str(cell) for cell in row]
            yield f"| {' | '.join(cells)} |"
        yield from ("", *textwrap.wrap(table["note"], 110), "")


def _memorised(nearest: dict[str, Any]) -> Iterator[str]:
    yield from ("## What was memorised", "")
    samples = f"{nearest['images']} samples (schedule {nearest['schedule']})"
    yield f"The distances of {samples} and {nearest['held_out']} held-out"
    yield "drawings to their nearest training drawings:"
    yield from ("", "| distance | images | least | 5 % quantile | median |", "|---|---|---|---|---|")
    for kind in ("pixels", "features"):
        for key, name in (("samples", "samples"), ("held_out", "held-out drawings")):
            values = nearest[kind][key]
            yield (
                f"| {kind} | {name} | {values['least']:.3f} | {values['low']:.3f} | {values['median']:.3f} |"
            )
    shares = " and ".join(f"{nearest[kind]['close']:.0%} in {kind}" for kind in ("pixels", "features"))
    yield from ("", f"Closer than 95 % of the held-out drawings: {shares}.", "")


if __name__ == "__main__":
    main()
