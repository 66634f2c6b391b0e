"""Scale the noise levels of tasks to the size of the images.

A larger image has more pixels for the same object, so the same amount is hidden only under more noise
(Hoogeboom et al. 2023, arXiv 2301.11093, on noise schedules for training). The levels of tasks were chosen on
8×8 pixels. Where they hide something that takes a share of the image, such as its class or how a hole
continues, they grow with the side.
"""

from __future__ import annotations

SIDE = 8  # pixels of a side for which levels were chosen


def relative_side(sample_shape: tuple[int, int, int]) -> float:
    """Return the longer side of images [C, H, W] in units of SIDE."""
    return max(sample_shape[1:]) / SIDE
