"""The page in a real browser, without a window: what people click, drop, drag and paint, and what they then see."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bcm_edge.runtime.pipeline import BCM
from bcm_edge.runtime.pixels import to_uint8
from bcm_edge.ui.answers import Answers
from bcm_edge.ui.server import Window

from .conftest import pixels, serving

api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: the page was not tested in a browser"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed: the page was not tested in a browser"
)
PATIENCE = 30_000  # milliseconds; a busy machine is not a broken page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, window: Window) -> Iterator[Any]:
    """The page, its first picture made. At the end: nothing was asked of another server, and nothing went wrong unseen."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None,
    )
    page.goto(window.address)
    answered(page, "generate")
    yield page
    context.close()
    assert errors == []
    assert {url for url in asked if not url.startswith(("data:", window.address))} == set()
    assert window.address + "api/model" in asked


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, three: np.ndarray, five: np.ndarray) -> dict[str, Path]:
    """three.png and five.png, 8×8, and text.png, which is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(three[0, 0]).save(folder / "three.png")
    Image.fromarray(five[0, 0]).save(folder / "five.png")
    (folder / "text.png").write_text("hello")
    return {file.stem: file for file in folder.iterdir()}


def answered(page: Any, panel: str) -> None:
    """Wait until a panel shows an answer and awaits no other."""
    script = """id => {
        const panel = document.getElementById(id);
        return panel.ariaBusy === "false" && panel.querySelector(".facts dd").textContent !== "–";
    }"""
    page.wait_for_function(script, arg=panel)


def fact(page: Any, panel: str, name: str) -> str:
    return (
        page.locator(f"#{panel} .facts div", has=page.get_by_text(name, exact=True))
        .locator("dd")
        .text_content()
    )


def picture(page: Any, selector: str) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3]: what an image of the page holds; that it is drawn, and in its full size, is checked."""
    image = page.locator(selector)
    image.wait_for(state="visible")
    page.wait_for_function("s => document.querySelector(s).naturalWidth > 0", arg=selector)
    box = image.bounding_box()
    assert box["width"] >= 150 and box["height"] >= 150
    return pixels(image.get_attribute("src"))


def drop(page: Any, frame: str, file: Path) -> None:
    """Drop a file on a frame, as from a file manager."""
    script = """([selector, bytes, name]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name));
        const frame = document.querySelector(selector);
        const event = { dataTransfer: data, bubbles: true, cancelable: true };
        for (const kind of ["dragover", "drop"]) frame.dispatchEvent(new DragEvent(kind, event));
    }"""
    page.evaluate(script, [frame, list(file.read_bytes()), file.name])


# ---- Generate


def test_the_first_picture_is_there_with_its_calls_and_milliseconds(page: Any, bcm: BCM):
    assert page.title() == "digits · bcm-edge"
    assert "8×8 pixels grey, 10 classes, " in page.locator("#about").text_content()
    np.testing.assert_array_equal(
        picture(page, "#generate [data-picture=picture]"), bcm.generate(1, seed=0, labels=0, uint8=True)[0, 0]
    )
    assert picture(page, "#generate [data-picture=noise]").shape == (8, 8)
    assert (fact(page, "generate", "network calls (NFE)"), fact(page, "generate", "program")) == (
        "1",
        "80>0.002",
    )
    assert re.fullmatch(r"\d+(\.\d)?", fact(page, "generate", "milliseconds"))


def test_another_seed_is_another_picture_and_the_same_seed_the_same(page: Any, bcm: BCM):
    shown = "#generate [data-picture=picture]"
    first = page.locator(shown).get_attribute("src")
    page.get_by_role("button", name="Next seed").click()
    page.wait_for_function("([s, old]) => document.querySelector(s).src !== old", arg=[shown, first])
    assert page.locator("#generate [name=seed]").input_value() == "1"
    np.testing.assert_array_equal(picture(page, shown), bcm.generate(1, seed=1, labels=0, uint8=True)[0, 0])
    page.locator("#generate [name=seed]").fill("0")
    page.keyboard.press("Enter")
    page.wait_for_function("([s, old]) => document.querySelector(s).src === old", arg=[shown, first])


def test_label_and_schedule_are_those_chosen(page: Any, bcm: BCM):
    page.locator("#generate [name=label]").select_option("3")
    page.locator("#generate [name=schedule]").select_option("mixture-4")
    page.wait_for_function("() => document.querySelector('#generate .facts dd').textContent === '4'")
    answered(page, "generate")
    expected = bcm.generate(1, schedule="mixture-4", seed=0, labels=3, uint8=True)[0, 0]
    np.testing.assert_array_equal(picture(page, "#generate [data-picture=picture]"), expected)


def test_an_error_is_shown_and_goes_away(page: Any):
    error = page.locator("#generate [role=alert]")
    page.locator("#generate [name=seed]").fill("-5")
    page.keyboard.press("Enter")
    api.expect(error).to_have_text(
        "Seed must be a whole number from 0 to 18446744073709551615, got '-5'", timeout=PATIENCE
    )
    page.locator("#generate [name=seed]").fill("5")
    page.keyboard.press("Enter")
    api.expect(error).to_have_text("", timeout=PATIENCE)


def test_a_server_that_is_gone_is_said(page: Any):
    page.route("**/api/generate", lambda route: route.abort())
    page.get_by_role("button", name="Next seed").click()
    api.expect(page.locator("#generate [role=alert]")).to_contain_text(
        "The server does not answer", timeout=PATIENCE
    )


# ---- Invert and reconstruct


def test_a_dropped_picture_is_reconstructed(page: Any, files: dict[str, Path], three: np.ndarray, bcm: BCM):
    page.get_by_role("tab", name="Invert & reconstruct").click()
    drop(page, "#reconstruct [data-drop]", files["three"])
    answered(page, "reconstruct")
    np.testing.assert_array_equal(picture(page, "#reconstruct [data-drop] img"), three[0, 0])
    back = bcm.reconstruct(three, labels=3)
    np.testing.assert_array_equal(picture(page, "#reconstruct [data-picture=picture]"), to_uint8(back)[0, 0])
    assert picture(page, "#reconstruct [data-picture=latent]").shape == (8, 8)
    assert picture(page, "#reconstruct [data-picture=error]").shape == (8, 8, 3)
    assert fact(page, "reconstruct", "label") == "3 (guessed in 50 calls)"
    assert float(fact(page, "reconstruct", "mean squared error")) < 0.05
    assert fact(page, "reconstruct", "network calls (NFE)") == "3"


def test_a_chosen_file_that_is_no_picture_is_said(page: Any, files: dict[str, Path]):
    page.get_by_role("tab", name="Invert & reconstruct").click()
    page.locator("#reconstruct input[type=file]").set_input_files(files["text"])
    api.expect(page.locator("#reconstruct [role=alert]")).to_have_text(
        "Picture: not a readable image; convert it to PNG or JPEG", timeout=PATIENCE
    )
    page.locator("#reconstruct input[type=file]").set_input_files(files["three"])
    answered(page, "reconstruct")
    assert page.locator("#reconstruct [role=alert]").text_content() == ""


def test_a_picture_beside_the_frame_does_not_replace_the_page(page: Any, files: dict[str, Path]):
    drop(page, "header", files["three"])
    assert page.locator("#generate").is_visible()


# ---- Between two


def test_the_slider_goes_from_one_picture_to_the_other(
    page: Any, files: dict[str, Path], three: np.ndarray, five: np.ndarray, bcm: BCM
):
    page.get_by_role("tab", name="Between two").click()
    drop(page, "#between [data-drop=a]", files["three"])
    drop(page, "#between [data-drop=b]", files["five"])
    answered(page, "between")
    way = to_uint8(bcm.interpolate(three, five, frames=17, labels=3, labels_b=5))[0, :, 0]
    np.testing.assert_array_equal(picture(page, "#frame"), way[8])
    slider = page.locator("#slider")
    slider.focus()
    for key, step in (("Home", 0), ("ArrowRight", 1), ("End", 16)):
        page.keyboard.press(key)
        api.expect(slider).to_have_attribute(
            "aria-valuetext", f"{step} of 16 steps from left to right", timeout=PATIENCE
        )
        np.testing.assert_array_equal(picture(page, "#frame"), way[step])
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    api.expect(slider).to_have_value("8", timeout=PATIENCE)
    np.testing.assert_array_equal(picture(page, "#frame"), way[8])
    assert fact(page, "between", "labels") == "3, 5 (guessed in 100 calls)"
    assert fact(page, "between", "network calls (NFE)") == "21"


# ---- Fill in


def test_painting_fills_the_hole_and_keeps_every_other_pixel(
    page: Any, files: dict[str, Path], three: np.ndarray, bcm: BCM
):
    page.get_by_role("tab", name="Fill in").click()
    drop(page, "#paint", files["three"])
    page.locator("#paint canvas").wait_for(state="visible")
    page.locator("#fill [name=label]").select_option("3")
    box = page.locator("#paint").bounding_box()
    cell = box["width"] / 8
    page.mouse.move(box["x"] + 1.5 * cell, box["y"] + 4.5 * cell)
    page.mouse.down()
    page.mouse.move(box["x"] + 6.5 * cell, box["y"] + 4.5 * cell)  # one jump: the stroke leaves no gap
    page.mouse.up()
    page.locator("#paint canvas").focus()
    page.keyboard.press("ArrowDown")  # and with the keyboard: the pixel below the last
    page.keyboard.press(" ")
    page.get_by_role("button", name="Fill in").click()
    answered(page, "fill")
    hole = np.zeros((8, 8), bool)
    hole[4, 1:7] = hole[5, 6] = True
    filled = picture(page, "#fill [data-picture=picture]")
    np.testing.assert_array_equal(filled[~hole], three[0, 0][~hole])
    assert (filled[hole] != three[0, 0][hole]).any()
    np.testing.assert_array_equal(filled, to_uint8(bcm.inpaint(three, hole, labels=3))[0, 0])
    assert fact(page, "fill", "filled in") == "11 %"


def test_what_was_painted_can_be_erased_and_cleared(page: Any, files: dict[str, Path]):
    page.get_by_role("tab", name="Fill in").click()
    drop(page, "#paint", files["three"])
    canvas = page.locator("#paint canvas")
    canvas.wait_for(state="visible")
    page.locator("#fill [name=label]").select_option("3")
    painted = """() => {
        const { data } = document.querySelector("#paint canvas").getContext("2d").getImageData(0, 0, 8, 8);
        return data.filter((value, k) => k % 4 === 3 && value).length;
    }"""
    page.locator("#fill [name=brush]").fill("2")
    canvas.click(position={"x": 100, "y": 100})
    assert page.evaluate(painted) == 4
    page.get_by_label("Erase").check()
    page.locator("#fill [name=brush]").fill("1")
    canvas.click(position={"x": 100, "y": 100})
    assert page.evaluate(painted) == 3
    page.get_by_role("button", name="Clear").click()
    assert page.evaluate(painted) == 0
    page.get_by_role("button", name="Fill in").click()
    api.expect(page.locator("#fill [role=alert]")).to_contain_text(
        "is empty, so there is nothing to fill in", timeout=PATIENCE
    )


def test_without_a_picture_or_a_label_there_is_nothing_to_fill(page: Any):
    page.get_by_role("tab", name="Fill in").click()
    error = page.locator("#fill [role=alert]")
    page.get_by_role("button", name="Fill in").click()
    api.expect(error).to_contain_text("There is no picture yet", timeout=PATIENCE)
    page.locator("#fill").get_by_role("button", name="Make one").click()
    page.locator("#paint canvas").wait_for(state="visible")
    assert page.locator("#fill [name=label]").input_value() in list(
        "0123456789"
    )  # of the picture that was made
    page.locator("#fill [name=label]").select_option("")
    page.locator("#paint canvas").click(position={"x": 100, "y": 100})
    page.get_by_role("button", name="Fill in").click()
    api.expect(error).to_contain_text("class-conditional: give labels from 0 to 9", timeout=PATIENCE)


# ---- The page itself


def test_tabs_answer_to_the_keyboard_and_to_the_address(page: Any, window: Window):
    page.get_by_role("tab", name="Generate").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#fill").is_visible() and page.url.endswith("#fill")
    assert page.get_by_role("tab", selected=True).text_content() == "Fill in"
    page.keyboard.press("ArrowRight")
    assert page.locator("#generate").is_visible() and not page.locator("#fill").is_visible()
    page.goto(window.address + "#between")
    page.locator("#between").wait_for(state="visible")


def test_nothing_moves_when_answers_and_errors_arrive(page: Any, files: dict[str, Path]):
    page.get_by_role("tab", name="Invert & reconstruct").click()
    places = """() => ["frame", "facts", "choices"].flatMap((name) =>
        [...document.querySelectorAll(`#reconstruct .${name}`)].map((element) => JSON.stringify(element.getBoundingClientRect())))"""
    before = page.evaluate(places)
    drop(page, "#reconstruct [data-drop]", files["text"])
    api.expect(page.locator("#reconstruct [role=alert]")).not_to_be_empty(timeout=PATIENCE)
    assert page.evaluate(places) == before
    drop(page, "#reconstruct [data-drop]", files["three"])
    answered(page, "reconstruct")
    assert page.evaluate(places) == before


def test_a_model_without_classes_has_no_labels_to_choose(browser: Any, coloured: Answers):
    with serving(coloured) as window:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        for panel, makers in (("reconstruct", 1), ("between", 2), ("fill", 1)):
            page.goto(f"{window.address}#{panel}")
            for number in range(makers):
                page.locator(f"#{panel} .choices").nth(number).get_by_role("button", name="Make one").click()
                page.locator(f"#{panel} [data-drop]").nth(number).locator("img[src]").wait_for()
            assert not page.locator(f"#{panel} [data-classes]").first.is_visible()
            if panel == "fill":
                page.locator("#paint canvas").click()
                page.get_by_role("button", name="Fill in").click()
            answered(page, panel)
            assert page.locator(f"#{panel} [role=alert]").text_content() == ""
        assert picture(page, "#fill [data-picture=picture]").shape == (16, 16, 3)
        page.close()


def test_classes_that_have_names_are_offered_by_name(browser: Any, animals: Answers):
    with serving(animals) as window:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{window.address}#reconstruct")
        choice = page.locator("#reconstruct [data-labels]")
        choice.locator("option").nth(4).wait_for(state="attached")  # the page asks the server for the classes
        assert choice.locator("option").all_text_contents() == [
            "guess",
            "cat",
            "dog",
            "3",
            "tench, Tinca tinca",
        ]
        choice.select_option(label="dog")
        page.locator("#reconstruct .choices").get_by_role("button", name="Make one").click()
        answered(page, "reconstruct")
        assert "labeldog" in page.locator("#reconstruct .facts").text_content()
        page.close()


@pytest.mark.parametrize("width", [360, 700, 1400])
def test_nothing_is_wider_than_the_screen(page: Any, width: int):
    page.set_viewport_size({"width": width, "height": 800})
    for tab in ("Generate", "Invert & reconstruct", "Between two", "Fill in"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
