"""What serving costs: images per second and latency of a real Triton against the same chain in this process, taking turns in one run.

    python benchmarks/serving.py digits.bundle --clients 8 --seconds 5

Needs the server that tests/serving/fetch.sh brings. Every client waits for its answer before it asks again. "local": as many threads as
clients on one loaded model, each network call on one thread, which is the fastest way here for many clients. "per move": a client that
plays the schedule itself, one request per network call.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving"))

from asking import Client
from server import Server, running

import bcm_edge
from bcm_edge import BCM
from bcm_edge.export.triton.configs import Serving
from bcm_edge.export.triton.repository import plan_repository, write_repository
from bcm_edge.runtime.chain import injected_noises, start_state
from bcm_edge.runtime.storage.bundle import open_bundle

Ask = Callable[[int], object]  # is given a seed
SCHEDULE = "mixture-4"
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="per way and round")
    parser.add_argument("--instances", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serving = Serving(instances=given.instances)
        write_repository(
            plan_repository(
                open_bundle(given.bundle), Path(folder) / "models", "python", None, serving, (), False, False
            )
        )
        with running(Path(folder) / "models", Path(folder) / "log") as server:
            os.environ["BCM_EDGE_THREADS"] = "1"  # from here on: the server has its own
            with bcm_edge.load(given.bundle, "onnxruntime") as bcm:
                measure(server, bcm, given.clients, given.seconds)


def measure(server: Server, bcm: BCM, clients: int, seconds: float) -> None:
    label = None if bcm.num_classes is None else 3
    ways: dict[str, Callable[[], Ask]] = {
        "local": lambda: lambda seed: bcm.generate(1, schedule=SCHEDULE, seed=seed, labels=label),
        "bcm_generate, gRPC": lambda: whole(Client(server, "grpc"), label),
        "bcm_generate, HTTP": lambda: whole(Client(server, "http"), label),
        "per move, gRPC": lambda: per_move(Client(server, "grpc"), bcm, label),
    }
    rates: dict[tuple[str, int], list[float]] = {}
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for n in (1, clients):
            for name, make in ways.items():
                took = load([make] * n, seconds)
                rates.setdefault((name, n), []).append(len(took) / seconds)
                times.setdefault((name, n), []).extend(took)
    print(f"{'':20}{'clients':>8}{'images/s':>10}{'of local':>10}{'p50 ms':>9}{'p99 ms':>9}")
    for (name, n), found in rates.items():
        share = statistics.median(found) / statistics.median(rates["local", n])
        p50, p99 = (1000 * float(np.percentile(times[name, n], q)) for q in (50, 99))
        print(f"{name:20}{n:8}{statistics.median(found):10.1f}{share:10.2f}{p50:9.1f}{p99:9.1f}")


def load(makers: list[Callable[[], Ask]], seconds: float) -> list[float]:
    """Seconds of every answer, all clients asking at once, from when the last is connected."""
    took: list[float] = []
    ready = threading.Barrier(len(makers))

    def client(number: int, make: Callable[[], Ask]) -> None:
        ask, seed = make(), number * 1_000_000  # a connection over HTTP belongs to its thread
        ask(seed)
        ready.wait()
        until = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < until:
            ask(seed)
            seed += 1
            took.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=client, args=pair) for pair in enumerate(makers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def whole(client: Client, label: int | None) -> Ask:
    labels = {} if label is None else {"label": label}
    return lambda seed: client.ask(
        "bcm_generate", ["result"], {"seed": np.uint64(seed), **labels, "schedule": SCHEDULE}
    )


def per_move(client: Client, bcm: BCM, label: int | None) -> Ask:
    program = bcm.schedule(SCHEDULE)
    labels = {} if label is None else {"label": label}

    def ask(seed: int) -> np.ndarray:
        x, noises = start_state(program, bcm.backend, [seed]), injected_noises(program, bcm.backend, [seed])
        for move, noise in zip(program.moves, noises, strict=True):
            values = {"t": np.float32(move.t), "u": np.float32(move.u), **labels}
            if move.graph == "inverse":
                values |= {"x": x, "noise": np.zeros_like(x) if noise is None else noise}
            else:
                values["x"] = x if noise is None else x + noise
            x = client.ask(f"bcm_{move.graph}", ["x_u"], values)["x_u"]
        return x

    return ask


if __name__ == "__main__":
    main()
