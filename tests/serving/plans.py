"""Engines that were not built: files in place of plans, and an engine.json that fits them."""

from __future__ import annotations

import shutil
from pathlib import Path

from bcm_edge.runtime.engines.facts import FACTS, BuildOptions, EngineFacts, Profile
from bcm_edge.runtime.engines.store import ENGINES
from bcm_edge.runtime.storage.bundle import Bundle, describe_files, open_bundle


def with_engine(
    bundle: Bundle,
    path: Path,
    capability: str,
    *profiles: Profile,
    stripped: bool = False,
    single: bool = False,
) -> Bundle:
    """Return a copy of a bundle with one more float32 engine. A plan contains its name and capability."""
    shutil.copytree(bundle.path, path)
    folder = path / ENGINES / f"fp32-sm{capability.replace('.', '')}"
    folder.mkdir(parents=True)
    options = BuildOptions("fp32", profiles, stripped=stripped, single=single)
    for plan in options.plans:
        (folder / f"{plan}.plan").write_bytes(f"{plan} of {capability}".encode())
    files = {Path(name).stem: facts for name, facts in describe_files(folder).items()}
    facts = EngineFacts(
        tensorrt="10.16.1",
        gpu="a GPU",
        capability=capability,
        multiprocessors=8,
        system="Linux aarch64",
        graphs=bundle.hashes("fp32"),
        options=options,
        files=files,
        types={direction: {"float32": 27} for direction in options.directions},
        wider={direction: {} for direction in options.directions},
        scratch=0,
        seconds=1.0,
        built="2026-01-01T00:00:00+00:00",
    )
    (folder / FACTS).write_text(facts.to_json())
    return open_bundle(path)
