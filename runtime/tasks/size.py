"""How noise levels of tasks follow the size of the pictures.

A larger picture shows more pixels of whatever is in it, so that as much stays hidden only under more noise (Hoogeboom et al. 2023,
arXiv 2301.11093, of noise schedules in training). Where a task's levels were chosen on 8×8 pixels and hide something that has a share of
the picture - what class it is of, how a hole continues - they grow with the side.
"""

from __future__ import annotations

SIDE = 8  # pixels


def relative_side(sample_shape: tuple[int, int, int]) -> float:
    """The longer side of images [C, H, W] in units of SIDE."""
    return max(sample_shape[1:]) / SIDE
