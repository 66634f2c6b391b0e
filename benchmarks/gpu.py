"""On an NVIDIA GPU: a bundle's fp16 engine beside torch eager and torch.compile (max-autotune, CUDA graphs), in turn in one run.

    python benchmarks/gpu.py -o results.json
    python benchmarks/gpu.py --folder work --batch 256 -o results.json    one batch size: "work" keeps bundle and engine for the next call,
                                                                          results.json the batch sizes that are in it

Without TensorRT the GPU providers of ONNX Runtime play, without those torch alone. torch may be any that has CUDA; nothing is downloaded.
It plays channels last, weights and activations half, the preconditioning float32, and keeps states on the GPU from move to move.

Times are wall-clock, of whole schedules from arrays on the host to the last state there, copies and waiting included; noise is drawn
before, and what that took is told. Single engines and the fp16 matrix product are timed between CUDA events, in turn with the rest. Every
variant's last state is compared with torch in float32 on the same GPU. Each batch size has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from gpu_report import BATCHES, CHAINED, COMPILED, EAGER, SESSIONS, TENSORRT, Chain, Measured, Row, report
from networks import SessionPlayer, TorchPlayer, prepare, providers, rounded

SCHEDULES = "one-step,mixture-4,invert-2"
PREPARE = 450.0  # seconds for an engine to be built, or a variant to have played everything once; what takes longer is not run
MATRIX = 8192  # rows and columns of the matrix product
PART = 16  # images at once in float32
DEVICE = "cuda"


class TooLong(BaseException):
    """Something was not ready in time. No Exception: torch's compiler would take it for a failure of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["imagenet64", "digits"], default="imagenet64", help="the first has random weights")
    parser.add_argument("--batch", default=",".join(map(str, BATCHES)))
    parser.add_argument("--schedules", default=SCHEDULES)
    parser.add_argument("--seconds", type=float, default=3, help="per variant, schedule and batch size")
    parser.add_argument("--folder", type=Path, help="where bundle and engine are made, or lie from a call before; 5 GB")
    parser.add_argument("-o", dest="output", type=Path, help="the figures as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # the process of one batch size: the bundle
    arguments = parser.parse_args()
    batches = [int(word) for word in arguments.batch.split(",")]
    if arguments.measure:
        found = measure(arguments.measure, batches[0], arguments.schedules.split(","), arguments.seconds)
        print(json.dumps(asdict(found)), flush=True)
        os._exit(0)  # torch's compiler may still be at what it was not given the time for
    if reason := missing():
        print(f"benchmarks/gpu.py needs {reason}", file=sys.stderr)
        sys.exit(2)
    measured = earlier(arguments.output, arguments.network)
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle = made(folder / arguments.network, arguments.network)
        no_engine = build_engine(bundle, max(*BATCHES, *batches))
        for batch in batches:
            command = [sys.executable, __file__, "--measure", str(bundle), "--batch", str(batch)]
            command += ["--schedules", arguments.schedules, "--seconds", str(arguments.seconds)]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if ended.returncode:
                say(f"not run: batch {batch}: its process ended with {ended.returncode}")
                continue
            measured[batch] = found = Measured.from_json(json.loads(ended.stdout.splitlines()[-1]))
            if no_engine and TENSORRT in found.not_run:
                found.not_run[TENSORRT] = no_engine  # the build knows best why
            if arguments.output:
                values = {"network": arguments.network, "batches": [asdict(each) for each in measured.values()]}
                arguments.output.write_text(json.dumps(values))
    if not measured:
        sys.exit("nothing was measured")
    print("\n".join(report(arguments.network, [measured[batch] for batch in sorted(measured)])))


def missing() -> str | None:
    """What this machine lacks, in one line."""
    from bcm_edge.errors import BackendError
    from bcm_edge.runtime.doctor import missing_modules
    from bcm_edge.runtime.engines.gpu import probe

    try:
        probe()
    except BackendError as error:
        return f"an NVIDIA GPU: {error}"
    if modules := missing_modules("export"):
        return f"{', '.join(modules)}: pip install 'bcm-edge[export]'"
    import torch

    return None if torch.cuda.is_available() else f"a torch with CUDA; torch {torch.__version__} has none here"


def earlier(output: Path | None, network: str) -> dict[int, Measured]:
    """Batch size → what a call before left in the file, if it was of this network."""
    if output is None or not output.is_file():
        return {}
    values = json.loads(output.read_text())
    return {each["batch"]: Measured.from_json(each) for each in values["batches"]} if values["network"] == network else {}


def made(folder: Path, network: str) -> Path:
    """The bundle in a folder: from a call before, or made now."""
    if not (folder / "bundle").is_dir():
        say(f"exporting {network}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            prepare(folder, network == "imagenet64", "fp32,fp16")
        except subprocess.CalledProcessError as error:
            sys.exit(f"the export failed:\n{error.stderr}")
    return folder / "bundle"


def build_engine(path: Path, largest: int) -> str | None:
    """Build the fp16 engine if it is not there already; or why there is none."""
    from bcm_edge.errors import BcmError
    from bcm_edge.export.engines.build import build, plan_build
    from bcm_edge.runtime.bundle import open_bundle
    from bcm_edge.runtime.engines.store import BuildOptions

    try:
        plan = plan_build(open_bundle(path), BuildOptions("fp16", (1, 16, largest), 8 << 30))
        if plan.present() is None:
            with within(PREPARE):
                build(plan, say, lambda *_: None)
    except (BcmError, TooLong) as error:
        return str(error)
    return None


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooLong in the block once so much time is over."""

    def ring(*_: object) -> None:
        raise TooLong(f"not ready within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def choose(no_tensorrt: str | None, offered: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(variants to play, the others with the reason): TensorRT, else what ONNX Runtime has for this GPU, else torch alone. What takes
    longest to get ready comes last."""
    if no_tensorrt is None:
        return [EAGER, TENSORRT, COMPILED], dict.fromkeys(SESSIONS, "TensorRT is here")
    able = [name for name, provider in SESSIONS.items() if provider in offered]
    absent = {name: f"this onnxruntime has no {provider}" for name, provider in SESSIONS.items() if name not in able}
    return [EAGER, *able, COMPILED], {TENSORRT: no_tensorrt, **absent}


def measure(path: Path, batch: int, schedules: Sequence[str], seconds: float) -> Measured:
    """One batch size, on the GPU."""
    import torch

    from bcm_edge.export.restore import restored_model
    from bcm_edge.runtime.backends.tensorrt import unavailable
    from bcm_edge.runtime.benchmark import flop_per_call, interleave
    from bcm_edge.runtime.bundle import open_bundle

    bundle = open_bundle(path)
    model, flop = restored_model(bundle), flop_per_call(bundle.graphs("fp32")["forward"])
    programs = {name: bundle.schedule(name) for name in schedules}
    given, noise_ms = {}, {}
    for name, program in programs.items():
        started = time.perf_counter()
        given[name] = handed(program, batch, model.config.sample_shape, model.config.num_classes)
        noise_ms[name] = 1e3 * (time.perf_counter() - started)
    torch.backends.cudnn.allow_tf32 = False  # with its 10 bits float32 would be no truth
    truth = {name: in_parts(TorchPlayer(model, DEVICE), *own) for name, own in given.items()}
    torch.cuda.empty_cache()
    torch.backends.cudnn.benchmark = True
    variants, not_run = choose(unavailable("fp16", bundle), providers())
    players, errors, ready_s = {}, {}, {}
    for name in variants:
        say(f"batch {batch}: {name}")
        started = time.perf_counter()
        try:
            with within(PREPARE):
                player = opened(name, bundle, model)
                errors[name] = {s: distance(player.play_moves(*own, every=False)[-1], truth[s]) for s, own in given.items()}
                ready_s[name] = time.perf_counter() - started
                for own in (*given.values(), *given.values()):  # torch.compile records its CUDA graph at a later call than the first
                    player.play_moves(*own, every=False)
        except (Exception, TooLong) as error:  # a library's own; the others go on
            not_run[name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        else:
            players[name] = player
    rows, chain, product, products = [], None, matrix_product(), []
    for schedule, program in programs.items():
        say(f"batch {batch}: {schedule}, {len(players)} variants in turn")
        product.ms.clear()
        runs = [partial(player.play_moves, *given[schedule], every=False) for player in players.values()]
        launches = engine_launches(players[TENSORRT], *given[schedule]) if TENSORRT in players and program.nfe == CHAINED else []
        turns = interleave([*runs, product, *launches], seconds)
        products += product.ms
        for variant, own in zip(players, turns, strict=False):
            rows.append(row(variant, schedule, batch, program.nfe, own, flop, statistics.median(product.ms), errors[variant][schedule]))
        if launches:
            *engines_ms, device_ms = (statistics.median(launch.ms) for launch in launches)
            chain = Chain(next(r.p50_ms for r in rows if (r.variant, r.schedule) == (TENSORRT, schedule)), device_ms, engines_ms)
    played = {name: player.device for name, player in players.items()}
    tflops = product_tflops(statistics.median(products))
    return Measured(batch, rows, chain, tflops, not_run, ready_s, noise_ms, played, environment())


def row(
    variant: str, schedule: str, batch: int, nfe: int, turns: list[list[float]], flop: int, product_ms: float, relative_l2: float
) -> Row:
    """What one variant's turns come to. turns: seconds of every run; flop: of one network call on one image; product_ms: of a matrix
    product that took its turns beside it."""
    from bcm_edge.runtime.benchmark import Start, summarise

    r = summarise(
        argparse.Namespace(name=variant, precision="", device=""), batch, nfe, turns, Start(0, 0), flop, product_tflops(product_ms) * 1e3
    )
    times = r.runs, r.low_ms, r.high_ms, r.p50_ms, r.p90_ms, r.p99_ms, r.images_per_s
    return Row(variant, schedule, *times, r.gflops / 1e3, r.of_matmul, relative_l2)


def product_tflops(ms: float) -> float:
    return 2 * MATRIX**3 / ms / 1e9


def environment() -> dict[str, Any]:
    import torch

    from bcm_edge.runtime.engines.gpu import probe
    from bcm_edge.runtime.engines.installed import missing_tensorrt, tensorrt_version
    from bcm_edge.runtime.environment import versions

    tensorrt = None if missing_tensorrt() else tensorrt_version()
    return {"gpu": str(probe()), "versions": {**versions(), "cudnn": str(torch.backends.cudnn.version()), "tensorrt": tensorrt}}


def handed(program: Any, batch: int, sample_shape: tuple[int, int, int], num_classes: int | None) -> tuple[Any, ...]:
    """(x, moves, noises, labels): what the chain hands a device for a schedule, on the images of runtime/benchmark.py's player."""
    import numpy as np

    from bcm_edge.runtime import chain
    from bcm_edge.runtime.backends.null import NullBackend
    from bcm_edge.runtime.noise import START_DRAW, standard_normal

    seeds, shape = list(range(batch)), NullBackend(sample_shape, num_classes)
    x = np.tanh(standard_normal(seeds, sample_shape, START_DRAW)) if program.from_image else chain.start_state(program, shape, seeds)
    return x, program.moves, chain.injected_noises(program, shape, seeds), None if num_classes is None else np.arange(batch) % num_classes


def in_parts(player: Any, x: Any, moves: Any, noises: Any, labels: Any) -> Any:
    """The last state, PART images at a time: noise belongs to a sample, so it is the same."""
    import numpy as np

    states = []
    for part in (slice(start, start + PART) for start in range(0, len(x), PART)):
        own = [None if noise is None else noise[part] for noise in noises]
        states.append(player.play_moves(x[part], moves, own, None if labels is None else labels[part], every=False)[-1])
    return np.concatenate(states)


def distance(state: Any, truth: Any) -> float:
    """Relative L2."""
    import numpy as np

    return float(np.linalg.norm((state - truth).ravel().astype(np.float64)) / np.linalg.norm(truth.ravel().astype(np.float64)))


def opened(name: str, bundle: Any, model: Any) -> Any:
    """The player of a variant."""
    import torch

    from bcm_edge.runtime.backends import open_backend

    if name == TENSORRT:
        return open_backend("tensorrt", bundle, "fp16")
    if name in SESSIONS:
        return SessionPlayer(bundle, "fp16", SESSIONS[name])
    return TorchPlayer(rounded(model, torch.float16), DEVICE, compiled=name == COMPILED)


class Timed:
    """Work on a CUDA stream (None: torch's) between two events; `ms` has what they said of every run. Work that is not timed goes before,
    so that the GPU does not wait for the processor in between."""

    def __init__(self, work: Callable[[], object], stream: Any = None) -> None:
        self._work, self._stream = work, stream
        self.ms: list[float] = []

    def __call__(self) -> None:
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._work()
        start.record(self._stream)
        self._work()
        end.record(self._stream)
        end.synchronize()
        self.ms.append(start.elapsed_time(end))


def matrix_product() -> Timed:
    """One product of random half-precision matrices, MATRIX × MATRIX."""
    import torch

    a, b, out = (torch.randn(MATRIX, MATRIX, dtype=torch.float16, device=DEVICE) for _ in range(3))
    return Timed(partial(torch.matmul, a, b, out=out))


def engine_launches(backend: Any, x: Any, moves: Any, noises: Any, labels: Any) -> list[Timed]:
    """What the backend launches for every move by itself, and last for all of them; without its copies."""
    import torch

    stream = torch.cuda.ExternalStream(int(backend._stream.handle))
    launches = []
    for part, own in (*(([move], [noise]) for move, noise in zip(moves, noises, strict=True)), (moves, noises)):
        backend.play_moves(x, part, own, labels, every=False)  # records it, and leaves inputs on the GPU
        with backend._chain(part, own, len(x), pixels=False) as chain:
            eager = partial(chain._enqueue, int(backend._stream.handle))
            launches.append(Timed(eager if chain._graph is None else partial(chain._graph.launch, backend._stream), stream))
    return launches


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
