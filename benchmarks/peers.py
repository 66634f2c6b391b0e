"""bcm-edge beside what else plays a BCM on a CPU: PyTorch as the authors run it, torch.compile, and diffusers' pipeline.

    python benchmarks/peers.py                                             the shipped model, in fp32, bf16 and int8
    python benchmarks/peers.py --network imagenet64 --bundle BUNDLE        an exported ImageNet-64 network

Every side plays one network call, 80>0.002, on the same noise with the same weights; the other sides take them from the bundle. Per
number of processors there is one process in which the sides of a batch size take turns, and each process is given its processors before
a library counts them. The markdown table has medians in ms and how many times as fast as PyTorch eager that is; "=" where the
difference is within noise. "s until ready" is from weights in memory to the first image, with torch imported and nothing in any cache.
The last line of stdout is the same as JSON. Sides that cannot run here are named with the reason.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from networks import prepare

if TYPE_CHECKING:
    from bcm_edge.model.preconditioning import ConsistencyModel
    from bcm_edge.runtime.storage.bundle import Bundle

EAGER = "PyTorch eager, as the authors run it"
OURS = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
PROGRAM = "80>0.002"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=["digits", "imagenet64"], default="digits")
    parser.add_argument(
        "--bundle", type=Path, help="of that network, with the precisions to measure; made where not given"
    )
    parser.add_argument("--batch", default="1,8")
    parser.add_argument(
        "--seconds", type=float, default=5, help="per side, batch size and number of processors"
    )
    parser.add_argument(
        "--measure", action="store_true", help=argparse.SUPPRESS
    )  # the process of one number of processors
    arguments = parser.parse_args()
    batches = [int(word) for word in arguments.batch.split(",")]
    if arguments.measure:
        print(json.dumps([measure(arguments.bundle, batch, arguments.seconds) for batch in batches]))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle or make(Path(folder), arguments.network)
        os.environ |= {
            "BCM_EDGE_CACHE_DIR": f"{folder}/cache",
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        }  # empty ones
        counts = sorted({1, len(os.sched_getaffinity(0))})
        measured = {
            cores: on_processors(cores, bundle, arguments.batch, arguments.seconds) for cores in counts
        }
    report(arguments.network, measured)


def make(folder: Path, network: str) -> Path:
    """A bundle to measure, in all precisions that have a row. Choosing the 8-bit layers of the ImageNet-64 network takes half an hour."""
    return prepare(folder, network == "imagenet64", "fp32,bf16,int8")[2]


def on_processors(cores: int, bundle: Path, batch: str, seconds: float) -> list[dict]:
    """What `measure` says in a process of its own on so many processors, per batch size."""
    processors = sorted(os.sched_getaffinity(0))[:cores]
    command = [
        sys.executable,
        __file__,
        "--measure",
        "--bundle",
        str(bundle),
        "--batch",
        batch,
        "--seconds",
        str(seconds),
    ]
    print(f"on {cores} of the processors …", file=sys.stderr)
    ended = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    return json.loads(ended.stdout.splitlines()[-1])


def measure(path: Path, batch: int, seconds: float) -> dict:
    """One batch size: results by side, and why the others are absent."""
    import torch

    from bcm_edge.export.restore import restored_model
    from bcm_edge.runtime.checks.benchmark import differ, interleave, summarise
    from bcm_edge.runtime.checks.starts import Start
    from bcm_edge.runtime.machine.load import OtherProcesses
    from bcm_edge.runtime.machine.resources import threads
    from bcm_edge.runtime.storage.bundle import open_bundle
    from bcm_edge.runtime.wording import first_line

    torch.set_num_threads(threads())
    bundle = open_bundle(path)
    sides, skipped = {}, {}
    for name, prepare_side in side_makers(bundle, restored_model(bundle), batch).items():
        print(f"  batch {batch}: {name}", file=sys.stderr)
        started = time.perf_counter()
        try:
            run = prepare_side()
            images = run().clip(-1, 1)
        except Exception as error:  # a library's own; the table names it and goes on with the others
            skipped[name] = f"{type(error).__name__}: {first_line(error)}"
            continue
        sides[name] = (run, images, time.perf_counter() - started)
    others = OtherProcesses()
    turns = interleave([run for run, _, _ in sides.values()], seconds)
    taken = others.share()
    eager = sides[EAGER][1]
    values = {}
    for (name, (_, images, ready)), own in zip(sides.items(), turns, strict=True):
        played = summarise(Side(name), batch, 1, own, Start(0, 0), None, 1)
        error = float(((images - eager) ** 2).sum() ** 0.5 / (eager**2).sum() ** 0.5)
        values[name] = (
            played,
            {"ms": played.p50_ms, "runs": played.runs, "ready_s": ready, "relative_l2": error},
        )
    base = values[EAGER][0]
    rows = {
        name: {**row, "ratio": base.p50_ms / r.p50_ms, "beyond_noise": differ(r, base)}
        for name, (r, row) in values.items()
    }
    return {"batch": batch, "taken_by_others": taken, "sides": rows, "skipped": skipped}


@dataclass(frozen=True)
class Side:
    """What is measured, as a result states it: its name alone."""

    name: str
    precision: str = ""
    device: str = ""


def side_makers(bundle: Bundle, model: ConsistencyModel, batch: int) -> dict[str, Callable[[], Callable]]:
    """Name → what prepares that side and returns its play: images [N, C, H, W] in [-1, 1] or a little beyond."""
    from bcm_edge.model.player import TorchBackend
    from bcm_edge.runtime.backends import open_backend
    from bcm_edge.runtime.checks.benchmark import player
    from bcm_edge.runtime.schedule import parse_schedule

    program = parse_schedule(PROGRAM)

    def compiled() -> Callable:
        compiled_model = copy.copy(model)  # shares the weights; the other sides keep the model as it is
        compiled_model.compile(fullgraph=True, dynamic=False)
        return player(TorchBackend(compiled_model), program, batch)

    def ours(name: str, precision: str) -> Callable:
        return player(open_backend(name, bundle, precision), program, batch)

    return {
        EAGER: lambda: player(TorchBackend(model), program, batch),
        "torch.compile(fullgraph)": compiled,
        "diffusers ConsistencyModelPipeline": lambda: diffusers_pipeline(model, batch),
        **{
            f"bcm-edge {name} {precision}": lambda n=name, p=precision: ours(n, p) for name, precision in OURS
        },
    }


def diffusers_pipeline(model: ConsistencyModel, batch: int) -> Callable:
    """diffusers' pipeline with its scheduler around the same network, in one step from the same noise.

    The scheduler has the c_skip and c_out of consistency models, not those of a BCM: the picture differs by some thousandths, the work
    does not.
    """
    import numpy as np
    import torch
    from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline

    from bcm_edge.runtime.noise import START_DRAW, standard_normal
    from bcm_edge.runtime.schedule import SIGMA_MIN

    class Network(torch.nn.Module):
        """The network as a pipeline calls it: scaled input and the warped level, which is 250 ln σ there too."""

        dtype, device = torch.float32, torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.network = model.network
            c, size, _ = model.config.sample_shape
            classes = model.config.num_classes
            self.config = argparse.Namespace(in_channels=c, sample_size=size, num_class_embeds=classes)

        def forward(self, x, timestep, class_labels, return_dict):
            tau_t = torch.full((len(x),), float(timestep))
            tau_u = torch.full((len(x),), 250 * float(np.log(SIGMA_MIN)))
            return (self.network(x, tau_t, tau_u, class_labels),)

    class Pipeline(ConsistencyModelPipeline):
        def check_inputs(self, *_) -> None:
            """Without this it takes colour images only."""

    pipeline = Pipeline(Network(), CMStochasticIterativeScheduler())
    pipeline.set_progress_bar_config(disable=True)
    classes = model.config.num_classes
    labels = None if classes is None else torch.arange(batch) % classes

    def run() -> np.ndarray:
        latents = torch.from_numpy(standard_normal(list(range(batch)), model.config.sample_shape, START_DRAW))
        return 2 * pipeline(batch, labels, 1, latents=latents, output_type="pt").images.numpy() - 1

    return run


def report(network: str, measured: dict[int, list[dict]]) -> None:
    cells: dict[str, list[str]] = {}
    columns, skipped = [], {}
    for cores, batches in measured.items():
        for each in batches:
            columns.append(f"{cores} core{'s' * (cores > 1)}, batch {each['batch']}: ms")
            skipped |= each["skipped"]
            for name, row in each["sides"].items():
                times = f"{row['ratio']:.1f}×" if row["beyond_noise"] else "="
                cells.setdefault(name, []).append(
                    f"{row['ms']:.2f}" + (f" ({times})" if name != EAGER else "")
                )
    first = next(iter(measured.values()))[0]["sides"]
    print(f"| {network}, `{PROGRAM}` | {' | '.join(columns)} | relative L2 to eager | s until ready |")
    print(f"|---|{'---:|' * (len(columns) + 2)}")
    for name, row in cells.items():
        print(
            f"| {name} | {' | '.join(row)} | {first[name]['relative_l2']:.1e} | {first[name]['ready_s']:.1f} |"
        )
    taken = [each["taken_by_others"] or 0 for batches in measured.values() for each in batches]
    print(
        f"\nOther processes took {', '.join(f'{share:.0%}' for share in taken)} of all processors meanwhile, column by column."
    )
    for name, reason in skipped.items():
        print(f"\nskipped: {name}: {reason}")
    print(json.dumps({"network": network, "program": PROGRAM, "processors": measured}))


if __name__ == "__main__":
    main()
