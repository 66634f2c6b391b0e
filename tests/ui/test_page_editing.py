"""The page in a headless browser: the tabs Restyle, Between two and Fill in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from chromium import PATIENCE, api, needs_browser

from bcm_edge.runtime.pipeline import BCM
from bcm_edge.runtime.pixels import to_uint8

from .browsing import drop, fact, picture, wait_for_answer

pytestmark = needs_browser


# Restyle


def test_dropped_image_is_restyled(page: Any, files: dict[str, Path], three: np.ndarray, bcm: BCM):
    page.get_by_role("tab", name="Restyle").click()
    page.get_by_role("button", name="Restyle").click()
    error = page.locator("#restyle [role=alert]")
    api.expect(error).to_contain_text("No picture yet", timeout=PATIENCE)
    page.locator("#restyle [name=to]").select_option("8")
    drop(page, "#restyle [data-drop]", files["three"])
    wait_for_answer(page, "restyle")
    assert error.text_content() == ""
    eight = to_uint8(bcm.restyle(three, labels=3, to=8))[0, 0]
    np.testing.assert_array_equal(picture(page, "#restyle [data-picture=picture]"), eight)
    assert picture(page, "#restyle [data-picture=latent]").shape == (8, 8)
    assert fact(page, "restyle", "label") == "3 (guessed in 50 calls)"
    assert fact(page, "restyle", "redrawn as") == "8"
    assert fact(page, "restyle", "network calls (NFE)") == "3"
    page.locator("#restyle [name=label]").select_option("3")
    page.locator("#restyle [name=to]").select_option("0")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#restyle dd')].some((dd) => dd.textContent === '0')"
    )
    zero = to_uint8(bcm.restyle(three, labels=3, to=0))[0, 0]
    np.testing.assert_array_equal(picture(page, "#restyle [data-picture=picture]"), zero)
    assert fact(page, "restyle", "label") == "3"


def test_image_that_was_made_is_redrawn_as_another_class(page: Any):
    page.get_by_role("tab", name="Restyle").click()
    page.locator("#restyle [name=label]").select_option("1")  # the class that is preselected to redraw as
    page.locator("#restyle").get_by_role("button", name="Make one").click()
    wait_for_answer(page, "restyle")
    assert (fact(page, "restyle", "label"), fact(page, "restyle", "redrawn as")) == ("1", "2")


# Between two


def test_slider_shows_the_frames_between_two_images(
    page: Any, files: dict[str, Path], three: np.ndarray, five: np.ndarray, bcm: BCM
):
    page.get_by_role("tab", name="Between two").click()
    drop(page, "#between [data-drop=a]", files["three"])
    drop(page, "#between [data-drop=b]", files["five"])
    wait_for_answer(page, "between")
    frames = to_uint8(bcm.interpolate(three, five, frames=17, labels=3, labels_b=5))[0, :, 0]
    np.testing.assert_array_equal(picture(page, "#frame"), frames[8])
    slider = page.locator("#slider")
    slider.focus()
    for key, step in (("Home", 0), ("ArrowRight", 1), ("End", 16)):
        page.keyboard.press(key)
        api.expect(slider).to_have_attribute(
            "aria-valuetext", f"{step} of 16 steps from left to right", timeout=PATIENCE
        )
        np.testing.assert_array_equal(picture(page, "#frame"), frames[step])
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    api.expect(slider).to_have_value("8", timeout=PATIENCE)
    np.testing.assert_array_equal(picture(page, "#frame"), frames[8])
    assert fact(page, "between", "labels") == "3, 5 (guessed in 100 calls)"
    assert fact(page, "between", "network calls (NFE)") == "21"


# Fill in


def test_painted_hole_is_filled_and_other_pixels_stay(
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
    page.mouse.move(box["x"] + 6.5 * cell, box["y"] + 4.5 * cell)  # one jump; the stroke has no gap
    page.mouse.up()
    page.locator("#paint canvas").focus()
    page.keyboard.press("ArrowDown")  # with the keyboard, the pixel below the last one
    page.keyboard.press(" ")
    page.get_by_role("button", name="Fill in").click()
    wait_for_answer(page, "fill")
    hole = np.zeros((8, 8), bool)
    hole[4, 1:7] = hole[5, 6] = True
    filled = picture(page, "#fill [data-picture=picture]")
    np.testing.assert_array_equal(filled[~hole], three[0, 0][~hole])
    assert (filled[hole] != three[0, 0][hole]).any()
    np.testing.assert_array_equal(filled, to_uint8(bcm.inpaint(three, hole, labels=3))[0, 0])
    assert fact(page, "fill", "filled in") == "11 %"


def test_painted_pixels_can_be_erased_and_cleared(page: Any, files: dict[str, Path]):
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


def test_fill_in_needs_an_image_and_a_label(page: Any):
    page.get_by_role("tab", name="Fill in").click()
    error = page.locator("#fill [role=alert]")
    page.get_by_role("button", name="Fill in").click()
    api.expect(error).to_contain_text("No picture yet", timeout=PATIENCE)
    page.locator("#fill").get_by_role("button", name="Make one").click()
    page.locator("#paint canvas").wait_for(state="visible")
    # The label of the generated image.
    assert page.locator("#fill [name=label]").input_value() in list("0123456789")
    page.locator("#fill [name=label]").select_option("")
    page.locator("#paint canvas").click(position={"x": 100, "y": 100})
    page.get_by_role("button", name="Fill in").click()
    api.expect(error).to_contain_text("class-conditional: give labels from 0 to 9", timeout=PATIENCE)
