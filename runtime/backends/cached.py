"""Common code of the caches of backends: the key of an entry, and the move that verifies an entry.

Caches contain graphs in a form that a library optimised or compiled. This form is not trusted, because one
version of ONNX Runtime wrote optimised graphs that gave wrong images without an error. Therefore:

- an entry is published only if it computes one move as the graph of the bundle does
- the sha256 of its files is checked before the library reads them
"""

from __future__ import annotations

import hashlib
import json
import platform
import threading
from typing import Any

import numpy as np

from ..accuracy import BOUNDS
from ..machine.processor import instruction_sets
from ..noise import START_DRAW, standard_normal
from ..schedule import SIGMA_DATA, SIGMA_MAX, SIGMA_MIN, Move
from ..storage.bundle import Bundle
from .base import graph_inputs

# A file in each entry: the sha256 of the entry's files, and the relative L2 distance of the moves that
# verified it.
ENTRY = "entry.json"
# The move that verifies the graph of each direction.
PROOF_MOVES = {"forward": Move(SIGMA_MAX, SIGMA_MIN), "inverse": Move(0.07, SIGMA_MAX)}
# Held while an entry is created: two threads would write to the same temporary folder.
making = threading.RLock()


def entry_key(facts: list[Any]) -> str:
    """Return the name of an entry: 32 hexadecimal digits of a sha256.

    It depends on the processor and on the facts, which are JSON values.
    """
    text = json.dumps([*facts, _processor()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def proving_inputs(bundle: Bundle, direction: str, batch: int = 1) -> dict[str, np.ndarray]:
    """Return the inputs, by name, with which the graph of a direction is verified.

    x is fixed noise at the level where the move begins, with at least the standard deviation of images.
    """
    model, move = bundle.manifest.model, PROOF_MOVES[direction]
    deviation = np.float32(max(move.t, SIGMA_DATA))
    x = standard_normal(range(batch), model.sample_shape, START_DRAW) * deviation
    labels = None if model.num_classes is None else np.zeros(batch, np.int64)
    return graph_inputs(x, None, move, labels)


def is_proved(distance: float, precision: str) -> bool:
    """Whether a relative L2 distance is within the bound of a precision. False for NaN."""
    return 0 <= distance <= BOUNDS[precision]


def _processor() -> str:
    """Return the architecture and the instruction sets, which determine the layout of optimised weights."""
    return f"{platform.machine()} {instruction_sets() or platform.processor()}"
