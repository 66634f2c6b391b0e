"""The page in a headless browser: the tabs Generate and Invert & reconstruct, and the page as a whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import PATIENCE, api, needs_browser

from bcm_edge.runtime.pipeline import BCM
from bcm_edge.runtime.pixels import to_uint8
from bcm_edge.ui.answers import Answers
from bcm_edge.ui.server import Window

from .browsing import drop, fact, picture, wait_for_answer
from .conftest import serving

pytestmark = needs_browser


# Generate


def test_first_image_is_shown_with_its_facts(page: Any, bcm: BCM):
    assert page.title() == "digits · bcm-edge"
    assert "8×8 pixels grey, 10 classes, " in page.locator("#about").text_content()
    np.testing.assert_array_equal(
        picture(page, "#generate [data-picture=picture]"),
        bcm.generate(1, seed=0, labels=0, output_type="uint8")[0, 0],
    )
    assert picture(page, "#generate [data-picture=noise]").shape == (8, 8)
    assert (fact(page, "generate", "network calls (NFE)"), fact(page, "generate", "program")) == (
        "1",
        "80>0.002",
    )
    assert re.fullmatch(r"\d+(\.\d)?", fact(page, "generate", "milliseconds"))


def test_image_depends_on_the_seed(page: Any, bcm: BCM):
    shown = "#generate [data-picture=picture]"
    first = page.locator(shown).get_attribute("src")
    page.get_by_role("button", name="Next seed").click()
    page.wait_for_function("([s, old]) => document.querySelector(s).src !== old", arg=[shown, first])
    assert page.locator("#generate [name=seed]").input_value() == "1"
    np.testing.assert_array_equal(
        picture(page, shown), bcm.generate(1, seed=1, labels=0, output_type="uint8")[0, 0]
    )
    page.locator("#generate [name=seed]").fill("0")
    page.keyboard.press("Enter")
    page.wait_for_function("([s, old]) => document.querySelector(s).src === old", arg=[shown, first])


def test_label_and_schedule_can_be_selected(page: Any, bcm: BCM):
    page.locator("#generate [name=label]").select_option("3")
    page.locator("#generate [name=schedule]").select_option("mixture-4")
    page.wait_for_function("() => document.querySelector('#generate .facts dd').textContent === '4'")
    wait_for_answer(page, "generate")
    expected = bcm.generate(1, schedule="mixture-4", seed=0, labels=3, output_type="uint8")[0, 0]
    np.testing.assert_array_equal(picture(page, "#generate [data-picture=picture]"), expected)


def test_error_is_shown_and_removed(page: Any):
    error = page.locator("#generate [role=alert]")
    page.locator("#generate [name=seed]").fill("-5")
    page.keyboard.press("Enter")
    api.expect(error).to_have_text(
        "Seed must be a whole number from 0 to 18446744073709551615, got '-5'", timeout=PATIENCE
    )
    page.locator("#generate [name=seed]").fill("5")
    page.keyboard.press("Enter")
    api.expect(error).to_have_text("", timeout=PATIENCE)


def test_missing_server_is_reported(page: Any):
    page.route("**/api/generate", lambda route: route.abort())
    page.get_by_role("button", name="Next seed").click()
    api.expect(page.locator("#generate [role=alert]")).to_contain_text(
        "The server does not answer", timeout=PATIENCE
    )


# Invert and reconstruct


def test_dropped_image_is_reconstructed(page: Any, files: dict[str, Path], three: np.ndarray, bcm: BCM):
    page.get_by_role("tab", name="Invert & reconstruct").click()
    drop(page, "#reconstruct [data-drop]", files["three"])
    wait_for_answer(page, "reconstruct")
    np.testing.assert_array_equal(picture(page, "#reconstruct [data-drop] img"), three[0, 0])
    back = bcm.reconstruct(three, labels=3)
    np.testing.assert_array_equal(picture(page, "#reconstruct [data-picture=picture]"), to_uint8(back)[0, 0])
    assert picture(page, "#reconstruct [data-picture=latent]").shape == (8, 8)
    assert picture(page, "#reconstruct [data-picture=error]").shape == (8, 8, 3)
    assert fact(page, "reconstruct", "label") == "3 (guessed in 50 calls)"
    assert float(fact(page, "reconstruct", "mean squared error")) < 0.05
    assert fact(page, "reconstruct", "network calls (NFE)") == "3"


def test_selected_file_that_is_not_an_image_is_reported(page: Any, files: dict[str, Path]):
    page.get_by_role("tab", name="Invert & reconstruct").click()
    page.locator("#reconstruct input[type=file]").set_input_files(files["text"])
    api.expect(page.locator("#reconstruct [role=alert]")).to_have_text(
        "Picture: not a readable image; convert it to PNG or JPEG", timeout=PATIENCE
    )
    page.locator("#reconstruct input[type=file]").set_input_files(files["three"])
    wait_for_answer(page, "reconstruct")
    assert page.locator("#reconstruct [role=alert]").text_content() == ""


def test_image_dropped_outside_the_frame_does_not_replace_the_page(page: Any, files: dict[str, Path]):
    drop(page, "header", files["three"])
    assert page.locator("#generate").is_visible()


# The page itself


def test_tabs_can_be_selected_by_keyboard_and_by_url(page: Any, window: Window):
    page.get_by_role("tab", name="Generate").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#fill").is_visible() and page.url.endswith("#fill")
    assert page.get_by_role("tab", selected=True).text_content() == "Fill in"
    page.keyboard.press("ArrowRight")
    assert page.locator("#generate").is_visible() and not page.locator("#fill").is_visible()
    page.goto(window.address + "#between")
    page.locator("#between").wait_for(state="visible")


def test_layout_does_not_change_when_answers_arrive(page: Any, files: dict[str, Path]):
    page.get_by_role("tab", name="Invert & reconstruct").click()
    places = """() => ["frame", "facts", "choices"].flatMap((name) =>
        [...document.querySelectorAll(`#reconstruct .${name}`)].map((element) =>
            JSON.stringify(element.getBoundingClientRect())))"""
    before = page.evaluate(places)
    drop(page, "#reconstruct [data-drop]", files["text"])
    api.expect(page.locator("#reconstruct [role=alert]")).not_to_be_empty(timeout=PATIENCE)
    assert page.evaluate(places) == before
    drop(page, "#reconstruct [data-drop]", files["three"])
    wait_for_answer(page, "reconstruct")
    assert page.evaluate(places) == before


def test_model_without_classes_has_no_labels(browser: Any, coloured: Answers):
    with serving(coloured) as window:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        for panel, buttons in (("reconstruct", 1), ("between", 2), ("fill", 1)):
            page.goto(f"{window.address}#{panel}")
            for number in range(buttons):
                page.locator(f"#{panel} .choices").nth(number).get_by_role("button", name="Make one").click()
                page.locator(f"#{panel} [data-drop]").nth(number).locator("img[src]").wait_for()
            assert not page.locator(f"#{panel} [data-classes]").first.is_visible()
            assert not page.get_by_role("tab", name="Restyle").is_visible()
            if panel == "fill":
                page.locator("#paint canvas").click()
                page.get_by_role("button", name="Fill in").click()
            wait_for_answer(page, panel)
            assert page.locator(f"#{panel} [role=alert]").text_content() == ""
        assert picture(page, "#fill [data-picture=picture]").shape == (16, 16, 3)
        page.goto("about:blank")
        page.goto(f"{window.address}#restyle")
        page.locator("#generate").wait_for(state="visible")  # the panel needs two classes
        page.get_by_role("tab", name="Invert & reconstruct").focus()
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("tab", selected=True).text_content() == "Between two"
        page.close()


def test_classes_are_listed_by_name(browser: Any, animals: Answers):
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
        wait_for_answer(page, "reconstruct")
        assert "labeldog" in page.locator("#reconstruct .facts").text_content()
        page.close()


@pytest.mark.parametrize("width", [360, 700, 1400])
def test_page_is_not_wider_than_the_screen(page: Any, width: int):
    page.set_viewport_size({"width": width, "height": 800})
    for tab in ("Generate", "Invert & reconstruct", "Restyle", "Between two", "Fill in"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
