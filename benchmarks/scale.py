"""Print the tables of docs/scale.md:  python benchmarks/scale.py

The seconds per network call are measured (docs/performance.md), or calculated as FLOP divided by FLOP/s. All
other figures are products of these.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image
from result_files import add_output, origin, write_figures

from bcm_edge.runtime.noise import START_DRAW, standard_normal

HOUR = 3600
BATCH = 256  # images whose noise is drawn
MILLION = 1_000_000


@dataclass(frozen=True)
class Device:
    """A device that runs the ImageNet-64 network."""

    name: str
    # Seconds per network call and image.
    call: float
    # Where `call` comes from.
    source: str
    # Assumed price in $ per hour.
    price: float


@dataclass(frozen=True)
class Work:
    """A task that is repeated for many images."""

    name: str
    # Network calls per image.
    nfe: int
    # Bytes of an image in uint8, input and output together.
    size: int


IMAGENET64 = 199e9  # FLOP of a network call at 64×64: 65 GFLOP/s for 3.061 s (docs/performance.md)
DEVICES = (
    Device("one x86-64 core, int8 on ONNX Runtime", 0.973, "measured", 0.04),
    Device("one x86-64 core, float32 on ONNX Runtime", 2.698, "measured", 0.04),
    Device(
        "Jetson AGX Orin, float16",
        IMAGENET64 / (42.5e12 * 0.3),
        "calculated: 42.5 TFLOP/s dense, 30 % of it",
        0.10,
    ),
    Device("H200, float16", IMAGENET64 / (990e12 * 0.3), "calculated: 990 TFLOP/s dense, 30 % of it", 3.50),
)
WORK = (
    Work("generate, mixture-4 (4 calls)", 4, 64 * 64 * 3),
    Work("invert and back (3 calls)", 3, 2 * 64 * 64 * 3),
)
COLUMNS = {  # key in the result file → heading of the column
    "call_ms": "a network call, ms",
    "images_per_s": "images/s",
    "hours_per_million": "hours per million",
    "dollars_per_million": "cost per million, $",
    "pixels_mb_per_s": "pixels, MB/s",
}


def main() -> None:
    """Print one table per task, and the times to decode an image and to draw noise."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add_output(parser)
    output, measured_by = parser.parse_args().output, origin()
    figures = {work.name: {device.name: figures_of(work, device) for device in DEVICES} for work in WORK}
    for work in WORK:
        print(f"| {work.name} | {' | '.join(COLUMNS.values())} |")
        print("|---|---|---|---|---|---|")
        for device in DEVICES:
            own = figures[work.name][device.name]
            print(f"| {device.name} ({device.source}) | {' | '.join(_short(own[key]) for key in COLUMNS)} |")
        print()
    microseconds = png_seconds() * 1e6
    print(f"decoding a PNG of 64×64×3 of noise: {microseconds:.0f} µs of a core, measured now")
    milliseconds = noise_seconds() * 1e3
    print(f"noise of mixture-4 at batch {BATCH}: {milliseconds:.0f} ms, measured now")
    measured = {"png_microseconds": microseconds, "noise_ms": milliseconds}
    write_figures(output, measured_by, {"tables": figures, **measured})


def figures_of(work: Work, device: Device) -> dict[str, float]:
    """Return the values of COLUMNS."""
    rate = 1 / (work.nfe * device.call)
    hours = MILLION / rate / HOUR
    return {
        "call_ms": 1000 * device.call,
        "images_per_s": rate,
        "hours_per_million": hours,
        "dollars_per_million": hours * device.price,
        "pixels_mb_per_s": rate * work.size / 1e6,
    }


def png_seconds(n: int = 300) -> float:
    """Return the seconds to decode one PNG file. Its noise compresses worse than photographs do."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    start = time.perf_counter()
    for _ in range(n):
        np.asarray(Image.open(io.BytesIO(file.getvalue())))
    return (time.perf_counter() - start) / n


def noise_seconds(runs: int = 5) -> float:
    """Return the median seconds to draw the noise of mixture-4 for a batch: the start and one injection."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        for draw in (START_DRAW, START_DRAW + 1):
            standard_normal(range(BATCH), (3, 64, 64), draw)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _short(value: float) -> str:
    """Format a number with two digits and without an exponent."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    main()
