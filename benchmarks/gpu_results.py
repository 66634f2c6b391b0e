"""The figures of benchmarks/gpu.py, and the JSON file that keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from result_files import write_json

EAGER, COMPILED, TENSORRT = "torch eager fp16", "torch.compile fp16", "TensorRT fp16"
CUDA, NHWC = "ONNX Runtime CUDA fp16", "ONNX Runtime CUDA fp16, NHWC"
NO_GRAPHS = "ONNX Runtime CUDA fp16, no CUDA graphs"
ORT_TENSORRT, RTX = "ONNX Runtime TensorRT fp16", "ONNX Runtime TensorRT-RTX fp16"
NOISE_ON_GPU = "TensorRT fp16, noise drawn on the GPU"
NOISE_ON_HOST = "TensorRT fp16, noise drawn on the host"
PROFILES, SINGLE = "TensorRT fp16, three profiles", "TensorRT fp16, one engine for both directions"
HALF = "TensorRT fp16, normalisations in half"
INT8, FP8 = "TensorRT int8-fp16", "TensorRT fp8"

# Sets of variants, in the order of their preparation: torch.compile takes longest.
SETS = {
    "main": (EAGER, TENSORRT, CUDA, ORT_TENSORRT, RTX, COMPILED),
    "options": (
        TENSORRT,
        NOISE_ON_GPU,
        NOISE_ON_HOST,
        PROFILES,
        SINGLE,
        HALF,
        INT8,
        FP8,
        CUDA,
        NHWC,
        NO_GRAPHS,
    ),
}
IN_TURN = "all variants in turn"


def precision_of(variant: str) -> str:
    """Return the precision in which a variant computes."""
    return {INT8: "int8-fp16", FP8: "fp8"}.get(variant, "fp16")


@dataclass(frozen=True)
class Row:
    """The figures of one variant on one schedule. The times are as in runtime/checks/benchmark.py: Result."""

    variant: str
    schedule: str
    runs: int
    low_ms: float
    high_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    tflops: float
    # share of the fp16 matrix product that ran in the same turns
    of_matmul: float
    # distance of the last state from torch in float32
    relative_l2: float
    # whether all variants took turns in the measurement; otherwise only the variant and the matrix product
    in_turn: bool


@dataclass(frozen=True)
class Chain:
    """A schedule on TensorRT."""

    # from host to host
    wall_ms: float
    # on the GPU, without copies
    device_ms: float
    # each engine alone
    engines_ms: list[float]

    @property
    def ratio(self) -> float:
        """The time from host to host, divided by the sum of the engine times."""
        return self.wall_ms / sum(self.engines_ms)


@dataclass
class Measured:
    """The figures of one batch size. They are added while the batch size is measured."""

    batch: int
    # the GPU and the versions of the libraries
    environment: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    chain: Chain | None = None
    matmul_tflops: float | None = None
    # variant, or "variant, schedule" → reason
    not_run: dict[str, str] = field(default_factory=dict)
    # variant → seconds until it had run all schedules once
    ready_s: dict[str, float] = field(default_factory=dict)
    # schedule → time to draw its noise
    noise_ms: dict[str, float] = field(default_factory=dict)
    # variant → device and libraries
    played: dict[str, str] = field(default_factory=dict)
    # the current work: a variant, "all variants in turn, schedule", or None
    doing: str | None = None
    # command, date and machine (`origin` in result_files.py)
    measured_by: dict[str, Any] = field(default_factory=dict)
    # the variants that were asked for
    variants: list[str] = field(default_factory=lambda: list(SETS["main"]))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Measured:
        """Return the figures that `write` has written."""
        chain = Chain(**values["chain"]) if values["chain"] else None
        return cls(**{**values, "rows": [Row(**row) for row in values["rows"]], "chain": chain})

    @classmethod
    def read(cls, path: Path) -> Measured:
        """Return the figures of a file of `write`."""
        return cls.from_json(json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Write the figures of this batch size to a file."""
        write_json(path, asdict(self))

    def rows_of(self, variant: str) -> dict[str, Row]:
        """Return schedule → row of a variant; empty if the variant was not measured."""
        return {row.schedule: row for row in self.rows if row.variant == variant}

    def put(self, row: Row) -> None:
        """Add a row, or replace the row of the same variant and schedule."""
        for i, each in enumerate(self.rows):
            if (each.variant, each.schedule) == (row.variant, row.schedule):
                self.rows[i] = row
                return
        self.rows.append(row)


class Results:
    """The JSON file of all batch sizes of one network. Each change is written immediately and atomically."""

    def __init__(self, path: Path, network: str) -> None:
        """Read the file if it exists. Raises ValueError if it contains something else."""
        self.path, self.network = path, network
        self.batches: dict[int, Measured] = {}
        if path.exists():
            earlier, self.batches = _read(path)
            if earlier != network:
                raise ValueError(f"{path} contains results of {earlier}; choose another file for {network}")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return the results of a file. Raises OSError or ValueError."""
        return cls(path, _read(path)[0])

    def put(self, measured: Measured) -> None:
        """Add or replace a batch size. Figures of an earlier call stay until there is a new one."""
        if measured.rows or measured.batch not in self.batches:
            self.batches[measured.batch] = measured
            self.save()

    def save(self) -> None:
        """Write the file."""
        batches = [asdict(self.batches[batch]) for batch in sorted(self.batches)]
        write_json(self.path, {"network": self.network, "batches": batches})


def _read(path: Path) -> tuple[str, dict[int, Measured]]:
    """Return the network and batch size → figures of a file. Raises OSError or ValueError."""
    try:
        values = json.loads(path.read_text())
        measured = [Measured.from_json(each) for each in values["batches"]]
        return str(values["network"]), {each.batch: each for each in measured}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a result of this benchmark") from error
