"""The server of the page: its answers are those of the model's methods; its files; the command `ui`."""

from __future__ import annotations

import base64
import io
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from fixture_types import ROOT, Cli
from PIL import Image
from processes import child

from bcm_edge.errors import LabelError
from bcm_edge.runtime.pipeline import BCM
from bcm_edge.runtime.pixels import from_uint8, mean_squared_error, to_uint8
from bcm_edge.ui.answers import Answers
from bcm_edge.ui.server import Window

from .conftest import Ask, answer_to, pixels, sent, url_of

# Answers


def test_facts_of_the_model(window: Window):
    status, answer = answer_to(f"{window.address}api/model")
    assert status == 200
    assert [answer[name] for name in ("name", "channels", "height", "width", "classes")] == [
        "digits",
        1,
        8,
        8,
        10,
    ]
    assert [(s["name"], s["nfe"]) for s in answer["schedules"]["generate"]] == [
        *(("one-step", 1), ("ancestral-2", 2), ("zigzag-3", 3), ("mixture-4", 4))
    ]
    assert [(s["name"], s["nfe"]) for s in answer["schedules"]["invert"]] == [
        ("invert-1", 1),
        ("invert-2", 2),
    ]
    assert answer["player"].startswith("fp32 on onnxruntime: CPU, ")


def test_generate_returns_the_image_of_the_model(ask: Ask, bcm: BCM):
    status, answer = ask("generate", {"seed": 7, "label": 3, "schedule": "mixture-4"})
    assert (status, answer["nfe"], answer["label"]) == (200, 4, 3)
    assert answer["schedule"] == bcm.schedules["mixture-4"]
    assert 0 < answer["milliseconds"] < 60_000
    np.testing.assert_array_equal(
        pixels(answer["picture"]),
        bcm.generate(1, schedule="mixture-4", seed=7, labels=3, output_type="uint8")[0, 0],
    )
    assert (
        ask("generate", {"seed": 7, "label": 3, "schedule": "mixture-4"})[1]["picture"] == answer["picture"]
    )


def test_noise_depends_on_the_seed(ask: Ask):
    first, other, again = (ask("generate", {"seed": seed, "label": 3})[1]["noise"] for seed in (7, 8, 7))
    assert first == again != other
    assert 100 < pixels(first).mean() < 155


def test_seed_may_have_64_bits(ask: Ask, bcm: BCM):
    status, answer = ask("generate", {"seed": 2**64 - 1, "label": 0})
    assert status == 200
    np.testing.assert_array_equal(
        pixels(answer["picture"]), bcm.generate(1, seed=[2**64 - 1], labels=0, output_type="uint8")[0, 0]
    )


def test_reconstruct_returns_the_image_of_the_model(ask: Ask, bcm: BCM, three: np.ndarray):
    status, answer = ask(
        "reconstruct",
        {"picture": url_of(three), "label": 3, "seed": 5, "inversion": "invert-1", "schedule": "ancestral-2"},
    )
    assert (status, answer["nfe"], answer["label"], answer["guess_nfe"]) == (200, 3, 3, 0)
    reconstruction = bcm.reconstruct(three, inversion="invert-1", schedule="ancestral-2", seed=5, labels=3)
    np.testing.assert_array_equal(pixels(answer["picture"]), to_uint8(reconstruction)[0, 0])
    np.testing.assert_array_equal(pixels(answer["original"]), three[0, 0])
    latent = bcm.invert(three, inversion="invert-1", seed=5, labels=3)
    assert np.abs(pixels(answer["latent"]).astype(int) - to_uint8(latent / 2)[0, 0]).max() <= 1
    assert answer["mse"] == mean_squared_error(from_uint8(three), reconstruction)[0]
    errors = pixels(answer["error"])
    assert errors.shape == (8, 8, 3)
    assert np.unravel_index(errors.sum(axis=2).argmax(), (8, 8)) == np.unravel_index(
        np.abs(reconstruction - from_uint8(three))[0, 0].argmax(), (8, 8)
    )


def test_guessed_label_has_its_number_of_calls(ask: Ask, bcm: BCM, three: np.ndarray):
    answer = ask("reconstruct", {"picture": url_of(three), "label": "guess"})[1]
    assert (answer["label"], answer["guess_nfe"], answer["nfe"]) == (3, 50, 3)
    assert answer["label"] == bcm.guess_labels(three)[0]


def test_restyle_returns_the_image_of_the_model(ask: Ask, bcm: BCM, three: np.ndarray):
    fields = {"picture": url_of(three), "label": "guess", "to": "8", "seed": 5, "inversion": "invert-1"}
    status, answer = ask("restyle", fields)
    assert [answer[name] for name in ("nfe", "label", "to", "guess_nfe")] == [2, 3, 8, 50]
    restyled = bcm.restyle(three, inversion="invert-1", seed=5, labels=3, to=8)
    np.testing.assert_array_equal(pixels(answer["picture"]), to_uint8(restyled)[0, 0])
    np.testing.assert_array_equal(pixels(answer["original"]), three[0, 0])
    latent = bcm.invert(three, inversion="invert-1", seed=5, labels=3)
    assert np.abs(pixels(answer["latent"]).astype(int) - to_uint8(latent / 2)[0, 0]).max() <= 1
    assert (status, answer["schedule"]) == (200, "+0.07 0.07>80>0.002")
    status, answer = ask("restyle", {"picture": url_of(three), "label": 3})
    assert (status, answer["error"]) == (
        400,
        "restyle needs the class to generate: give to= with a number from 0 to 9",
    )


def test_interpolate_returns_the_frames_of_the_model(ask: Ask, bcm: BCM, three: np.ndarray, five: np.ndarray):
    status, answer = ask(
        "interpolate", {"a": url_of(three), "b": url_of(five), "label": 3, "label_b": "guess", "frames": 5}
    )
    assert (status, answer["nfe"], answer["label"], answer["label_b"], answer["guess_nfe"]) == (
        200,
        2 * 2 + 5,
        3,
        5,
        50,
    )
    frames = bcm.interpolate(three, five, frames=5, labels=3, labels_b=5)
    np.testing.assert_array_equal([pixels(frame) for frame in answer["frames"]], to_uint8(frames)[0, :, 0])


def test_inpaint_changes_only_the_hole(ask: Ask, bcm: BCM, three: np.ndarray):
    hole = np.zeros((8, 8), bool)
    hole[4:, 2:5] = True
    mask = ["00000000"] * 4 + ["00111000"] * 4
    status, answer = ask("inpaint", {"picture": url_of(three), "mask": mask, "label": 3, "seed": 2})
    assert (status, answer["nfe"], answer["filled"]) == (200, 8, 12 / 64)
    filled = pixels(answer["picture"])
    np.testing.assert_array_equal(filled, to_uint8(bcm.inpaint(three, hole, labels=3, seed=2))[0, 0])
    np.testing.assert_array_equal(filled[~hole], three[0, 0][~hole])
    assert (filled[hole] != three[0, 0][hole]).any()


def test_image_is_cropped_and_resized_for_the_model(ask: Ask):
    photograph = Image.new("RGB", (60, 40), "black")
    photograph.paste("white", (20, 0, 40, 40))  # half of the central 40×40 pixels
    file = io.BytesIO()
    photograph.save(file, "JPEG", quality=95)
    status, answer = ask("picture", {"picture": "data:;base64," + base64.b64encode(file.getvalue()).decode()})
    image = pixels(answer["picture"])
    assert (status, image.shape) == (200, (8, 8))
    assert (image[:, :1] < 40).all() and (image[:, 3:5] > 215).all()


def test_colour_model_without_classes(coloured: Answers):
    coloured.warm_up()
    assert coloured.about()["classes"] is None
    answer = coloured.answer("generate", {"seed": 1})
    assert pixels(answer["picture"]).shape == (16, 16, 3) and answer["label"] is None
    reconstruction = coloured.answer("reconstruct", {"picture": answer["picture"]})
    assert pixels(reconstruction["error"]).shape == (16, 16, 3) and reconstruction["guess_nfe"] == 0
    with pytest.raises(LabelError, match="takes no labels"):
        coloured.answer("generate", {"label": 0})
    with pytest.raises(LabelError, match="this model has no classes; it needs a model with at least two"):
        coloured.answer("restyle", {"picture": answer["picture"], "to": 0})


# Files of the page


def test_files_of_the_page_have_a_content_security_policy(window: Window):
    for path, kind in (
        *(
            ("", "text/html"),
            ("style.css", "text/css"),
            ("page.js", "text/javascript"),
            ("parts.js", "text/javascript"),
        ),
        *(("mask.js", "text/javascript"), ("icon.svg", "image/svg+xml")),
    ):
        with urllib.request.urlopen(window.address + path) as response:
            assert response.headers.get_content_type() == kind
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            policy = response.headers["Content-Security-Policy"]
            assert (
                policy.startswith("default-src 'self'; img-src 'self' data:;")
                and "frame-ancestors 'none'" in policy
            )
            assert len(response.read()) > 100


def test_page_refers_to_no_other_server():
    for file in (ROOT / "ui" / "page").iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # an XML name, not an address
        assert "//" not in re.sub(r"^\s*//.*|\s// .*|/\*.*?\*/", "", text, flags=re.MULTILINE), file.name


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/nothing",
            "/index.html",
            "/page/index.html",
            "/../server.py",
            "/page/../../cli.py",
            "/..%2f..%2fcli.py",
            "/%2e%2e/server.py",
        ),
        *("//etc/passwd", "/api/", "/api/../style.css", "/api/tasks", "/style.css/"),
    ],
)
def test_unknown_paths_are_not_found(window: Window, path: str):
    assert sent(window, "GET", path) == (404, {"error": "no such page"})


# The command


def test_command_prints_its_address_and_ends_with_ctrl_c(digits_bundle: Path):
    command = [sys.executable, str(ROOT / "cli.py"), "ui", str(digits_bundle), "--port", "0"]
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout and running.stderr
        address = running.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        assert answer_to(f"{address}api/model")[1]["name"] == "digits"
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
        messages = running.stderr.read()
        assert (
            re.match(r"digits in fp32 on onnxruntime: CPU, \d+ threads?; stop with Ctrl-C\n", messages)
            and "Traceback" not in messages
        )


def test_port_in_use_is_refused(digits_bundle: Path, window: Window, cli: Cli):
    result = cli("ui", digits_bundle, "--port", window.server_port)
    assert result.exit_code == 2
    assert (
        result.stderr.startswith(f"error: cannot listen on 127.0.0.1 port {window.server_port} (")
        and "--port 0" in result.stderr
    )


def test_invalid_host_is_refused(digits_bundle: Path, cli: Cli):
    result = cli("ui", digits_bundle, "--host", "no such host", "--port", 0)
    assert result.exit_code == 2 and result.stderr.startswith("error: cannot listen on no such host port 0 (")
