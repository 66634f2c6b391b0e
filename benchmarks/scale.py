"""Print the tables of docs/scale.md:  python benchmarks/scale.py

The seconds per network call are measured (docs/performance.md), or calculated as FLOP divided by FLOP/s. All
other figures are products of these.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image

HOUR = 3600
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
COLUMNS = (
    "a network call, ms",
    "images/s",
    "hours per million",
    "cost per million, $",
    "pixels, MB/s",
)


def main() -> None:
    for work in WORK:
        print(f"| {work.name} | {' | '.join(COLUMNS)} |")
        print("|---|---|---|---|---|---|")
        for device in DEVICES:
            rate = 1 / (work.nfe * device.call)
            hours = MILLION / rate / HOUR
            figures = (1000 * device.call, rate, hours, hours * device.price, rate * work.size / 1e6)
            print(f"| {device.name} ({device.source}) | {' | '.join(map(_short, figures))} |")
        print()
    print(f"decoding a PNG of 64×64×3 of noise: {png_seconds() * 1e6:.0f} µs of a core, measured now")


def png_seconds(n: int = 300) -> float:
    """Return the seconds to decode one PNG file. Its noise compresses worse than photographs do."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    start = time.perf_counter()
    for _ in range(n):
        np.asarray(Image.open(io.BytesIO(file.getvalue())))
    return (time.perf_counter() - start) / n


def _short(value: float) -> str:
    """Format a number with two digits and without an exponent."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    main()
