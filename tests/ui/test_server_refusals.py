"""Requests that the server of the page refuses."""

from __future__ import annotations

import base64
import http.client
import socket
from typing import Any

import numpy as np
import pytest

from bcm_edge.runtime.pipeline import BCM
from bcm_edge.ui.server import LIMIT, Window, is_served

from .conftest import Ask, sent, url_of

UNREADABLE = "picture: not a readable image; convert it to PNG or JPEG"


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
            "this model is class-conditional: give labels from 0 to 9",
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
            "label guess needs images as input; give a number or a name",
        ),
        ("generate", {"label": 3, "schedule": 4}, "schedule must be a text, got 4"),
        (
            "generate",
            {"label": 3, "schedule": "invert-2"},
            "schedule '+0.07 0.07>1.25>80' starts from an image, so it cannot generate; it leads to noise, "
            "so give it as inversion=",
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
def test_invalid_fields_are_refused(
    ask: Ask, three: np.ndarray, task: str, fields: dict[str, Any], message: str
):
    request = {name: url_of(three) if value == "THREE" else value for name, value in fields.items()}
    assert ask(task, request) == (400, {"error": message})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the request is not valid JSON"),
        (b"\xff", "the request is not valid JSON"),
        (b"[" * 100_000, "the request is not valid JSON"),
        (b"[1]", "the request must be a JSON object"),
    ],
)
def test_bodies_that_are_not_json_objects_are_refused(ask: Ask, body: bytes, message: str):
    assert ask("generate", body=body) == (400, {"error": message})


def test_formats_that_can_run_programs_are_not_opened(ask: Ask):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    url = "data:application/postscript;base64," + base64.b64encode(postscript).decode()
    assert ask("picture", {"picture": url}) == (400, {"error": UNREADABLE})


def test_request_that_is_too_large_is_refused(ask: Ask):
    status, answer = ask("generate", body=b" " * (LIMIT + 1))
    assert (status, answer) == (
        413,
        {"error": f"the request has {LIMIT + 1} bytes; at most 16777216 are accepted"},
    )


def test_request_without_a_length_is_refused(window: Window):
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
def test_unknown_host_is_refused(window: Window, host: str):
    name = host.format(port=window.server_port)
    for method, path in (("GET", "/"), ("GET", "/api/model"), ("POST", "/api/generate")):
        body = b'{"label": 3}' if method == "POST" else None
        status, answer = sent(window, method, path, body, Host=name, Content_Type="application/json")
        assert status == 403 and "this server does not have the name" in answer["error"]


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST", "127.0.0.1:9000", "[::1]:{port}"])
def test_own_hosts_are_served_with_a_forwarded_port(window: Window, host: str):
    name = host.format(port=window.server_port)
    arguments = {"Host": name, "Origin": f"http://{name}", "Content_Type": "application/json"}
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
def test_unknown_origin_is_refused(ask: Ask, window: Window, origin: str):
    status, answer = ask("generate", {"label": 3}, Origin=origin.format(port=window.server_port))
    assert (status, answer) == (403, {"error": "requests of pages of other servers are refused"})


def test_form_of_another_page_is_refused(ask: Ask):
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
def test_host_names_that_are_served(name: str, host: str, is_open: bool, served: bool):
    assert is_served(name, host, is_open) is served


def test_bug_shows_no_traceback_in_the_page(
    ask: Ask, window: Window, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
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
    assert ask("generate", {"label": 3})[0] == 200  # the lock was released
