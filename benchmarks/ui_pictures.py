"""Make the pictures of docs/ui.md: a headless Chromium uses the page of `bcm-edge ui`, panel by panel.

    python benchmarks/ui_pictures.py emoji -o docs/ui

The script needs playwright, and a Chromium on the PATH. The random choices of the page are the same in every
run; its milliseconds are not.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import threading
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import sync_playwright

import bcm_edge
from bcm_edge.runtime.pixels import SIGNED
from bcm_edge.ui.answers import Answers
from bcm_edge.ui.server import Window

# Replaces the random numbers of the page by a fixed sequence.
RANDOM = (
    "{ let state = 1001354156; Math.random = () => (state = (state * 48271) % 2147483647) / 2147483647; }"
)
Scheme = Literal["light", "dark"]
SCHEMES: dict[str, Scheme] = {
    "generate": "light",
    "reconstruct": "light",
    "restyle": "light",
    "between": "dark",
    "fill": "light",
}


def main() -> None:
    """Write a PNG file per panel."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="a folder, in which pictures are replaced"
    )
    parser.add_argument("--width", type=int, default=1000, help="of the window, in pixels (default: 1000)")
    arguments = parser.parse_args()
    chromium = chromium_path()
    arguments.output.mkdir(parents=True, exist_ok=True)
    answers = Answers(bcm_edge.load(arguments.bundle, value_range=SIGNED))
    answers.warm_up()
    with Window(answers) as window, sync_playwright() as playwright:
        threading.Thread(target=window.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for panel, scheme in SCHEMES.items():
            page = browser.new_page(viewport={"width": arguments.width, "height": 600}, color_scheme=scheme)
            page.add_init_script(RANDOM)
            page.goto(f"{window.address}#{panel}")
            page.locator("#generate img[data-picture=picture][src]").wait_for(state="attached")
            USES[panel](page)
            page.wait_for_function("id => document.getElementById(id).ariaBusy === 'false'", arg=panel)
            page.mouse.move(0, 0)
            file = arguments.output / f"{panel}.png"
            Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB").save(file, optimize=True)
            print(f"{file}: {file.stat().st_size} bytes")
            page.close()
        browser.close()
        window.shutdown()


def chromium_path() -> str:
    """Return the path of an installed Chromium. Exits if there is none."""
    for name in ("chromium", "google-chrome", "chromium-browser"):
        path = shutil.which(name)
        if path:
            return path
    sys.exit("no Chromium is installed: neither chromium, google-chrome nor chromium-browser is on the PATH")


def generate(page: Any) -> None:
    """Generate an image, with the last schedule and a label."""
    page.locator("#generate [name=schedule]").select_option(
        index=page.locator("#generate [name=schedule] option").count() - 1
    )
    page.locator("#generate [name=seed]").fill("7")
    if page.locator("#generate [name=label]").is_visible():
        page.locator("#generate [name=label]").select_option(index=1)
    page.get_by_role("button", name="Next seed").click()


def reconstruct(page: Any) -> None:
    """Reconstruct a generated image."""
    page.locator("#reconstruct").get_by_role("button", name="Make one").click()
    page.locator("#reconstruct img[data-picture=picture][src]").wait_for()


def restyle(page: Any) -> None:
    """Restyle a generated image."""
    page.locator("#restyle").get_by_role("button", name="Make one").click()
    page.locator("#restyle img[data-picture=picture][src]").wait_for()


def between(page: Any) -> None:
    """Interpolate between two generated images."""
    for side in ("a", "b"):
        page.locator(f"#between figure:has([data-drop={side}])").get_by_role(
            "button", name="Make one"
        ).click()
        page.locator(f"[data-drop={side}] img[src]").wait_for()
    page.locator("#frame[src]").wait_for()


def fill(page: Any) -> None:
    """Draw a hole into a generated image, and fill it in."""
    page.locator("#fill").get_by_role("button", name="Make one").click()
    page.locator("#paint canvas").wait_for()
    box = page.locator("#paint").bounding_box()
    for number, (x, y) in enumerate([(0.25, 0.62), (0.8, 0.62), (0.8, 0.74), (0.25, 0.74)]):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    page.locator("#fill").get_by_role("button", name="Fill in").click()
    page.locator("#fill img[data-picture][src]").wait_for()


USES = {
    "generate": generate,
    "reconstruct": reconstruct,
    "restyle": restyle,
    "between": between,
    "fill": fill,
}


if __name__ == "__main__":
    main()
