"""What the cache entries of backends share: the key, and the move that proves an entry before it is used.

A library's own optimised or compiled form of a graph is not trusted: a bug of one version wrote such forms that gave wrong images
without an error. So an entry is published only after it has played one move as the bundle's graph plays it, and its sha256 is
checked before the library reads it.
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
from ..noise import standard_normal
from ..schedule import SIGMA_MAX, SIGMA_MIN, Move
from ..storage.bundle import Bundle
from .base import graph_inputs

ENTRY = "entry.json"  # in an entry: the sha256 of its files, and how far its proving moves were from those of the bundle's graphs
PROOF = {
    "forward": Move(SIGMA_MAX, SIGMA_MIN),
    "inverse": Move(0.07, SIGMA_MAX),
}  # the move that each graph plays
making = (
    threading.RLock()
)  # held while an entry is made: two threads would write to the same temporary folder


def entry_key(facts: list[Any]) -> str:
    """The name of an entry: 32 hexadecimal digits of the sha256 of facts (JSON values) and of the processor."""
    return hashlib.sha256(json.dumps([*facts, _processor()], sort_keys=True).encode()).hexdigest()[:32]


def proving_inputs(bundle: Bundle, direction: str, batch: int = 1) -> dict[str, np.ndarray]:
    """Inputs of a direction's graph by name: fixed noise at the level where the proving move begins."""
    model, move = bundle.manifest.model, PROOF[direction]
    x = standard_normal(range(batch), model.sample_shape, 0) * np.float32(
        max(move.t, 0.5)
    )  # an image's values are near 0.5
    labels = None if model.num_classes is None else np.zeros(batch, np.int64)
    return graph_inputs(x, None, move, labels)


def is_proved(far: float, precision: str) -> bool:
    """Whether a distance is one that rounding explains; False for NaN."""
    return 0 <= far <= BOUNDS[precision]


def _processor() -> str:
    """What decides the layout of optimised weights: the architecture and the processor's instruction sets."""
    return f"{platform.machine()} {instruction_sets() or platform.processor()}"
