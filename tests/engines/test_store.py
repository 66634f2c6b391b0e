"""Engines on disk: which one is selected, why others do not fit, and invalid engine.json files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bcm_edge.errors import BackendError
from bcm_edge.runtime.engines.facts import BuildOptions, EngineFacts
from bcm_edge.runtime.engines.store import (
    BrokenEngine,
    broken_engines,
    engine_key,
    engines,
    find_engine,
    misfit,
    read_engine,
)
from bcm_edge.runtime.machine.gpu import Gpu
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle

ORIN = Gpu(0, "Fake Orin", "8.7", 16, 8_000_000_000, False, "12.6")


@pytest.fixture
def fp16(built_copy: Path) -> Path:
    """The folder of the engine in fp16."""
    return next(built_copy.glob("engines/fp16-*"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply a change to engine.json."""
    facts = json.loads((folder / "engine.json").read_text())
    change(facts)
    (folder / "engine.json").write_text(json.dumps(facts))


def test_facts_round_trip(fp16: Path):
    text = (fp16 / "engine.json").read_text()
    assert EngineFacts.from_json(json.loads(text)).to_json() == text


def test_key_depends_on_gpu_version_and_options(built_bundle: Path):
    bundle, options = open_bundle(built_bundle), BuildOptions()
    key = engine_key(bundle, ORIN, "10.3.0", options)
    assert key == next(built_bundle.glob("engines/fp16-*")).name
    others = [
        engine_key(bundle, replace(ORIN, capability="9.0"), "10.3.0", options),
        engine_key(bundle, replace(ORIN, name="Other"), "10.3.0", options),
        engine_key(bundle, replace(ORIN, multiprocessors=8), "10.3.0", options),
        engine_key(bundle, ORIN, "10.3.1", options),
        *(
            engine_key(bundle, ORIN, "10.3.0", replace(options, **change))
            for change in (
                {"profiles": ((1, 4, 8),)},
                {"profiles": ((1, 4, 16), (1, 1, 1))},
                {"opt_level": 4},
                {"single": True},
            )
        ),
        engine_key(bundle, ORIN, "10.3.0", replace(options, workspace=1 << 30)),
        engine_key(bundle, ORIN, "10.3.0", replace(options, stripped=True)),
        engine_key(bundle, ORIN, "10.3.0", replace(options, precision="fp32")),
    ]
    assert len({key, *others}) == 12
    assert engine_key(bundle, replace(ORIN, memory=1, index=3), "10.3.0", options) == key


def test_newest_engine_that_fits_is_selected(built_copy: Path):
    bundle = open_bundle(built_copy)
    for age, precision in enumerate(("fp16", "fp32", "int8")):
        edit(
            next(built_copy.glob(f"engines/{precision}-*")),
            lambda facts, age=age: facts.update(built=f"2026-01-0{age + 1}T00:00:00+00:00"),
        )
    assert [engine.facts.options.precision for engine in engines(bundle)] == [
        "int8",
        "fp32",
        "fp16",
    ]
    selected = {
        p: find_engine(bundle, ORIN, "10.3.0", p).folder.name.partition("-")[0]
        for p in (None, "fp32", "fp16")
    }
    assert selected == {None: "int8", "fp32": "fp32", "fp16": "fp16"}


def test_error_lists_the_engines_that_do_not_fit(built_bundle: Path):
    with pytest.raises(BackendError) as raised:
        find_engine(open_bundle(built_bundle), ORIN, "10.16.1", "fp16")
    first, *rest = str(raised.value).splitlines()
    command = f"bcm-edge build {built_bundle} --precision fp16"
    problem = "no engine in fp16 for this GPU (Fake Orin, TensorRT 10.16.1)"
    assert first == f"{built_bundle}: {problem}; build one: {command}"
    assert len(rest) == 3 and all(
        line.endswith(": built by TensorRT 10.3.0, but TensorRT 10.16.1 is installed here") for line in rest
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda facts: facts.update(system="Windows AMD64"),
            "built on Windows AMD64, but this system is Linux",
        ),
        (
            lambda facts: facts.update(capability="9.0"),
            "built for compute capability 9.0 (Fake Orin), but this GPU (Fake Orin) has 8.7",
        ),
        (
            lambda facts: facts["graphs"].update({"forward.fp16.onnx": "0"}),
            "built from graphs that the bundle does not contain any more",
        ),
        (
            lambda facts: facts["files"]["forward"].update(size=1),
            "its forward.plan is missing or is not the file that was built",
        ),
        (
            lambda facts: facts.update(schema=4),
            "its engine.json cannot be used (ValueError: schema 4, this package reads 3)",
        ),
        (
            lambda facts: facts.update(schema=2),
            "built by an older version of bcm-edge; run bcm-edge build again",
        ),
        (
            lambda facts: facts["options"].update(precision="fp4"),
            "its engine.json cannot be used (ValueError: invalid build options)",
        ),
        (
            lambda facts: facts["options"].update(profiles=[[1, 1, 1], [4, 2, 1]]),
            "its engine.json cannot be used (ValueError: invalid build options)",
        ),
        (
            lambda facts: facts["options"].update(profiles=[]),
            "its engine.json cannot be used (ValueError: invalid build options)",
        ),
        (
            lambda facts: facts["options"].pop("single"),
            "its engine.json cannot be used (KeyError: 'single')",
        ),
        (
            lambda facts: facts["files"].pop("to_uint8"),
            "its engine.json cannot be used (KeyError: 'to_uint8')",
        ),
        (
            lambda facts: facts["wider"]["forward"].update({"a\x1b[2J": "fp32"}),
            "its engine.json cannot be used (ValueError: a name with unprintable characters)",
        ),
        (
            lambda facts: facts["wider"].update(sideways={"a": "fp32"}),
            "its engine.json cannot be used (ValueError: `wider` has a direction that `types` does not have)",
        ),
        (lambda facts: facts.clear(), "its engine.json cannot be used (KeyError: 'schema')"),
    ],
)
def test_reason_why_an_engine_does_not_fit(
    fp16: Path, change: Callable[[dict[str, Any]], object], reason: str
):
    bundle = open_bundle(fp16.parent.parent)
    edit(fp16, change)
    engine = read_engine(fp16)
    if isinstance(engine, BrokenEngine):
        assert engine.problem.startswith(reason)
    else:
        assert (misfit(engine, bundle, ORIN, "10.3.0") or "").startswith(reason)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"schema": 3}', "\0"])
def test_invalid_engine_json_is_a_reason(fp16: Path, text: str):
    (fp16 / "engine.json").write_text(text)
    bundle = open_bundle(fp16.parent.parent)
    assert _problem(bundle, fp16).startswith("its engine.json cannot be used (")
    assert len(engines(bundle)) == 2 and len(broken_engines(bundle)) == 1


def test_links_are_not_followed(fp16: Path, built_copy: Path, tmp_path: Path):
    bundle = open_bundle(built_copy)
    outside = tmp_path / "outside"
    fp16.rename(outside)
    fp16.symlink_to(outside)
    assert _problem(bundle, fp16) == "its engine.json cannot be used (ValueError: a link)"
    fp16.unlink()
    outside.rename(fp16)
    plan = fp16 / "forward.plan"
    plan.rename(tmp_path / "forward.plan")
    plan.symlink_to(tmp_path / "forward.plan")
    engine = next(engine for engine in engines(bundle) if engine.folder == fp16)
    assert (
        misfit(engine, bundle, ORIN, "10.3.0")
        == "its forward.plan is missing or is not the file that was built"
    )


def test_engines_folder_that_is_a_link_is_ignored(built_copy: Path, tmp_path: Path):
    (built_copy / "engines").rename(tmp_path / "elsewhere")
    (built_copy / "engines").symlink_to(tmp_path / "elsewhere")
    assert engines(open_bundle(built_copy)) == []


def test_pipe_in_place_of_engine_json(fp16: Path):
    (fp16 / "engine.json").unlink()
    os.mkfifo(fp16 / "engine.json")
    assert read_engine(fp16) == BrokenEngine(fp16, "its engine.json cannot be used (ValueError: not a file)")


def test_names_with_control_characters_are_not_shown(fp16: Path):
    edit(fp16, lambda facts: facts.update(gpu="Orin\n✓ engine: fine"))
    problem = "its engine.json cannot be used (ValueError: a name with unprintable characters)"
    assert read_engine(fp16) == BrokenEngine(fp16, problem)
    odd = fp16.rename(fp16.with_name("odd\x1b[31m"))
    assert str(read_engine(odd)).startswith("'odd\\x1b[31m': its engine.json cannot be used")


def test_unfinished_engine_is_ignored(built_copy: Path, fp16: Path):
    fp16.rename(fp16.with_name(f".{fp16.name}.partial-host-1"))
    assert len(engines(open_bundle(built_copy))) == 2


def _problem(bundle: Bundle, folder: Path) -> str:
    """Return why the engine of a folder cannot be used."""
    return next(engine.problem for engine in broken_engines(bundle) if engine.folder == folder)
