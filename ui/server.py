"""The HTTP server of the page: its files from a fixed table, and the tasks of `Answers` as POST /api/TASK.

Pages of other servers can make a browser send requests to this one. Therefore:

- The Host header must be a name of this server. A foreign name that points to its address is refused.
- A POST must come from the page of this server, and be JSON.
- No other page can show this page in a frame.

No part of a request is used as a path of the file system.
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

# Path of a request → the file in PAGE, and its content type.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/parts.js": ("parts.js", "text/javascript; charset=utf-8"),
    "/mask.js": ("mask.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
LIMIT = 16 << 20  # bytes of a request: a photograph of 12 MB in base64
DISCARDED = 4 * LIMIT  # bytes that are read of a request that is too large, so its sender gets the answer
IDLE = 30  # seconds until an idle connection is closed
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refusal(Exception):
    """A request that is refused, with the HTTP status and the message of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Window(ThreadingHTTPServer):
    """The server of the page. It listens once it is created; `serve_forever` answers until `shutdown`."""

    daemon_threads = True
    block_on_close = False  # a browser that is open keeps its connection

    def __init__(self, answers: Answers, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen on a port; 0 takes a free one. Raises InputError if that is not possible."""
        self.host = host
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = addresses[0]
            self.address_family = family
            # Whether other machines can reach the server.
            self.is_open = not ipaddress.ip_address(address[0]).is_loopback
            super().__init__((str(address[0]), port), partial(Handler, answers, host, self.is_open))
        except (OSError, OverflowError, UnicodeError) as error:
            in_use = isinstance(error, OSError) and not isinstance(error, socket.gaierror)
            hint = "; use --port 0 for a free port" if in_use else "; use an address of this machine"
            raise InputError(f"cannot listen on {host} port {port} ({error}){hint}") from error

    def server_bind(self) -> None:
        """Bind as a TCP server does: HTTPServer would ask the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def address(self) -> str:
        """The address to open in a browser on this machine."""
        bound = str(self.server_address[0])
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, bound)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"


def is_served(name: str, host: str, is_open: bool) -> bool:
    """Return whether the name in a Host header belongs to a server that listens on `host`.

    These are loopback addresses, localhost and `host`. If other machines can reach the server, any address
    is accepted: only a name can be pointed at another machine.
    """
    try:
        return ipaddress.ip_address(name).is_loopback or is_open
    except ValueError:
        return name in ("localhost", host.lower())


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "bcm-edge", ""
    timeout = IDLE

    def __init__(self, answers: Answers, host: str, is_open: bool, *connection: Any) -> None:
        self.answers, self.host, self.is_open = answers, host, is_open
        super().__init__(*connection)  # handles all requests

    def do_GET(self) -> None:
        """Answer with a file of the page, or the facts of the model."""
        self._respond(self._get)

    def do_POST(self) -> None:
        """Answer with the result of a task."""
        self._respond(self._post)

    def _get(self) -> tuple[str, bytes]:
        self._check_host()
        path = self.path.partition("?")[0]
        if path == "/api/model":
            return _json(self.answers.about())
        if path not in FILES:
            raise Refusal(404, "no such page")
        name, kind = FILES[path]
        return kind, (PAGE / name).read_bytes()

    def _post(self) -> tuple[str, bytes]:
        body = self._body()  # read in any case: the rest of the connection is the next request
        self._check_host()
        if self.headers.get("Origin", self._origin()).lower() != self._origin():
            raise Refusal(403, "requests of pages of other servers are refused")
        task = self.path.removeprefix("/api/")
        if not self.path.startswith("/api/") or task not in self.answers.tasks:
            raise Refusal(404, "no such page")
        if self.headers.get_content_type() != "application/json":
            raise Refusal(415, "the content type of the request must be application/json")
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            raise Refusal(400, "the request is not valid JSON") from None
        if not isinstance(fields, dict):
            raise Refusal(400, "the request must be a JSON object")
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
        except (
            Exception
        ):  # a bug: the page shows a message, the terminal the traceback, and the server goes on
            traceback.print_exc(file=sys.stderr)
            message = "this is a bug in bcm-edge; the terminal in which it runs has the traceback"
            status, (kind, data) = 500, _json({"error": message})
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
        """Return the body of the request, at most LIMIT bytes. Raises Refusal."""
        text = self.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            self.close_connection = True
            raise Refusal(411, "the request has no valid Content-Length")
        length = int(text)
        if length > LIMIT:
            self.close_connection = True
            left = min(length, DISCARDED)
            while left > 0 and (part := self.rfile.read(min(left, 1 << 20))):
                left -= len(part)
            raise Refusal(413, f"the request has {length} bytes; at most {LIMIT} are accepted")
        return self.rfile.read(length)

    def _check_host(self) -> None:
        try:
            name = urlsplit(self._origin()).hostname or ""
        except ValueError:
            name = ""
        if not is_served(name, self.host, self.is_open):
            advice = f"use its address, or start it with --host {name or 'NAME'}"
            raise Refusal(403, f"this server does not have the name {name!r}; {advice}")

    def _origin(self) -> str:
        """Return the origin of this server's page, as browsers write it."""
        return f"http://{self.headers.get('Host', '')}".lower()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer invalid requests, and those with other methods, with JSON like all others."""
        self.close_connection = True
        self._send(code, *_json({"error": message or "the request is not valid"}))

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal is for errors."""


def _json(values: dict[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(values).encode()
