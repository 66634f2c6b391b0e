"""Points of curves with literal numbers."""

from __future__ import annotations

from bcm_edge.evaluation.exhibits import Point


def line(*pairs: tuple[float, float], spread: float | None = None) -> list[Point]:
    """Return the points of one curve. spread: that of every point."""
    return [Point(x, y, spread) for x, y in pairs]
