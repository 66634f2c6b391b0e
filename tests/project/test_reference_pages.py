"""The reference pages agree with the code: fields of files, errors, schedules, environment variables."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixture_types import ROOT

from bcm_edge import errors
from bcm_edge.runtime.engines.facts import BuildOptions, EngineFacts
from bcm_edge.runtime.schedule import DEFAULT_SCHEDULES, parse_schedule

# Objects of a manifest whose keys are names. The page writes `*` for each of these keys.
NAMED = {"files", "schedules", "graphs", "quality", "versions"}
# The page refers to another table for the fields of these objects.
DESCRIBED_ELSEWHERE = {"provenance.checkpoint.network"}
# The shipped model was trained before these fields of a checkpoint existed, has the default of the last one,
# and no float16 graphs.
NEW = {
    "provenance.checkpoint.augment",
    "provenance.checkpoint.extended",
    "provenance.checkpoint.held_out",
    "provenance.checkpoint.levels",
    "provenance.checkpoint.objective",
    "provenance.checkpoint.precision",
    "provenance.checkpoint.teacher",
    "provenance.fp16_norms",
    "model.config.attention",
}


def page(name: str) -> str:
    """Return the text of a page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return the text under a heading of the second level."""
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """Return the first cell of every row that begins with one word of code."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the fields of a JSON value, such as `model.name`, `files.*.size` and `verdicts[].ok`."""
    if isinstance(value, dict) and path not in DESCRIBED_ELSEWHERE:
        named = path.rpartition(".")[2] in NAMED
        for key, inner in value.items():
            yield from paths(inner, f"{path}.{'*' if named else key}".removeprefix("."))
    elif isinstance(value, list) and any(isinstance(element, dict) for element in value):
        for element in value:
            yield from paths(element, f"{path}[]")
    else:
        yield path


def test_bundle_page_lists_the_fields_of_an_exported_manifest(digits_bundle: Path):
    written = set(paths(json.loads((digits_bundle / "manifest.json").read_text())))
    listed = first_cells(section(page("bundle.md"), "manifest.json"))
    assert {field for field in listed - NEW if not field.startswith("quality.")} == {
        field for field in written if not field.startswith("quality")
    }


def test_bundle_page_shows_a_manifest_with_all_fields(digits_bundle: Path):
    shown = re.findall(r"```json\n(.*?)```", section(page("bundle.md"), "manifest.json"), re.DOTALL)
    written = json.loads((digits_bundle / "manifest.json").read_text())
    assert [set(paths(json.loads(text))) for text in shown] == [set(paths(written))]


def test_bundle_page_lists_the_facts_of_a_training_run():
    from networks import TINY

    from bcm_edge.training.dataset import Dataset
    from bcm_edge.training.options import TrainOptions
    from bcm_edge.training.trainer import Trainer

    torch = pytest.importorskip("torch")
    dataset = Dataset("zeros", torch.zeros(4, *TINY.sample_shape), torch.zeros(4, dtype=torch.int64))
    trainer = Trainer(dataset, TINY, TrainOptions())
    listed = first_cells(section(page("bundle.md"), "manifest.json"))
    facts = {
        f"provenance.checkpoint.{name}"
        for name in (*trainer.provenance(), "extended", "name", "sha256", "processor_minutes")
    }
    assert {field for field in listed if field.startswith("provenance.checkpoint.")} == facts


def test_bundle_page_lists_the_facts_of_a_schedule_search():
    from bcm_edge.calibration.levels import Scored
    from bcm_edge.evaluation.search import measure, search_facts

    judge: Any = SimpleNamespace(images=(), originals=(), samples=1)
    schedules = [parse_schedule(text) for text in DEFAULT_SCHEDULES.values()]
    measures = {measure(Scored(schedule, 0.0, ())) for schedule in schedules}
    listed = first_cells(section(page("bundle.md"), "manifest.json"))
    names = [name for schedule in schedules for name in search_facts(schedule, judge, "digits")]
    facts = {f"quality.*.{name}" for name in (*measures, *names)}
    assert {field for field in listed if field.startswith("quality.")} == facts


def test_bundle_page_lists_the_keys_of_a_calibration():
    from bcm_edge.calibration.ranges import Calibration

    listed = first_cells(section(page("bundle.md"), "calibration.json"))
    assert listed == {"schema", *(field.name for field in fields(Calibration))}


def test_bundle_page_lists_the_keys_of_an_engine():
    text = section(page("bundle.md"), "engine.json")
    assert first_cells(text) == {field.name for field in fields(EngineFacts)}
    options = next(line for line in text.splitlines() if line.startswith("| `options`"))
    assert {field.name for field in fields(BuildOptions)} <= set(re.findall(r"`(\w+)`", options))


def test_error_page_lists_every_error_with_its_exit_code():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", page("errors.md"), re.MULTILINE))
    assert rows == {error.__name__: str(error.exit_code) for error in error_classes()}


def error_classes() -> list[type[errors.BcmError]]:
    """Return all error classes of the package."""
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    return [value for value in classes if issubclass(value, errors.BcmError)]


def test_error_page_draws_the_tree_of_classes():
    blocks = re.findall(r"```text\n(.*?)```", page("errors.md"), re.DOTALL)
    tree = next(block for block in blocks if block.startswith("BcmError"))
    parents: dict[int, str] = {}
    drawn = {}
    for line in tree.splitlines():
        name = line.strip("│├└─ ")
        depth = (len(line) - len(name)) // 4
        parents[depth] = name
        drawn[name] = parents.get(depth - 1, "Exception")
    assert drawn == {error.__name__: error.__bases__[0].__name__ for error in error_classes()}


def test_schedule_page_lists_the_named_schedules():
    rows = re.findall(r"^\| `([\w-]+)` \| \d \| `([^`]+)` \|", page("schedules.md"), re.MULTILINE)
    assert dict(rows) == DEFAULT_SCHEDULES


def test_environment_page_lists_every_variable_of_this_project():
    files = list(ROOT.rglob("*.py"))
    sources = [file for file in files if not file.relative_to(ROOT).parts[0].startswith((".", "build"))]
    texts = [file.read_text(encoding="utf-8") for file in [*sources, ROOT / "Makefile"]]
    used = {name for text in texts for name in re.findall(r"BCM_EDGE_[A-Z_]*[A-Z]", text)}
    assert used == set(re.findall(r"BCM_EDGE_[A-Z_]*[A-Z]", page("environment.md")))


def test_names_that_pages_place_in_a_file_are_in_it():
    """`parse_schedule` in [runtime/schedule.py](../runtime/schedule.py): the file contains the name."""
    place = re.compile(r"`(\w+)`(?: and `(\w+)`)? (?:in|of) \[[^\]]+\]\((\.\./[\w/]+\.py)\)")
    checked = 0
    for file in (ROOT / "docs").glob("*.md"):
        for *names, path in place.findall(" ".join(file.read_text(encoding="utf-8").split())):
            source = (file.parent / path).read_text(encoding="utf-8")
            for name in filter(None, names):
                assert re.search(rf"\b{name}\b", source), f"{file.name}: {name} is not in {path}"
                checked += 1
    assert checked >= 12
