"""Writing and reading the repositories of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bcm_edge.export.triton.configs import Serving, read_config
from bcm_edge.export.triton.plan import plan_repository
from bcm_edge.export.triton.repository import write_repository
from bcm_edge.runtime.storage.bundle import Bundle


def written(
    bundle: Bundle,
    root: Path,
    platform: str,
    serving: Serving | None = None,
    fused: tuple[str, ...] = (),
    backend: str | None = None,
) -> Path:
    """Write a repository, and return its folder."""
    options = (serving or Serving(), fused, False, False, backend)
    write_repository(plan_repository(bundle, root, platform, None, *options))
    return root


def config(root: Path, model: str) -> dict[str, Any]:
    """Return the configuration of one model of a repository."""
    return read_config((root / model / "config.pbtxt").read_text())
