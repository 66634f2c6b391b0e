"""Schedules that the tests of TensorRT engines play on the digits model."""

from __future__ import annotations

IMAGE = 4 * 8 * 8  # bytes of one float32 image
MIXTURE = "80>3>0.002 +0.12 0.12>0.4>0.002"

# Adds noise before a move towards the image. The graph of such a move contains no addition.
RENOISING = "80>0.002 +2.4 2.4>0.002"
