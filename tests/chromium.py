"""A headless Chromium for the tests of pages. Modules that import this one are skipped without playwright."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from fixture_types import ROOT

api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: the page was not tested in a browser"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed: the page was not tested in a browser"
)
AXE = ROOT / ".axe" / "axe.min.js"  # tests/ui/fetch.sh makes it
needs_axe = pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is not there; tests/ui/fetch.sh .axe fetches it"
)
PATIENCE = 30_000  # milliseconds; the machine may be busy


def accessibility_findings(page: Any) -> list[str]:
    """Return the serious and critical findings of axe-core on a page: rule, help and the first element."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run().then(results => results.violations)")
    return [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html']}"
        for each in violations
        if each["impact"] in ("serious", "critical")
    ]
