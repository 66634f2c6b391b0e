"""The metadata of a model card, as the Hugging Face Hub reads them, and the measurements in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..runtime.schedule import ONE_STEP_BACK, parse_schedule
from ..runtime.storage.manifest import Manifest
from ..runtime.wording import counted
from .evaluate_page import model_line, provenance_line

TAGS = ("bidirectional-consistency-model", "consistency-model", "onnx", "image-generation", "image-inversion")
# The measures of a card: name in the metadata → name for people.
MEASURES = {
    "frechet-ratio": "Fréchet ratio",
    "label-agreement": "label agreement",
    "mse": "reconstruction MSE",
    "psnr": "PSNR in dB",
    "ssim": "SSIM",
}
_TASKS = {
    "generation": ("unconditional-image-generation", "generation"),
    "inversion": ("image-to-image", "inversion and reconstruction"),
}
_PLAIN = re.compile(r"[A-Za-z][\w./+-]*( [\w./+-]+)*")  # YAML text that needs no quotes
_YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True)
class Measured:
    """The measurements of one schedule on one data set."""

    task: Literal["generation", "inversion"]
    # The name of the schedule.
    name: str
    # Its levels.
    program: str
    # The number of network calls; of an inversion with the way back.
    nfe: int
    # The name of the data.
    data: str
    # Names of MEASURES → values.
    values: dict[str, float]


@dataclass(frozen=True)
class Quality:
    """What is known about the quality of a model."""

    measured: list[Measured]
    # How it was measured: name of a fact → the fact.
    protocol: dict[str, str]


def stored_quality(manifest: Manifest) -> Quality:
    """Return the quality that is recorded in a bundle."""
    measured = [*_stored(manifest)]
    protocol: dict[str, list[str]] = {}
    for one in measured:
        facts = manifest.quality[one.name.removesuffix(ONE_STEP_BACK)]
        text = f"{facts.get('images', 'an unknown number of')} images of {one.data}"
        if one.task == "generation":
            text = f"{facts.get('samples', 'an unknown number of')} generated images, compared with {text}"
        texts = protocol.setdefault(one.task, [])
        if text not in texts:
            texts.append(text)
    return Quality(measured, {task: "; ".join(texts) for task, texts in protocol.items()})


def evaluated_quality(file: Path, manifest: Manifest) -> Quality:
    """Return what `bcm-edge evaluate --json` measured with the schedules of a bundle.

    Raises InputError, also if another model was measured.
    """
    try:
        evaluation = json.loads(file.read_text(encoding="utf-8"))
        bundle, data = evaluation["facts"]["Bundle"], evaluation["facts"]["Data"]
        facts = {"played": bundle["played"], **data}
        protocol = {str(name): str(fact) for name, fact in facts.items()}
        measured, model = [*_evaluated(evaluation)], (bundle["model"], bundle["checkpoint"])
    except OSError as error:
        raise InputError(f"--evaluation: {file}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"--evaluation: {file}: not the output of an evaluation ({reason}); write it with: "
            "bcm-edge evaluate BUNDLE --data DATA -o report.html --json > evaluation.json"
        ) from error
    own_model = model_line(manifest.model), provenance_line(manifest.provenance.get("checkpoint", {}))
    if model != own_model:
        own_line, line = (": ".join(both) for both in (own_model, model))
        raise InputError(
            f"--evaluation: {file}: measures another model ({line}) than this bundle ({own_line})"
        )
    own = (*manifest.schedules, "one-step")
    return Quality([one for one in measured if all(name in own for name in one.name.split(", "))], protocol)


def front_matter(manifest: Manifest, licence: str, measured: list[Measured]) -> str:
    """Return the metadata as YAML between two lines of dashes, the start of README.md."""
    values: dict[str, Any] = {
        "license": licence,
        "library_name": "bcm-edge",
        "pipeline_tag": "unconditional-image-generation",
        "tags": [*TAGS],
    }
    if measured:
        results = [_result(one) for one in measured]
        values["model-index"] = [{"name": manifest.model.name, "results": results}]
    return "\n".join(["---", *_yaml(values), "---"])


def _evaluated(evaluation: dict[str, Any]) -> Iterator[Measured]:
    """Yield the measurements of the model in an evaluation, without those of its baselines."""
    data = str(evaluation["facts"]["Data"]["held-out images"]).partition(" of ")[2]
    for row in evaluation["generation"]:
        if row["family"] == "BCM":
            values = {"frechet-ratio": row["ratio"], "label-agreement": row["agreement"]}
            yield _measured("generation", row, data, values)
    for row in evaluation["inversion"]:
        if row["line"].startswith("BCM"):
            yield _measured("inversion", row, data, {name: row[name] for name in ("mse", "psnr", "ssim")})


def _measured(
    task: Literal["generation", "inversion"], row: dict[str, Any], data: str, values: dict[str, Any]
) -> Measured:
    present = {name: float(value) for name, value in values.items() if value is not None}
    return Measured(task, str(row["name"]), str(row["program"]), int(row["nfe"]), data, present)


def _stored(manifest: Manifest) -> Iterator[Measured]:
    """Yield the measurements in the field `quality` of a manifest."""
    for name, facts in manifest.quality.items():
        if name not in manifest.schedules:
            continue
        schedule, data = parse_schedule(manifest.schedules[name]), str(facts.get("data"))
        if "frechet_ratio" in facts:
            values = {"frechet-ratio": float(facts["frechet_ratio"])}
            yield Measured("generation", name, str(schedule), schedule.nfe, data, values)
        if "reconstruction_mse" in facts:
            values = {"mse": float(facts["reconstruction_mse"])}
            program = f"{schedule} then 80>0.002"
            yield Measured("inversion", f"{name}{ONE_STEP_BACK}", program, schedule.nfe + 1, data, values)


def _result(measured: Measured) -> dict[str, Any]:
    """Return an entry of the metadata's model-index."""
    kind, words = _TASKS[measured.task]
    dataset = re.sub(r"[^a-z0-9]+", "-", measured.data.lower()).strip("-")
    metrics = [
        {"type": name, "name": MEASURES[name], "value": float(f"{value:.4g}")}
        for name, value in measured.values.items()
    ]
    return {
        "task": {"type": kind, "name": f"{words}: {measured.name}, {counted(measured.nfe, 'network call')}"},
        "dataset": {"type": dataset or "unknown", "name": measured.data},
        "metrics": metrics,
    }


def _yaml(value: Any) -> Iterator[str]:
    """Yield the lines of a value in YAML. Texts that could be read as something else are quoted."""
    entries = value.items() if isinstance(value, dict) else (("", item) for item in value)
    for key, item in entries:
        start = f"{key}:" if key else "-"
        if not isinstance(item, (dict, list)):
            yield f"{start} {_scalar(item)}"
            continue
        lines = [*_yaml(item)]
        if key:
            yield start
            yield from (f"  {line}" for line in lines)
        else:
            yield f"- {lines[0]}"
            yield from (f"  {line}" for line in lines[1:])


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    if isinstance(value, float):
        # A number in YAML 1.1 has a point: 5e-05 is a text there, and 5.0e-05 a number.
        text = repr(value) if math.isfinite(value) else f".{value}".replace(".-", "-.")
        return text if "." in text else text.replace("e", ".0e")
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(map(_escaped, quoted))


def _escaped(character: str) -> str:
    """Return a character as YAML and UTF-8 can have it: some line breaks and halves of pairs are escaped."""
    number = ord(character)
    if character.isprintable():
        return character
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
