"""The window's server: what it answers is what the methods of the model return; strangers and nonsense are refused, in words."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import ROOT, Cli
from PIL import Image
from processes import child

from bcm_edge.errors import LabelError
from bcm_edge.runtime.pipeline import BCM
from bcm_edge.runtime.pixels import from_uint8, mean_squared_error, to_uint8
from bcm_edge.ui.answers import Answers
from bcm_edge.ui.server import LIMIT, Window, is_served

from .conftest import Ask, answer_to, pixels, url_of

UNREADABLE = "picture: not a readable image; convert it to PNG or JPEG"

# ---- What is answered


def test_model_tells_what_the_page_offers(window: Window):
    status, told = answer_to(f"{window.address}api/model")
    assert status == 200
    assert [told[name] for name in ("name", "channels", "height", "width", "classes")] == [
        "digits",
        1,
        8,
        8,
        10,
    ]
    assert [(s["name"], s["nfe"]) for s in told["schedules"]["generate"]] == [
        *(("one-step", 1), ("ancestral-2", 2), ("zigzag-3", 3), ("mixture-4", 4))
    ]
    assert [(s["name"], s["nfe"]) for s in told["schedules"]["invert"]] == [("invert-1", 1), ("invert-2", 2)]
    assert told["player"].startswith("fp32 on onnxruntime: CPU, ")


def test_generate_is_what_the_model_generates(ask: Ask, bcm: BCM):
    status, told = ask("generate", {"seed": 7, "label": 3, "schedule": "mixture-4"})
    assert (status, told["nfe"], told["label"]) == (200, 4, 3)
    assert told["schedule"] == bcm.schedules["mixture-4"]
    assert 0 < told["milliseconds"] < 60_000
    np.testing.assert_array_equal(
        pixels(told["picture"]), bcm.generate(1, schedule="mixture-4", seed=7, labels=3, uint8=True)[0, 0]
    )
    assert ask("generate", {"seed": 7, "label": 3, "schedule": "mixture-4"})[1]["picture"] == told["picture"]


def test_noise_is_that_of_the_seed_and_grey_in_the_middle(ask: Ask):
    first, other, again = (ask("generate", {"seed": seed, "label": 3})[1]["noise"] for seed in (7, 8, 7))
    assert first == again != other
    assert 100 < pixels(first).mean() < 155


def test_a_seed_may_have_64_bits(ask: Ask, bcm: BCM):
    status, told = ask("generate", {"seed": 2**64 - 1, "label": 0})
    assert status == 200
    np.testing.assert_array_equal(
        pixels(told["picture"]), bcm.generate(1, seed=[2**64 - 1], labels=0, uint8=True)[0, 0]
    )


def test_reconstruct_is_what_the_model_reconstructs(ask: Ask, bcm: BCM, three: np.ndarray):
    status, told = ask(
        "reconstruct",
        {"picture": url_of(three), "label": 3, "seed": 5, "inversion": "invert-1", "schedule": "ancestral-2"},
    )
    assert (status, told["nfe"], told["label"], told["guess_nfe"]) == (200, 3, 3, 0)
    back = bcm.reconstruct(three, inversion="invert-1", schedule="ancestral-2", seed=5, labels=3)
    np.testing.assert_array_equal(pixels(told["picture"]), to_uint8(back)[0, 0])
    np.testing.assert_array_equal(pixels(told["original"]), three[0, 0])
    latent = bcm.invert(three, schedule="invert-1", seed=5, labels=3)
    assert np.abs(pixels(told["latent"]).astype(int) - to_uint8(latent / 2)[0, 0]).max() <= 1
    assert told["mse"] == mean_squared_error(from_uint8(three), back)[0]
    errors = pixels(told["error"])
    assert errors.shape == (8, 8, 3)
    assert np.unravel_index(errors.sum(axis=2).argmax(), (8, 8)) == np.unravel_index(
        np.abs(back - from_uint8(three))[0, 0].argmax(), (8, 8)
    )


def test_a_guessed_label_says_what_it_took(ask: Ask, bcm: BCM, three: np.ndarray):
    told = ask("reconstruct", {"picture": url_of(three), "label": "guess"})[1]
    assert (told["label"], told["guess_nfe"], told["nfe"]) == (3, 50, 3)
    assert told["label"] == bcm.guess_labels(three)[0]


def test_interpolate_is_what_the_model_interpolates(ask: Ask, bcm: BCM, three: np.ndarray, five: np.ndarray):
    status, told = ask(
        "interpolate", {"a": url_of(three), "b": url_of(five), "label": 3, "label_b": "guess", "frames": 5}
    )
    assert (status, told["nfe"], told["label"], told["label_b"], told["guess_nfe"]) == (
        200,
        2 * 2 + 5,
        3,
        5,
        50,
    )
    way = bcm.interpolate(three, five, frames=5, labels=3, labels_b=5)
    np.testing.assert_array_equal([pixels(frame) for frame in told["frames"]], to_uint8(way)[0, :, 0])


def test_inpaint_fills_the_hole_and_nothing_else(ask: Ask, bcm: BCM, three: np.ndarray):
    hole = np.zeros((8, 8), bool)
    hole[4:, 2:5] = True
    mask = ["00000000"] * 4 + ["00111000"] * 4
    status, told = ask("inpaint", {"picture": url_of(three), "mask": mask, "label": 3, "seed": 2})
    assert (status, told["nfe"], told["filled"]) == (200, 8, 12 / 64)
    filled = pixels(told["picture"])
    np.testing.assert_array_equal(filled, to_uint8(bcm.inpaint(three, hole, labels=3, seed=2))[0, 0])
    np.testing.assert_array_equal(filled[~hole], three[0, 0][~hole])
    assert (filled[hole] != three[0, 0][hole]).any()


def test_any_picture_is_taken_as_the_model_sees_it(ask: Ask):
    photograph = Image.new("RGB", (60, 40), "black")
    photograph.paste("white", (20, 0, 40, 40))  # of the middle 40×40: half
    file = io.BytesIO()
    photograph.save(file, "JPEG", quality=95)
    status, told = ask("picture", {"picture": "data:;base64," + base64.b64encode(file.getvalue()).decode()})
    seen = pixels(told["picture"])
    assert (status, seen.shape) == (200, (8, 8))
    assert (seen[:, :1] < 40).all() and (seen[:, 3:5] > 215).all()


def test_a_model_without_classes_in_colour(coloured: Answers):
    coloured.warm_up()
    assert coloured.about()["classes"] is None
    told = coloured.answer("generate", {"seed": 1})
    assert pixels(told["picture"]).shape == (16, 16, 3) and told["label"] is None
    back = coloured.answer("reconstruct", {"picture": told["picture"]})
    assert pixels(back["error"]).shape == (16, 16, 3) and back["guess_nfe"] == 0
    with pytest.raises(LabelError, match="takes no labels"):
        coloured.answer("generate", {"label": 0})


# ---- The page's files


def test_files_of_the_page_carry_the_policy(window: Window):
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


def test_page_names_nothing_elsewhere():
    for file in (ROOT / "ui" / "page").iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
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
def test_paths_that_are_not_in_the_table_are_not_found(window: Window, path: str):
    assert sent(window, "GET", path) == (404, {"error": "no such page"})


# ---- Refusals


def sent(
    window: Window, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """A request whose path no client tidies up."""
    connection = http.client.HTTPConnection("127.0.0.1", window.server_port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    told = json.load(response)
    connection.close()
    return response.status, told


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        (
            "generate",
            {"seed": -1, "label": 3},
            "seed must be a whole number from 0 to 18446744073709551615, got -1",
        ),
        (
            "generate",
            {"seed": 1.5, "label": 3},
            "seed must be a whole number from 0 to 18446744073709551615, got 1.5",
        ),
        (
            "generate",
            {"seed": True, "label": 3},
            "seed must be a whole number from 0 to 18446744073709551615, got True",
        ),
        ("generate", {"label": 10}, "label 10 is out of range; this model has classes 0 to 9"),
        (
            "generate",
            {},
            "this model is class-conditional: give labels from 0 to 9 (--label on the command line)",
        ),
        (
            "generate",
            {"label": "three"},
            "'three' is not a label: this model has no class names; give a number from 0 to 9",
        ),
        ("generate", {"label": [3]}, "label must be a whole number, a class name or 'guess', got [3]"),
        (
            "generate",
            {"label": "guess"},
            "label 'guess' needs an image to guess from, and there is none yet; give the class by number or name",
        ),
        ("generate", {"label": 3, "schedule": 4}, "schedule must be a text, got 4"),
        (
            "generate",
            {"label": 3, "schedule": "invert-2"},
            "schedule '+0.07 0.07>1.25>80' starts from an image, so it cannot generate",
        ),
        ("reconstruct", {"label": 3}, "picture: no picture was sent; choose one first"),
        (
            "reconstruct",
            {"label": 3, "picture": "/etc/passwd"},
            "picture: expected a picture as a data URL in base64",
        ),
        (
            "reconstruct",
            {"label": 3, "picture": "data:image/png;base64,?"},
            "picture: expected a picture as a data URL in base64",
        ),
        ("reconstruct", {"label": 3, "picture": "data:image/png;base64,aGVsbG8="}, UNREADABLE),
        (
            "interpolate",
            {"label": 3, "a": "THREE", "b": "THREE", "frames": 1},
            "frames must be a whole number from 2 to 65, got 1",
        ),
        (
            "inpaint",
            {"label": 3, "picture": "THREE"},
            "mask must be 8 texts of 8 digits each: 1 where to fill in, 0 elsewhere",
        ),
        (
            *("inpaint", {"label": 3, "picture": "THREE", "mask": ["00000002"] * 8}),
            "mask must be 8 texts of 8 digits each: 1 where to fill in, 0 elsewhere",
        ),
        (
            *("inpaint", {"label": 3, "picture": "THREE", "mask": ["0" * 8] * 8}),
            "the mask of image 0 is empty, so there is nothing to fill in",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    ask: Ask, three: np.ndarray, task: str, fields: dict[str, Any], message: str
):
    given = {name: url_of(three) if value == "THREE" else value for name, value in fields.items()}
    assert ask(task, given) == (400, {"error": message})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the request is not valid JSON"),
        (b"\xff", "the request is not valid JSON"),
        (b"[" * 100_000, "the request is not valid JSON"),
        (b"[1]", "the request must be a JSON object"),
    ],
)
def test_bodies_that_are_no_object_are_refused(ask: Ask, body: bytes, message: str):
    assert ask("generate", body=body) == (400, {"error": message})


def test_formats_that_run_programs_are_not_opened(ask: Ask):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    url = "data:application/postscript;base64," + base64.b64encode(postscript).decode()
    assert ask("picture", {"picture": url}) == (400, {"error": UNREADABLE})


def test_too_large_a_request_is_refused_before_it_is_understood(ask: Ask):
    status, told = ask("generate", body=b" " * (LIMIT + 1))
    assert (status, told) == (
        413,
        {"error": f"the request has {LIMIT + 1} bytes; at most 16777216 are accepted"},
    )


def test_a_request_without_a_length_is_refused(window: Window):
    with socket.create_connection(("127.0.0.1", window.server_port), timeout=60) as connection:
        connection.sendall(
            f"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1:{window.server_port}\r\n\r\n".encode()
        )
        assert connection.makefile("rb").readline() == b"HTTP/1.1 411 Length Required\r\n"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_are_refused(window: Window, method: str):
    connection = http.client.HTTPConnection("127.0.0.1", window.server_port, timeout=60)
    connection.request(method, "/")
    response = connection.getresponse()
    assert response.status == 501 and response.headers["Access-Control-Allow-Origin"] is None
    connection.close()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "192.0.2.7", "[", ""]
)
def test_a_foreign_host_is_refused(window: Window, host: str):
    given = host.format(port=window.server_port)
    for method, path in (("GET", "/"), ("GET", "/api/model"), ("POST", "/api/generate")):
        body = b'{"label": 3}' if method == "POST" else None
        status, told = sent(window, method, path, body, Host=given, Content_Type="application/json")
        assert status == 403 and "this server does not have the name" in told["error"]


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST", "127.0.0.1:9000", "[::1]:{port}"])
def test_own_names_are_served_through_a_forwarded_port_too(window: Window, host: str):
    given = host.format(port=window.server_port)
    arguments = {"Host": given, "Origin": f"http://{given}", "Content_Type": "application/json"}
    assert sent(window, "POST", "/api/generate", b'{"label": 3}', **arguments)[0] == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:1",
        "http://localhost:{port}",
    ],
)
def test_a_foreign_origin_is_refused(ask: Ask, window: Window, origin: str):
    status, told = ask("generate", {"label": 3}, Origin=origin.format(port=window.server_port))
    assert (status, told) == (403, {"error": "requests of pages of other servers are refused"})


def test_a_form_of_another_page_is_refused(ask: Ask):
    assert ask("generate", {"label": 3}, Content_Type="text/plain") == (
        415,
        {"error": "the content type of the request must be application/json"},
    )


@pytest.mark.parametrize(
    ("name", "host", "is_open", "served"),
    [
        ("localhost", "127.0.0.1", False, True),
        ("192.0.2.7", "127.0.0.1", False, False),
        ("192.0.2.7", "0.0.0.0", True, True),
        ("jetson.local", "0.0.0.0", True, False),
        ("jetson.local", "Jetson.local", True, True),
        ("::1", "127.0.0.1", False, True),
        ("", "0.0.0.0", True, False),
    ],
)
def test_names_that_are_served(name: str, host: str, is_open: bool, served: bool):
    assert is_served(name, host, is_open) is served


def test_a_bug_is_no_traceback_in_the_page(
    ask: Ask, window: Window, monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(BCM, "generate", broken)
    assert ask("generate", {"label": 3}) == (
        500,
        {"error": "this is a bug in bcm-edge; the terminal in which it runs has the traceback"},
    )
    assert "ZeroDivisionError: secret" in capfd.readouterr().err
    monkeypatch.undo()
    assert ask("generate", {"label": 3})[0] == 200  # the lock was given back


# ---- The command


def test_command_prints_its_address_and_ends_with_ctrl_c(digits_bundle: Path):
    command = [sys.executable, str(ROOT / "cli.py"), "ui", str(digits_bundle), "--port", "0"]
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout and running.stderr
        address = running.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        assert answer_to(f"{address}api/model")[1]["name"] == "digits"
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
        told = running.stderr.read()
        assert (
            re.match(r"digits in fp32 on onnxruntime: CPU, \d+ threads; stop with Ctrl-C\n", told)
            and "Traceback" not in told
        )


def test_a_port_that_is_taken_is_said(digits_bundle: Path, window: Window, cli: Cli):
    done = cli("ui", digits_bundle, "--port", window.server_port)
    assert done.exit_code == 2
    assert (
        done.stderr.startswith(f"error: cannot listen on 127.0.0.1 port {window.server_port} (")
        and "--port 0" in done.stderr
    )


def test_a_host_that_is_none_is_said(digits_bundle: Path, cli: Cli):
    done = cli("ui", digits_bundle, "--host", "no such host", "--port", 0)
    assert done.exit_code == 2 and done.stderr.startswith("error: cannot listen on no such host port 0 (")
