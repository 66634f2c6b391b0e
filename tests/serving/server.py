"""Starting and stopping a real Triton on a repository.

python server.py               check that the default ports of Triton are free
python server.py REPOSITORY    run a server on these ports until Ctrl-C
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".triton"  # tests/serving/fetch.sh
START_SECONDS = 240  # for a busy machine; on a quiet one the server starts in less than 10
PORTS = (8000, 8001, 8002)  # ports of HTTP, gRPC and metrics, the defaults of Triton


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    http: str  # HOST:PORT
    grpc: str  # HOST:PORT
    metrics: str  # HOST:PORT
    log: Path  # the file with all output of the server

    @property
    def children(self) -> list[int]:
        """The ids of the processes of its Python models."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        processes = [int(word) for word in listed.split()]
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            processes += [int(word) for word in (thread / "children").read_text().split()]
        return sorted(set(processes))

    def figures(self) -> dict[str, float]:
        """Return the values of the metrics page by name{labels}."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics") as page:
            lines = [line for line in page.read().decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def container_options(repository: Path) -> list[str]:
    """Return the options with which the repository's Dockerfile starts Triton, for this machine."""
    command = re.search(r"^CMD (\[.*\])$", (repository / "Dockerfile").read_text(), re.MULTILINE)
    assert command
    program, *options = json.loads(command[1])
    assert program == "tritonserver"
    return [option.replace("=/models", f"={repository}") for option in options]


def start(repository: Path, log: Path, *options: str, ports: Sequence[int] = ()) -> Server:
    """Start a server with the options of the repository's Dockerfile. It may not be ready yet.

    ports: the ports of HTTP, gRPC and metrics; by default free ports.
    """
    http, grpc, metrics = ports or _free_ports(3)
    address = "127.0.0.1"
    command = [
        *(str((FOLDER / "tritonserver").resolve()), f"--backend-directory={FOLDER / 'backends'}"),
        *container_options(repository),
        *(f"--http-address={address}", f"--grpc-address={address}", f"--metrics-address={address}"),
        *(
            f"--http-port={http}",
            f"--grpc-port={grpc}",
            f"--metrics-port={metrics}",
            "--allow-gpu-metrics=false",
        ),
        *("--exit-timeout-secs=5", *options),
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": (FOLDER / "libraries").read_text().strip()}
    environment["PATH"] = (
        f"{FOLDER / 'venv' / 'bin'}:{os.environ['PATH']}"  # the Python of the models is the first in PATH
    )
    environment.pop("PYTHONPATH", None)
    with log.open("wb") as file:
        # Not in the checkout, whose folder `model` would be imported instead of model.py of a backend.
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=log.parent,
            start_new_session=True,
        )
    return Server(process, f"{address}:{http}", f"{address}:{grpc}", f"{address}:{metrics}", log)


def wait(server: Server) -> None:
    """Wait until a server is ready. Raises AssertionError with its log if it ends or takes too long."""
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{server.http}/v2/health/ready", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)  # Triton has no other sign that it is ready
    stop(server)
    raise AssertionError(f"Triton is not ready:\n{server.log.read_text()[-6000:]}")


def stop(server: Server) -> None:
    """Stop a server with Ctrl-C, or kill it if it takes longer than 30 seconds."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
        try:
            server.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()


@contextmanager
def running(repository: Path, log: Path, *options: str) -> Iterator[Server]:
    """Run a server during a block, which begins when the server is ready."""
    server = start(repository, log, *options)
    try:
        wait(server)
        yield server
    finally:
        stop(server)


def main() -> None:
    """Run a server in the foreground, with its log in the repository."""
    if taken := [port for port in PORTS if not _is_free(port)]:
        sys.exit(f"port {taken[0]} is in use by another program")
    if len(sys.argv) < 2:
        return
    repository = Path(sys.argv[1]).resolve()
    if not repository.is_dir():
        sys.exit(f"{repository}: no such folder; bcm-edge triton writes a repository")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    server = start(repository, repository / "triton.log", ports=PORTS)
    try:
        wait(server)
        print(f"ready at http://{server.http}; stop with Ctrl-C; the log is {server.log}", flush=True)
        server.process.wait()
        sys.exit(f"Triton ended by itself:\n{server.log.read_text()[-2000:]}")
    except KeyboardInterrupt:
        print("stopping")
    finally:
        stop(server)


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # so that a port that was closed a moment ago counts as free
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_ports(n: int) -> Sequence[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    main()
