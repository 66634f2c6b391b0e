"""HTTP around `Answers`: the page's files from a fixed table, JSON on POST /api/TASK, and nothing for strangers.

A page that somebody else serves could send requests here through the browser. So the Host must be a name this server is known by (a
foreign name that was pointed at this address is none), a POST must come from this very page and be JSON, and no other page can show
this one in a frame. No part of a request is ever used as a path of the file system.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import socketserver
import sys
import traceback
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import BcmError, InputError
from .answers import Answers

PAGE = Path(__file__).parent / "page"
FILES = {  # what is served → the file, and its kind
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/parts.js": ("parts.js", "text/javascript; charset=utf-8"),
    "/mask.js": ("mask.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
LIMIT = 16 << 20  # bytes of a request: a photograph of 12 MB in base64
DISCARDED = 4 * LIMIT  # bytes read of a request that is too large, so that its sender hears the answer
IDLE = 30  # seconds until a silent connection is closed
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refusal(Exception):
    """A request that is not served, with the status and words of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Window(ThreadingHTTPServer):
    """The server, listening once made. `serve_forever` answers until `shutdown`."""

    daemon_threads = True
    block_on_close = False  # an open browser would hold its connection

    def __init__(self, answers: Answers, host: str = "127.0.0.1", port: int = 0) -> None:
        """port: 0 takes a free one. Raises InputError if it cannot listen there."""
        self.host = host
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.address_family = family
            self.is_open = not ipaddress.ip_address(
                address[0]
            ).is_loopback  # whether other machines can reach it
            super().__init__((str(address[0]), port), partial(Handler, answers, host, self.is_open))
        except (OSError, OverflowError, UnicodeError) as error:
            hint = (
                "; --port 0 takes a free one"
                if isinstance(error, OSError) and not isinstance(error, socket.gaierror)
                else ""
            )
            raise InputError(f"cannot listen on {host} port {port} ({error}){hint}") from error

    def server_bind(self) -> None:
        """As a plain TCP server: HTTPServer would ask the network for this machine's name, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def address(self) -> str:
        """What to open in a browser."""
        bound = str(self.server_address[0])
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, bound)
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.server_port}/"


def is_served(name: str, host: str, is_open: bool) -> bool:
    """Whether the name in a Host header is one of a server that was told to listen on `host`.

    Addresses of the loopback are, and localhost, and the host that was given; and any address where other machines can reach the server:
    only a name can be pointed at another's machine.
    """
    try:
        return ipaddress.ip_address(name).is_loopback or is_open
    except ValueError:
        return name in ("localhost", host.lower())


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "bcm-edge", ""
    timeout = IDLE

    def __init__(self, answers: Answers, host: str, is_open: bool, *connection: Any) -> None:
        self.answers, self.host, self.is_open = answers, host, is_open
        super().__init__(*connection)  # which handles all requests

    def do_GET(self) -> None:
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def _get(self) -> tuple[str, bytes]:
        self._check_host()
        path = self.path.partition("?")[0]
        if path == "/api/model":
            return _json(self.answers.about())
        if path not in FILES:
            raise Refusal(404, "nothing here")
        name, kind = FILES[path]
        return kind, (PAGE / name).read_bytes()

    def _post(self) -> tuple[str, bytes]:
        body = self._body()  # read first: what is left unread would be taken for the next request
        self._check_host()
        if self.headers.get("Origin", self._origin()).lower() != self._origin():
            raise Refusal(403, "requests of other pages are not answered")
        task = self.path.removeprefix("/api/")
        if not self.path.startswith("/api/") or task not in self.answers.tasks:
            raise Refusal(404, "nothing here")
        if self.headers.get_content_type() != "application/json":
            raise Refusal(415, "send application/json")
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            raise Refusal(400, "the request is not JSON") from None
        if not isinstance(fields, dict):
            raise Refusal(400, "the request is not a JSON object")
        return _json(self.answers.answer(task, fields))

    def _respond(self, work: Callable[[], tuple[str, bytes]]) -> None:
        try:
            status, (kind, data) = 200, work()
        except Refusal as refusal:
            status, (kind, data) = refusal.status, _json({"error": str(refusal)})
        except BcmError as error:
            status, (kind, data) = 400, _json({"error": str(error)})
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception:  # a bug: the page hears of it, the terminal has it whole, and the window stays open
            traceback.print_exc(file=sys.stderr)
            status, (kind, data) = (
                500,
                _json({"error": "a bug in bcm-edge; the terminal that it runs in says more"}),
            )
        self._send(status, kind, data)

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **HEADERS}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        """What was sent, at most LIMIT bytes. Raises Refusal."""
        text = self.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            self.close_connection = True
            raise Refusal(411, "the request does not say its length")
        length = int(text)
        if length > LIMIT:
            self.close_connection = True
            left = min(length, DISCARDED)
            while left > 0 and (part := self.rfile.read(min(left, 1 << 20))):
                left -= len(part)
            raise Refusal(413, f"the request has {length} bytes; at most {LIMIT} are taken")
        return self.rfile.read(length)

    def _check_host(self) -> None:
        try:
            name = urlsplit(self._origin()).hostname or ""
        except ValueError:
            name = ""
        if not is_served(name, self.host, self.is_open):
            raise Refusal(
                403,
                f"this server is not known by the name {name!r}; use its address, or start it with --host {name or 'NAME'}",
            )

    def _origin(self) -> str:
        """Where the page of this server comes from, as the browser calls it."""
        return f"http://{self.headers.get('Host', '')}".lower()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """For requests that are no HTTP, or of other methods: as JSON, like every other answer."""
        self.close_connection = True
        self._send(code, *_json({"error": message or "not understood"}))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is for what goes wrong."""


def _json(values: dict[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(values).encode()
