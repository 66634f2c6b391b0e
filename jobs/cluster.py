"""Ray: started here for one job or reached at an address, quiet, and its actors fed with shards. Scheduling and restarts are Ray Data's."""

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
from ..runtime.machine.cache_folder import cache_directory
from ..runtime.machine.resources import processors
from ..runtime.machine.temporary import temporary_folder
from .job import Job, Shard
from .player import Done, Player

LOCAL = "local"  # as an address: a Ray of this command's own, which ends with it
ENVIRONMENT = {
    "RAY_BACKEND_LOG_LEVEL": "fatal"
}  # unless the user has set it himself; telemetry is off already (runtime/machine/privacy.py)
CLUSTER_FILE = "ray_bootstrap_config.yaml"  # in the home folder; where it lacks, Ray asks the network in which cloud it runs
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"
}  # whatever its name says: Ray then takes 127.0.0.1 for this machine's address
STORE = 100 << 20  # bytes of a local object store: what passes through it are names and numbers
BLOCKS = 2000  # tasks of Ray Data; of more shards than that a task has several
MOST_TIMES = 32  # as many processors as there are may be asked for; Ray starts a process for each, and with too many never ends
PATIENCE = 5.0  # seconds for an address to answer


@contextmanager
def connected(address: str, workers: int | None, threads: int) -> Iterator[int]:
    """Ray, for as long as the block; yields the number of workers: those asked for, or as many as the processors allow.

    Raises JobError for an address that does not answer, or a cluster with too few processors.
    """
    if address not in (LOCAL, "auto"):
        _check_answers(address)
    asked, there = (workers or 1) * threads, processors()
    if address == LOCAL and asked > MOST_TIMES * there:
        raise JobError(
            f"{asked} threads are asked for, and this machine has {there} processors; give fewer --workers or --threads"
        )
    with (
        temporary_folder() as folder,
        _environment(address, folder),
        _quiet(),
    ):
        import ray

        try:
            with _silent_descriptor():
                _start(address, workers or max(1, processors() // threads), threads, str(folder))
            yield _workers(address, workers, threads)
        finally:
            ray.shutdown()


def play_all(job: Job, bundle: Path, output: Path, shards: Sequence[Shard], workers: int) -> Iterator[Done]:
    """Play the shards on so many actors, each with the bundle loaded once; yields what became of each, as they end.

    An actor that dies is started again, and its shard done again; the player counts how often.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = ray.data.from_items(
        [asdict(shard) for shard in shards], override_num_blocks=min(len(shards), BLOCKS)
    )
    played = rows.map(
        Player,  # pyright: ignore[reportArgumentType] (a class that is callable, as its documentation asks)
        fn_constructor_args=(job, str(bundle.absolute()), str(output.absolute())),
        compute=ray.data.ActorPoolStrategy(
            size=workers, max_tasks_in_flight_per_actor=1
        ),  # none waits behind a shard that kills
        num_cpus=job.threads,
        num_gpus=1 if job.backend == "tensorrt" else None,
    )
    for row in played.iter_rows():
        yield Done(str(row["name"]), int(row["images"]), float(row["seconds"]), str(row["problem"]))


def _start(address: str, workers: int, threads: int, folder: str) -> None:
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
        told = str(error).strip().splitlines() or [type(error).__name__]
        hint = "; this machine must be one of its nodes, and where it asks for a token, RAY_AUTH_MODE=token be set"
        if address == LOCAL:
            hint = (
                "; set TMPDIR to a folder with a shorter name, such as /tmp"
                if "AF_UNIX path length" in told[0]
                else ""
            )
        raise JobError(f"--ray {address}: {told[0]}{hint}") from error


def _workers(address: str, asked: int | None, threads: int) -> int:
    import ray

    fit = int(ray.cluster_resources().get("CPU", 0)) // threads
    if fit < max(1, asked or 1):
        raise JobError(
            f"--ray {address}: {asked or 1} workers of {threads} processors do not fit; there is room for {fit}"
        )
    return asked or fit


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise JobError(
            f"--ray {address}: an address is HOST:PORT, or auto for the cluster that runs on this machine"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise JobError(
            f"--ray {address}: nothing answers there ({error.strerror or error}); start one with: ray start --head"
        ) from error


@contextmanager
def _environment(address: str, folder: Path) -> Iterator[None]:
    """The environment that Ray takes its settings from. Workers started here import this very package, installed or not, and have
    the job's folder as their home."""
    values = {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}
    if address.startswith(("127.", "localhost:", "[::1]:")):
        values |= LOOPBACK  # else it is exchanged for an address under which a cluster of loopback alone does not answer
    if address == LOCAL:
        package = folder / "package" / __name__.partition(".")[0]
        package.parent.mkdir()
        package.symlink_to(Path(__file__).resolve().parent.parent)
        home = folder / "home"
        home.mkdir()
        (home / CLUSTER_FILE).write_text("{}\n")
        with contextlib.suppress(OutputError):  # there is no cache folder
            values["BCM_EDGE_CACHE_DIR"] = str(cache_directory())
        values["HOME"] = str(home)
        if (
            "RAY_AUTH_MODE" not in os.environ
        ):  # a token of this job's own; without one Ray leaves its own in the user's home
            values |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        values |= {
            **LOOPBACK,
            "PYTHONPATH": os.pathsep.join(
                [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of Ray's on stdout, where it reports dead workers, and where the command's answer goes."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextmanager
def _silent_descriptor() -> Iterator[None]:
    """Nothing on the process's stderr, where Ray's native part announces the log level that silences it."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
