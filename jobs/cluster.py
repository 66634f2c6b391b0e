"""Ray: started for one job, or reached at an address. Its actors process shards; Ray Data restarts them."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ..errors import JobError, OutputError
from ..runtime.backends import info
from ..runtime.machine.cache_folder import cache_directory
from ..runtime.machine.resources import processors
from ..runtime.machine.temporary import temporary_folder
from .job import Job, Shard
from .player import Done, Player

LOCAL = "local"  # as an address: start Ray on this machine, and stop it with the command

# Variables for Ray, unless the user has set them. runtime/machine/privacy.py switches telemetry off.
ENVIRONMENT = {"RAY_BACKEND_LOG_LEVEL": "fatal"}

# A file in the home folder. Without it, Ray asks the network in which cloud it runs.
CLUSTER_FILE = "ray_bootstrap_config.yaml"

# Makes Ray use 127.0.0.1 as the address of this machine. (The variable's name is about something else.)
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

STORE = 100 << 20  # bytes of the object store, which has to hold only names and numbers
BLOCKS = 2000  # maximum number of tasks of Ray Data; with more shards, a task has several
MOST_TIMES = 32  # maximum number of threads per processor: Ray starts a process each, and hangs with too many
PATIENCE = 5.0  # seconds to wait for an address


@contextmanager
def connected(address: str, workers: int | None, threads: int) -> Iterator[int]:
    """Connect to Ray for the duration of the block; yields the number of workers.

    workers: None for as many as the processors allow. threads: processors of each worker.
    Raises JobError if the address does not answer, or if there are too few processors.
    """
    if address not in (LOCAL, "auto"):
        _check_answers(address)
    requested, available = (workers or 1) * threads, processors()
    if address == LOCAL and requested > MOST_TIMES * available:
        raise JobError(
            f"--workers and --threads ask for {requested} threads, but this machine has {available} "
            "processors; use fewer"
        )
    with (
        temporary_folder() as folder,
        _environment(address, folder),
        _quiet(),
    ):
        import ray

        try:
            with _silent_descriptor():
                _start(address, workers or max(1, available // threads), threads, str(folder))
            yield _workers(address, workers, threads)
        finally:
            ray.shutdown()


def play_all(job: Job, bundle: Path, output: Path, shards: Sequence[Shard], workers: int) -> Iterator[Done]:
    """Process the shards on actors, each with the bundle in memory; yields their results as they finish.

    If an actor dies, Ray starts it again and repeats its shard. `Player` counts how often.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = ray.data.from_items(
        [asdict(shard) for shard in shards], override_num_blocks=min(len(shards), BLOCKS)
    )
    # With one task in flight per actor, no shard waits behind one that kills its actor.
    actors = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1)
    results = rows.map(
        Player,  # pyright: ignore[reportArgumentType] (Ray's documentation asks for a callable class)
        fn_constructor_args=(job, str(bundle.absolute()), str(output.absolute())),
        compute=actors,
        num_cpus=job.threads,
        num_gpus=1 if info(job.backend).device == "gpu" else None,
    )
    for row in results.iter_rows():
        yield Done(str(row["name"]), int(row["images"]), float(row["seconds"]), str(row["problem"]))


def _start(address: str, workers: int, threads: int, folder: str) -> None:
    """Start or reach Ray. Raises JobError."""
    import ray

    options = {
        "include_dashboard": False,
        "num_cpus": workers * threads,
        "object_store_memory": STORE,
        "_temp_dir": folder,
    }
    try:
        ray.init(
            address=address,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            **(options if address == LOCAL else {}),
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise JobError(f"--ray {address}: {lines[0]}{_hint(address, lines[0])}") from error


def _hint(address: str, message: str) -> str:
    """Return what to do about an error of Ray."""
    if address != LOCAL:
        return "; run the command on a node of the cluster, with RAY_AUTH_MODE=token if it needs a token"
    if "AF_UNIX path length" in message:
        return "; set TMPDIR to a folder with a shorter path, such as /tmp"
    return ""


def _workers(address: str, requested: int | None, threads: int) -> int:
    """Return the number of workers. Raises JobError if the cluster has too few processors."""
    import ray

    fit = int(ray.cluster_resources().get("CPU", 0)) // threads
    if fit < max(1, requested or 1):
        raise JobError(
            f"--ray {address}: the cluster has processors for {fit} workers of {threads} threads, not for "
            f"{requested or 1}; use fewer --workers or --threads"
        )
    return requested or fit


def _check_answers(address: str) -> None:
    """Raise JobError if the address is malformed or does not answer."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise JobError(
            f"--ray {address}: expected HOST:PORT, or auto for the cluster that this machine belongs to"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise JobError(
            f"--ray {address}: no cluster answers at this address ({error.strerror or error}); "
            "start one with: ray start --head"
        ) from error


@contextmanager
def _environment(address: str, folder: Path) -> Iterator[None]:
    """Set the environment variables that Ray reads, for the duration of the block.

    Workers that are started here import this package, whether it is installed or not, and have a folder in
    `folder` as their home.
    """
    values = {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}
    if address.startswith(("127.", "localhost:", "[::1]:")):
        # Otherwise Ray uses another address of this machine, at which the cluster does not answer.
        values |= LOOPBACK
    if address == LOCAL:
        values |= _local_environment(folder)
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _local_environment(folder: Path) -> dict[str, str]:
    """Prepare `folder` for a Ray that is started here, and return its environment variables."""
    package = folder / "package" / __name__.partition(".")[0]
    package.parent.mkdir()
    package.symlink_to(Path(__file__).resolve().parent.parent)
    home = folder / "home"
    home.mkdir()
    (home / CLUSTER_FILE).write_text("{}\n")
    paths = [str(package.parent)]
    if "PYTHONPATH" in os.environ:
        paths.append(os.environ["PYTHONPATH"])
    values = {"HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, paths)), **LOOPBACK}
    with contextlib.suppress(OutputError):  # there is no cache folder
        values["BCM_EDGE_CACHE_DIR"] = str(cache_directory())
    if "RAY_AUTH_MODE" not in os.environ:  # otherwise Ray writes a token into the user's home folder
        values |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return values


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what Ray prints on stdout, for example about dead workers: it is for the result of the command."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextmanager
def _silent_descriptor() -> Iterator[None]:
    """Drop what is written to descriptor 2: Ray's native part prints the log level that silences it."""
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
