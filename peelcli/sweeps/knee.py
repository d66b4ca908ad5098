"""The knee of a curve: behind it, what is saved costs more than before."""

from __future__ import annotations

import math
from collections.abc import Sequence

from peelcli.points import Point
from peelcli.records import Costs
from peelcli.results import Distance

_CLEAR = 0.05  # how far the knee has to stand off the straight line; both axes go from 0 to 1


def quality(distance: Distance) -> tuple[str, float]:
    """What says how good a point is, more is better: the metric, else agreement, else less relative distance."""
    if distance.metric is not None:
        return "metric", distance.metric
    if distance.agreement is not None:
        return "agreement", distance.agreement
    return "relative", -distance.relative


def perfect(name: str, original: float | None) -> float:
    """The same of the original itself."""
    return {"metric": original or 0.0, "agreement": 1.0}.get(name, 0.0)


def best(point: Point) -> Distance | None:
    """The slim model as it is kept: repaired, where that helped."""
    if point.fidelity is None:
        return None
    return point.fidelity.repaired or point.fidelity.cut


def knee(points: Sequence[Point], before: Costs, count: str) -> int | None:
    """The point that is farthest above the straight line from the original to the least point.

    Both axes are scaled to 0..1 first.

    Args:
        points: in any order; those without fidelity are left out.
        before: of the original.
        count: "macs" or "params", the axis of cost.

    Returns:
        Its position in `points`; None where fewer than three points are known or none stands off the line.

    Source: Satopaa et al., Finding a "Kneedle" in a haystack, ICDCSW 2011, without its smoothing.
    """
    curve: list[tuple[float, float, int | None]] = []
    name, original = "", None
    for position, point in enumerate(points):
        distance = best(point)
        if point.after is not None and point.fidelity is not None and distance is not None:
            name, value = quality(distance)
            original = point.fidelity.original
            curve.append((getattr(point.after, count) / max(1, getattr(before, count)), value, position))
    curve = [entry for entry in curve if math.isfinite(entry[1])]
    if len(curve) < 3:
        return None
    curve = sorted([*curve, (1.0, perfect(name, original), None)])
    (left, low, _), (right, high, _) = curve[0], curve[-1]
    if right <= left or high <= low:
        return None
    above = [((y - low) / (high - low) - (x - left) / (right - left), at) for x, y, at in curve]
    farthest, at = max(above, key=lambda entry: entry[0])
    return at if farthest > _CLEAR else None
