"""How far a result may be from the reference, and how the distance is measured."""

from __future__ import annotations

BOUNDS = {
    "fp32": 1e-4,
    "fp16": 5e-3,
    "bf16": 2e-2,
    "int8": 6e-2,
}  # relative L2 that every move of a schedule keeps to
