"""Actions in a page of the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .conftest import pixels


def wait_for_answer(page: Any, panel: str) -> None:
    """Wait until a panel shows an answer and is not busy."""
    script = """id => {
        const panel = document.getElementById(id);
        return panel.ariaBusy === "false" && panel.querySelector(".facts dd").textContent !== "–";
    }"""
    page.wait_for_function(script, arg=panel)


def fact(page: Any, panel: str, name: str) -> str:
    """The value of a fact that a panel shows."""
    return (
        page.locator(f"#{panel} .facts div", has=page.get_by_text(name, exact=True))
        .locator("dd")
        .text_content()
    )


def picture(page: Any, selector: str) -> np.ndarray:
    """The pixels of an image of the page, uint8 [H, W] or [H, W, 3]. Checks that it is shown in full size."""
    image = page.locator(selector)
    image.wait_for(state="visible")
    page.wait_for_function("s => document.querySelector(s).naturalWidth > 0", arg=selector)
    box = image.bounding_box()
    assert box["width"] >= 150 and box["height"] >= 150
    return pixels(image.get_attribute("src"))


def drop(page: Any, frame: str, file: Path) -> None:
    """Drop a file on a frame, as a file manager does."""
    script = """([selector, bytes, name]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name));
        const frame = document.querySelector(selector);
        const event = { dataTransfer: data, bubbles: true, cancelable: true };
        for (const kind of ["dragover", "drop"]) frame.dispatchEvent(new DragEvent(kind, event));
    }"""
    page.evaluate(script, [frame, list(file.read_bytes()), file.name])
