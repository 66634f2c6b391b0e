"""Measure the cost of serving: a real Triton server against the same chain in this process.

    python benchmarks/serving.py digits.bundle --clients 8 --seconds 5

The benchmark needs the server that tests/serving/fetch.sh downloads. All variants take turns. Each client
waits for its answer before it sends the next request.

    local                 threads, one per client, on one loaded model, with one thread per network call; the
                          fastest way for many clients here
    bcm_generate          a request per image
    per move              a client that plays the schedule itself, with one request per network call
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
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving"))

from asking import Client
from result_files import add_output, origin, write_figures
from server import Server, running

import bcm_edge
from bcm_edge import BCM
from bcm_edge.export.triton.configs import Serving
from bcm_edge.export.triton.plan import plan_repository
from bcm_edge.export.triton.repository import write_repository
from bcm_edge.runtime.chain import injected_noises, start_state
from bcm_edge.runtime.storage.bundle import open_bundle

Ask = Callable[[int], object]  # requests the image of a seed
SCHEDULE = "mixture-4"
ROUNDS = 3


def main() -> None:
    """Start a server on a repository of the bundle, and measure."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=8, help="beside the measurement with one (default: 8)")
    parser.add_argument("--seconds", type=float, default=5.0, help="per variant and round (default: 5)")
    parser.add_argument("--instances", type=int, default=2, help="of each model in the server (default: 2)")
    add_output(parser)
    arguments = parser.parse_args()
    measured_by = origin()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        bundle, serving = open_bundle(arguments.bundle), Serving(instances=arguments.instances)
        write_repository(plan_repository(bundle, models, "python", None, serving, (), False, False))
        with running(models, Path(folder) / "log") as server:
            # Threads of this process. The server was started with another number.
            os.environ["BCM_EDGE_THREADS"] = "1"
            with bcm_edge.load(arguments.bundle, "onnxruntime") as bcm:
                rows = measure(server, bcm, arguments.clients, arguments.seconds)
    print_table(rows)
    write_figures(arguments.output, measured_by, {"schedule": SCHEDULE, "rounds": ROUNDS, "rows": rows})


def measure(server: Server, bcm: BCM, clients: int, seconds: float) -> list[dict[str, Any]]:
    """Measure each variant with one client and with `clients` clients, in turn.

    Each row has the variant, the number of clients, images_per_s (median of the rounds), of_local (the same
    divided by that of the local variant), p50_ms and p99_ms (of all answers).
    """
    label = None if bcm.num_classes is None else 3
    makers: dict[str, Callable[[], Ask]] = {
        "local": lambda: lambda seed: bcm.generate(1, schedule=SCHEDULE, seed=seed, labels=label),
        "bcm_generate, gRPC": lambda: whole(Client(server, "grpc"), label),
        "bcm_generate, HTTP": lambda: whole(Client(server, "http"), label),
        "per move, gRPC": lambda: per_move(Client(server, "grpc"), bcm, label),
    }
    rates: dict[tuple[str, int], list[float]] = {}
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for n in (1, clients):
            for variant, make in makers.items():
                answers = load(make, n, seconds)
                rates.setdefault((variant, n), []).append(len(answers) / seconds)
                times.setdefault((variant, n), []).extend(answers)
    rows = []
    for (variant, n), own_rates in rates.items():
        p50, p99 = (1000 * float(np.percentile(times[variant, n], q)) for q in (50, 99))
        rate = statistics.median(own_rates)
        rows.append(
            {
                "variant": variant,
                "clients": n,
                "images_per_s": rate,
                "of_local": rate / statistics.median(rates["local", n]),
                "p50_ms": p50,
                "p99_ms": p99,
            }
        )
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows of `measure`."""
    print(f"{'':20}{'clients':>8}{'images/s':>10}{'of local':>10}{'p50 ms':>9}{'p99 ms':>9}")
    for row in rows:
        head = f"{row['variant']:20}{row['clients']:8}{row['images_per_s']:10.1f}{row['of_local']:10.2f}"
        print(f"{head}{row['p50_ms']:9.1f}{row['p99_ms']:9.1f}")


def load(make: Callable[[], Ask], clients: int, seconds: float) -> list[float]:
    """Return the seconds of each answer, while all clients send requests at once.

    The time begins when all clients are connected. make: connects a client.
    """
    answers: list[float] = []
    ready = threading.Barrier(clients)

    def client(number: int) -> None:
        # Connected in this thread, because an HTTP connection belongs to its thread.
        ask, seed = make(), number * 1_000_000
        ask(seed)
        ready.wait()
        end = time.perf_counter() + seconds
        while True:
            started = time.perf_counter()
            if started >= end:
                break
            ask(seed)
            seed += 1
            answers.append(time.perf_counter() - started)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def whole(client: Client, label: int | None) -> Ask:
    """Return a function that requests a whole chain."""
    labels = {} if label is None else {"label": label}
    return lambda seed: client.ask(
        "bcm_generate", ["result"], {"seed": np.uint64(seed), **labels, "schedule": SCHEDULE}
    )


def per_move(client: Client, bcm: BCM, label: int | None) -> Ask:
    """Return a function that plays the schedule with one request per move."""
    program = bcm.schedule(SCHEDULE)
    labels = {} if label is None else {"label": label}

    def ask(seed: int) -> np.ndarray:
        x, draws = start_state(program, bcm.backend, [seed]), injected_noises(program, bcm.backend, [seed])
        x = x.values()
        for move, draw in zip(program.moves, draws, strict=True):
            noise = None if draw is None else draw.values()
            inputs = {"t": np.float32(move.t), "u": np.float32(move.u), **labels}
            if move.graph == "inverse":
                inputs |= {"x": x, "noise": np.zeros_like(x) if noise is None else noise}
            else:
                inputs["x"] = x if noise is None else x + noise
            x = client.ask(f"bcm_{move.graph}", ["x_u"], inputs)["x_u"]
        return x

    return ask


if __name__ == "__main__":
    main()
