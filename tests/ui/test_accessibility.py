"""The browser window is accessible: axe-core finds nothing serious in any tab, in light and in dark mode."""

from __future__ import annotations

from typing import Any

import pytest
from chromium import PATIENCE, accessibility_findings, needs_axe, needs_browser

from bcm_edge.ui.server import Window

from .browsing import wait_for_answer

pytestmark = [needs_browser, needs_axe]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_is_accessible(browser: Any, window: Window, scheme: str):
    context = browser.new_context(viewport={"width": 1100, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(window.address)
    wait_for_answer(page, "generate")
    tabs = page.get_by_role("tab")
    assert tabs.count() >= 4
    findings = []
    for index in range(tabs.count()):
        tabs.nth(index).click()
        page.wait_for_function("() => document.querySelector('[aria-busy=true]') === null")
        findings += accessibility_findings(page)
    context.close()
    assert findings == []
