"""Write the figures of the emoji model into docs/emoji.md, and the model into the package: `make emoji`.

    python -m bcm_edge.evaluation.emoji_page build/emoji

The folder is that of `python -m bcm_edge.evaluation.emoji`, with the outputs of `bcm-edge evaluate --json` in
report.json and of `python -m bcm_edge.evaluation.memorised` in nearest.json. The part of the page between two
marks is replaced; everything else is written by people.
"""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..model.checkpoint import Checkpoint, load_checkpoint
from ..runtime.schedule import ONE_STEP_BACK
from ..runtime.storage.bundle import open_bundle
from ..runtime.storage.rewriting import update_manifest
from ..runtime.storage.shipped import shipped_bundle

PAGE = Path(__file__).parents[1] / "docs" / "emoji.md"
START = "<!-- figures: written by `make emoji` -->"
END = "<!-- end of figures -->"
# Provenance → its name in the table of the page.
SETTINGS = {
    "steps": "steps",
    "batch": "batch size",
    "learning_rate": "learning rate",
    "intervals": "intervals, up to",
    "augment": "augmentation",
    "precision": "precision",
    "init": "initial weights",
    "seed": "seed",
    "processor_minutes": "CPU time in minutes",
    "images": "training drawings",
}
DATA = "emoji (held-out names)"


def main() -> None:
    """Replace the figures of the page, and the bundle in the package."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    report = json.loads((folder / "report.json").read_text())
    nearest = json.loads((folder / "nearest.json").read_text())
    bundle = open_bundle(folder / "emoji.bundle")
    update_manifest(bundle, lambda manifest: replace(manifest, quality=quality(report, manifest.schedules)))
    shutil.copytree(folder / "emoji.bundle", shipped_bundle("emoji"), dirs_exist_ok=True)
    lines = figures(load_checkpoint(folder / "emoji.safetensors"), report, nearest)
    PAGE.write_text(with_figures(PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")


def with_figures(page: str, lines: Sequence[str]) -> str:
    """Return the text of a page with these lines between its two marks."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n\n{_joined(lines)}\n{END}{rest.partition(END)[2]}"


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"


def quality(report: dict[str, Any], schedules: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return schedule → its figures, rounded as on the page, for the manifest of the bundle.

    schedules: the names of the bundle's schedules; the report also has those of the baseline.
    """
    facts = {"data": DATA, "images": _number(report["facts"]["Data"]["held-out images"])}
    samples = _number(report["facts"]["Data"]["generated"])
    measured = {
        sample["name"]: {"frechet_ratio": round(sample["ratio"], 2), **facts, "samples": samples}
        for sample in report["generation"]
        if sample["name"] in schedules
    }
    for inversion in named_inversions(report):
        name = inversion["name"].removesuffix(ONE_STEP_BACK)
        measured[name] = {"reconstruction_mse": round(inversion["mse"], 4), **facts}
    return measured


def _number(text: str) -> int:
    """Return the number that a fact begins with, as in "63 of emoji-test.npz"."""
    return int(text.split()[0])


def named_inversions(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the inversions of one and two calls, each followed by one step back."""
    names = {f"{name}{ONE_STEP_BACK}" for name in ("invert-1", "invert-2")}
    return [inversion for inversion in report["inversion"] if inversion["name"] in names]


def figures(checkpoint: Checkpoint, report: dict[str, Any], nearest: dict[str, Any]) -> list[str]:
    """Return the lines of the page that depend on the weights."""
    return [
        *_weights(checkpoint),
        *_generation(report),
        *_inversion(report),
        *_restyling(report),
        *_memorised(nearest),
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
        text = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
        if text:
            yield f"| {name} | {text} |"
    yield ""


def _generation(report: dict[str, Any]) -> Iterator[str]:
    yield from ("## Generation", "")
    yield "| schedule | levels | calls | Fréchet ratio | precision | recall | label agreement |"
    yield "|---|---|---|---|---|---|---|"
    for sample in report["generation"]:
        scores = sample["scores"]
        precision, recall = (sum(s[key] for s in scores) / len(scores) for key in ("precision", "recall"))
        ratio = f"{sample['ratio']:.2f} ± {sample['spread']:.2f}"
        yield (
            f"| {sample['name']} | `{sample['program']}` | {sample['nfe']} | {ratio} | {precision:.2f} "
            f"| {recall:.2f} | {sample['agreement']:.0%} |"
        )
    real, accuracy = report["real"], report["facts"]["Data"].get("classifier", "")
    yield f"| training drawings | | | 1 | {real['precision']:.2f} | {real['recall']:.2f} | |"
    yield from ("", f"The unit of the ratio is {report['floor']:.3g}. The classifier is {accuracy}.", "")


def _inversion(report: dict[str, Any]) -> Iterator[str]:
    yield from ("## Inversion and one-step reconstruction", "")
    yield "| schedule | levels | calls | reconstruction MSE | SSIM | latent mean | latent std |"
    yield "|---|---|---|---|---|---|---|"
    for one in named_inversions(report):
        name, levels = one["name"].removesuffix(ONE_STEP_BACK), one["program"].partition(" then ")[0]
        moments = f"{one['latent_mean']:.2f} | {one['latent_std']:.2f}"
        yield f"| {name} | `{levels}` | {one['nfe'] - 1} | {one['mse']:.4f} | {one['ssim']:.2f} | {moments} |"
    yield ""


def _restyling(report: dict[str, Any]) -> Iterator[str]:
    yield from ("## Restyling", "")
    tables = [one for one in report["exhibits"]["Tasks"] if one["title"] == "Restyling" and "columns" in one]
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
