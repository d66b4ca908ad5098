"""The greedy control: from full width, always the step that loses the least score for what it saves."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import accumulate

from peelcli.allocation.meter import Meter
from peelcli.allocation.select import bundle_scores
from peelcli.allocation.steps import Steps
from peelcli.records import Scores, Widths


def worth_of_widths(meter: Meter, scores: Scores) -> list[list[float]]:
    """For each group the summed score of its best k bundles, k = 0 .. all; the unit is the scorer's."""
    result = []
    for group, score in zip(meter.graph.groups, scores.groups, strict=True):
        ranked = sorted(bundle_scores(group, score.channels), reverse=True)
        result.append([0.0, *accumulate(ranked)])
    return result


def losses(meter: Meter, worth: Sequence[Sequence[float]], widths: Sequence[int]) -> list[float]:
    """What each group has lost at these widths, in the scorer's unit: the distortion curve read at one point."""
    sizes = [group.bundle_size for group in meter.graph.groups]
    return [curve[-1] - curve[width // size] for curve, width, size in zip(worth, widths, sizes, strict=True)]


def greedy(meter: Meter, worth: Sequence[Sequence[float]]) -> Widths:
    """Cut step by step until all limits hold.

    Args:
        meter: groups and limits; the least legal widths must fit.
        worth: as worth_of_widths gives it.

    Returns:
        Legal widths that fit.
    """
    counts = meter.counts(meter.graph.full)
    steps = Steps(meter, meter.graph.full, meter.next_down)
    heap = [(_regret(meter, counts, steps, worth, group), group) for group in meter.free]
    heapq.heapify(heap)
    while heap and not meter.fits(counts):
        _, group = heapq.heappop(heap)
        fresh = _regret(meter, counts, steps, worth, group)
        if heap and fresh > heap[0][0]:  # other cuts have made this one dearer since it was queued
            heapq.heappush(heap, (fresh, group))
            continue
        counts = tuple(count + change for count, change in zip(counts, steps.change(group), strict=True))
        steps.take(group)
        if steps.width[group] is not None:
            heapq.heappush(heap, (_regret(meter, counts, steps, worth, group), group))
    return tuple(steps.widths)


def _regret(meter: Meter, counts: Sequence[int], steps: Steps, worth: Sequence[Sequence[float]], group: int) -> float:
    """Score lost per part of the broken limits saved by the next step down, which the group must have."""
    narrower = steps.width[group]
    assert narrower is not None
    size = meter.graph.groups[group].bundle_size
    lost = worth[group][steps.widths[group] // size] - worth[group][narrower // size]
    saved = sum(
        -change / limit.bound
        for count, change, limit in zip(counts, steps.change(group), meter.limits, strict=True)
        if count > limit.bound
    )
    return lost / saved if saved > 0 else float("inf")
