"""Starting and stopping a real Triton on a repository.

python server.py               whether Triton's usual ports are free
python server.py REPOSITORY    a server on them, until Ctrl-C
"""

from __future__ import annotations

import os
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
START_SECONDS = 240  # of a busy machine; a quiet one takes less than 10
PORTS = (8000, 8001, 8002)  # of HTTP, gRPC and metrics, as Triton has them


@dataclass(frozen=True)
class Server:
    """A running server. http, grpc, metrics: addresses on this machine; log: what it prints."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    metrics: str
    log: Path

    @property
    def children(self) -> list[int]:
        """Processes of its Python models."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        found = [int(word) for word in listed.split()]
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            found += [int(word) for word in (thread / "children").read_text().split()]
        return sorted(set(found))

    def figures(self) -> dict[str, float]:
        """The metrics page: name{labels} → value."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics") as page:
            lines = [line for line in page.read().decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def start(repository: Path, log: Path, *options: str, ports: Sequence[int] = ()) -> Server:
    """A server whose configs are not completed for it and that ends at the first error. It may not be ready yet. ports: of HTTP, gRPC and
    metrics; by default free ones."""
    http, grpc, metrics = ports or _free_ports(3)
    address = "127.0.0.1"
    command = [
        *(
            str((FOLDER / "tritonserver").resolve()),
            f"--model-repository={repository}",
            f"--backend-directory={FOLDER / 'backends'}",
        ),
        *(f"--http-address={address}", f"--grpc-address={address}", f"--metrics-address={address}"),
        *(
            f"--http-port={http}",
            f"--grpc-port={grpc}",
            f"--metrics-port={metrics}",
            "--allow-gpu-metrics=false",
        ),
        *("--disable-auto-complete-config", "--exit-on-error=true", "--exit-timeout-secs=5", *options),
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": (FOLDER / "libraries").read_text().strip()}
    environment["PATH"] = (
        f"{FOLDER / 'venv' / 'bin'}:{os.environ['PATH']}"  # the models' Python is the first one there
    )
    environment.pop("PYTHONPATH", None)
    with log.open("wb") as file:
        # elsewhere than here, where the folder `model` would be imported in the place of a backend's model.py
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
    """Until it is ready. Raises AssertionError with the log if it ends, or takes too long."""
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{server.http}/v2/health/ready", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)  # for another process; nothing to wait on
    stop(server)
    raise AssertionError(f"Triton is not ready:\n{server.log.read_text()[-6000:]}")


def stop(server: Server) -> None:
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
        try:
            server.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()


@contextmanager
def running(repository: Path, log: Path, *options: str) -> Iterator[Server]:
    server = start(repository, log, *options)
    try:
        wait(server)
        yield server
    finally:
        stop(server)


def main() -> None:
    """For people: the log goes where they look."""
    if taken := [port for port in PORTS if not _is_free(port)]:
        sys.exit(f"port {taken[0]} is in use: another server runs here")
    if len(sys.argv) < 2:
        return
    repository = Path(sys.argv[1]).resolve()
    if not repository.is_dir():
        sys.exit(f"{repository}: no repository; bcm-edge triton writes one")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    server = start(repository, repository / "triton.log", ports=PORTS)
    try:
        wait(server)
        print(f"ready at http://{server.http}; Ctrl-C ends it; what it says is in {server.log}", flush=True)
        server.process.wait()
        sys.exit(f"Triton ended by itself:\n{server.log.read_text()[-2000:]}")
    except KeyboardInterrupt:
        print("ending")
    finally:
        stop(server)


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was left a moment ago is free
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
