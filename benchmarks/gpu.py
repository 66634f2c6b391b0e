"""Measure a bundle in fp16 on an NVIDIA GPU: TensorRT and ONNX Runtime beside torch eager and torch.compile.

    python benchmarks/gpu.py -o results.json
    python benchmarks/gpu.py -o results.json --budget 840                  end within 14 minutes
    python benchmarks/gpu.py -o results.json --folder work --batch 256     one batch size; keep the engines
    python benchmarks/gpu.py -o options.json --variants options            compare options of the libraries

The command exports the network, builds the engines, and runs each batch size in a process of its own. A
variant that cannot run here is reported with the reason. Each measurement is written to the JSON file at
once, and a later call with the same file replaces the batch sizes that it measures. Standard output is
Markdown for docs/performance.md; `python benchmarks/gpu_report.py results.json` prints it again without a
GPU.

Times are wall-clock times of whole schedules, from arrays on the host to the last state on the host, copies
and waiting included. Noise is drawn before, and its time is reported, except in the two variants that draw
it. Single engines and the fp16 matrix product are timed with CUDA events. The last state of each variant is
compared with torch in float32 on the same GPU. torch uses channels last and fp16 with the preconditioning in
float32, and keeps states on the GPU between moves. Each variant is measured alone when it is ready, and in
turn with all others once all are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from gpu_arguments import arguments_parser
from gpu_limits import Budget, end_with_parent, run
from gpu_measure import BatchMeasurement
from gpu_report import BATCHES, report
from gpu_results import SETS, Measured, Results
from gpu_variants import ENGINES, build_engine
from gpu_work import say
from networks import prepare
from result_files import origin

PROGRAM = __file__
GRACE = 2.0  # seconds in which a process may end by itself when its time is over


def main() -> None:
    """Measure all batch sizes, and print the report."""
    parser = arguments_parser(__doc__)
    arguments = parser.parse_args()
    if arguments.child:
        be_child(*arguments.child)
    budget = Budget.start(arguments.budget)
    if reason := missing():
        print(f"benchmarks/gpu.py needs {reason}", file=sys.stderr)
        sys.exit(2)
    measured_on, measured_by = environment(), origin()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            results = Results(arguments.output or Path(scratch) / "results.json", arguments.network)
        except ValueError as error:
            parser.error(str(error))
        except OSError as error:
            parser.error(f"{arguments.output} cannot be read ({error.strerror})")
        results.save()  # fails now if the file cannot be written
        variants = list(SETS[arguments.variants])
        made = [
            Measured(batch, measured_on, measured_by=measured_by, variants=list(variants))
            for batch in arguments.batch
        ]
        records = measure_all(arguments, budget, results, made, Path(scratch))
    print(
        "\n".join(
            report(arguments.network, list(results.batches.values()), earlier_figures(records, results))
        )
    )
    sys.exit(0 if any(record.rows for record in records) else 1)


def measure_all(
    arguments: argparse.Namespace,
    budget: Budget,
    results: Results,
    empty: Sequence[Measured],
    scratch: Path,
) -> list[Measured]:
    """Export, build, and measure the batch sizes. Each gets an equal part of the remaining time.

    empty: the records to fill, one per batch size.
    """
    folder = (arguments.folder or scratch) / arguments.network
    bundle = str(folder / "bundle")
    network = {"folder": str(folder), "network": arguments.network}
    variants, largest = SETS[arguments.variants], largest_batch(arguments)
    no_bundle = child("export", network, budget.left(), budget.reason)
    if no_bundle:
        reasons = dict.fromkeys(variants, f"the bundle was not exported: {no_bundle}")
    else:
        reasons = build_engines(bundle, variants, largest, budget)
    request = {
        "bundle": bundle,
        "output": str(results.path),
        "network": arguments.network,
        "schedules": arguments.schedules.split(","),
        "seconds": arguments.seconds,
        "matrix": arguments.matrix,
        "largest": largest,
    }
    records = []
    for position, record in enumerate(empty):
        record.not_run = dict(reasons)
        if no_bundle is None:
            part = budget.share(len(empty) - position)
            record = measure_batch(record, part, scratch / f"batch-{record.batch}.json", request)
        results.put(record)
        records.append(record)
    return records


def largest_batch(arguments: argparse.Namespace) -> int:
    """Return the largest batch of the engines. Calls with other batch sizes use the same engines."""
    usual = max(BATCHES) if arguments.network == "imagenet64" else 64  # digits: to try the benchmark
    return max(usual, *arguments.batch)


def build_engines(bundle: str, variants: Sequence[str], largest: int, budget: Budget) -> dict[str, str]:
    """Build the engines of the variants, in half of the remaining time. Returns variant → why it has none."""
    wanted = list(dict.fromkeys(ENGINES[variant] for variant in variants if variant in ENGINES))
    half = budget.left() / 2  # the rest is for measuring
    end, failed = time.monotonic() + half, {}
    for variant in wanted:
        request = {"bundle": bundle, "variant": variant, "largest": largest}
        too_long = f"the engine was not built within {half:.0f} s, and {budget.reason}"
        if problem := child("build", request, end - time.monotonic(), too_long):
            failed[variant] = problem
    return {variant: failed[ENGINES[variant]] for variant in variants if ENGINES.get(variant) in failed}


def measure_batch(record: Measured, budget: Budget, state: Path, request: dict[str, Any]) -> Measured:
    """Measure one batch size in a separate process. After a crash, the next process skips that variant."""
    request = {"state": str(state), "budget": asdict(budget), **request}
    for _ in record.variants:
        record.write(state)
        limit = budget.left() + GRACE if budget.left() else 0.0
        problem = child("measure", request, limit, budget.reason)
        record = Measured.read(state)
        if problem is None:
            return record
        say(f"batch {record.batch}: {record.doing or 'start'}: {problem}")
        if not note_end(record, problem, out_of_time=problem == budget.reason):
            break
    return record


def note_end(record: Measured, problem: str, out_of_time: bool) -> bool:
    """Record the work that a process left undone. Returns whether another process can do the rest."""
    work, record.doing = record.doing, None
    if work is not None:
        record.not_run.setdefault(work, problem)
    if work in record.variants and not out_of_time and not set(record.variants) <= set(record.not_run):
        return True
    for name in record.variants:
        if not record.rows_of(name):
            record.not_run.setdefault(name, problem)
    return False


def earlier_figures(records: Sequence[Measured], results: Results) -> list[str]:
    """Return a line for each batch size without a new figure, whose figures of an earlier call stay."""
    lines = []
    for record in records:
        if results.batches[record.batch] is not record:
            reasons = "; ".join(dict.fromkeys(record.not_run.values()))
            lines.append(f"batch {record.batch} again, the figures are those of an earlier call: {reasons}")
    return lines


def child(stage: str, request: dict[str, Any], seconds: float, too_long: str) -> str | None:
    """Run a stage as a process. Returns None, why it failed, or `too_long` if it did not end in time."""
    if seconds <= 0:
        return too_long
    try:
        return run([sys.executable, PROGRAM, "--child", stage, json.dumps(request)], seconds)
    except subprocess.TimeoutExpired:
        return too_long


def be_child(stage: str, request: str) -> NoReturn:
    """Run a stage in the process that `child` starts. The last line of output is the reason of a failure."""
    from bcm_edge.errors import BcmError

    end_with_parent()
    code = 0
    try:
        {"export": export_network, "build": build_engine, "measure": measure}[stage](**json.loads(request))
    except BcmError as error:
        print(" ".join(str(error).split()))
        code = 1
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        code = 1
    sys.stdout.flush()
    os._exit(code)  # torch's compiler may still be at work


def export_network(folder: str, network: str) -> None:
    """Write the bundle into the folder, unless an earlier call has."""
    if not (Path(folder) / "bundle").is_dir():
        say(f"exporting {network}")
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            prepare(Path(folder), network == "imagenet64", "fp32,fp16")
        except subprocess.CalledProcessError as error:
            sys.stderr.write(error.stderr)
            raise RuntimeError("\n".join(error.stderr.splitlines()[-1:])) from None


def measure(bundle: str, state: str, output: str, network: str, budget: dict[str, Any], **how: Any) -> None:
    """Measure one batch size. The budget is valid here too: time.monotonic() is the same in all processes."""
    results = Results(Path(output), network)
    BatchMeasurement(Path(bundle), Path(state), results, Budget(**budget), **how).run()


def missing() -> str | None:
    """Return what this machine lacks, in one line, or None."""
    from bcm_edge.errors import BackendError
    from bcm_edge.runtime.checks.doctor import missing_packages
    from bcm_edge.runtime.machine.gpu import probe
    from bcm_edge.runtime.machine.install_hints import install_line

    try:
        probe()
    except BackendError as error:
        return f"an NVIDIA GPU: {error}"
    if modules := missing_packages("export"):
        return f"{', '.join(modules)}: {install_line('export')}"
    import torch

    if torch.cuda.is_available():
        return None
    return f"a torch with CUDA; torch {torch.__version__} has none here"


def environment() -> dict[str, Any]:
    """Return the GPU, and the versions of the libraries that are measured."""
    import torch

    from bcm_edge.errors import BackendError
    from bcm_edge.runtime.machine.environment import versions
    from bcm_edge.runtime.machine.gpu import probe
    from bcm_edge.runtime.machine.installed import missing_tensorrt, tensorrt_version

    gpu = probe()
    tensorrt = None
    if missing_tensorrt(gpu) is None:
        with suppress(BackendError):  # the build reports it
            tensorrt = tensorrt_version()
    libraries: dict[str, object] = {**versions(), "CUDA of torch": torch.version.cuda}
    libraries |= {"cuDNN": torch.backends.cudnn.version(), "tensorrt": tensorrt}
    libraries.pop("openvino", None)  # not measured
    known = {name: str(version) for name, version in libraries.items() if version is not None}
    return {"gpu": str(gpu), "versions": known}


if __name__ == "__main__":
    main()
