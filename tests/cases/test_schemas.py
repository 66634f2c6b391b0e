"""Bundles of every schema that was published, made with the code of that time.

tests/data/bundles/schema-1 was exported by the first commit that wrote bundles (564f988), from a network of
48,529 random weights: 4×4 pixels, 8 and 16 channels, 3 classes.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from fixture_types import ROOT, Cli
from refusals import edit_manifest, refusal

import bcm_edge
from bcm_edge.runtime.storage.manifest import SCHEMA, FileFacts, Manifest, ModelFacts
from bcm_edge.runtime.storage.verdicts import Verdict

BUNDLES = ROOT / "tests" / "data" / "bundles"
SCHEMAS = range(1, SCHEMA + 1)


@pytest.fixture
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the bundle of a schema, as it was written."""
    copy = tmp_path / f"schema-{request.param}.bundle"
    copy.mkdir()
    for file in (BUNDLES / f"schema-{request.param}").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_there_is_a_bundle_of_every_schema() -> None:
    assert sorted(folder.name for folder in BUNDLES.iterdir()) == [f"schema-{schema}" for schema in SCHEMAS]
    assert sum(file.stat().st_size for file in BUNDLES.rglob("*")) < 1_000_000


@pytest.mark.parametrize("published", SCHEMAS, indirect=True)
def test_published_bundle_plays(published: Path) -> None:
    with bcm_edge.load(published) as bcm:
        images = bcm.generate(schedule="80>2.4>0.002", seed=range(2), labels=[0, 2])
    assert images.shape == (2, 1, 4, 4)
    assert np.isfinite(images).all()
    assert np.abs(images[0] - images[1]).max() > 0.01


@pytest.mark.parametrize("published", SCHEMAS, indirect=True)
def test_published_bundle_still_computes_what_torch_computed(published: Path, cli: Cli) -> None:
    result = cli("verify", published, "--json")
    assert result.exit_code == 0
    (report,) = json.loads(result.stdout)["precisions"]
    assert report["needed"] < 1e-5
    assert len(report["moves"]) == 39


@pytest.mark.parametrize("published", SCHEMAS, indirect=True)
def test_upgrade_of_the_newest_schema_changes_nothing(published: Path, cli: Cli) -> None:
    before = {file.name: file.read_bytes() for file in published.iterdir()}
    result = cli("upgrade", published)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{published} has schema 1, the newest; nothing to upgrade\n",
    )
    assert {file.name: file.read_bytes() for file in published.iterdir()} == before


def test_upgrade_of_a_newer_schema_is_refused(bundle_copy: Path, cli: Cli) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest.update(schema=SCHEMA + 1))
    assert refusal(cli("upgrade", bundle_copy)).startswith(f"{bundle_copy}: made by a newer bcm-edge")


def test_fields_of_this_schema() -> None:
    """A field that older versions cannot do without needs another schema, and a bundle of the old one here.

    A new field that may be absent is added to this list.
    """
    assert {kind.__name__: [field.name for field in fields(kind)] for kind in _KINDS} == {
        "Manifest": ["model", "graphs", "schedules", "files", "provenance", "quality", "verdicts", "schema"],
        "ModelFacts": ["name", "sample_shape", "num_classes", "parameters", "config", "classes"],
        "FileFacts": ["size", "sha256"],
        "Verdict": [
            *("precision", "backend", "against", "ok", "bound", "needed", "schedules", "batches", "files"),
        ],
    }


_KINDS = (Manifest, ModelFacts, FileFacts, Verdict)
