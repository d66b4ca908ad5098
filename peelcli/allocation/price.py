"""What a group's channels do for the time that they take, where latency is bounded."""

from __future__ import annotations

from collections.abc import Sequence

from peelcli.allocation.meter import Meter
from peelcli.graph.cost import evaluate, groups_of, term_at
from peelcli.records import Polynomial, Widths


def per_time(meter: Meter, scores: Sequence[float], widths: Widths) -> list[float]:
    """Scores weighted by multiply-adds for time: what a group regains from these widths on, for what that takes.

    Multiply-adds are not equally fast: on images of full size, in depthwise layers and in narrow ones each takes
    several times as long. A pool of time is handed out by score for time, as one of multiply-adds is by score.

    Args:
        meter: groups and limits; where none is of latency the scores come back as they are.
        scores: one for each group, >= 0.
        widths: legal ones, from which groups grow.

    This weight is ours (docs/method.md): the paper knows budgets of multiply-adds and parameters only.
    """
    if not any(limit.count == "latency" for limit in meter.limits):
        return list(scores)
    macs = _regained(meter, meter.graph.cost.macs, widths)
    time = _regained(meter, meter.graph.cost.latency, widths)
    return [
        score * (more / longer if more > 0 and longer > 0 else 1.0)
        for score, more, longer in zip(scores, macs, time, strict=True)
    ]


def _regained(meter: Meter, polynomial: Polynomial, widths: Widths) -> list[float]:
    """For each group, the share of the original's cost that comes back when it alone is full again."""
    full = meter.graph.full
    whole = max(1, evaluate(polynomial, full))
    back = [0.0] * len(full)
    for term in polynomial:
        for group in groups_of(term):
            wider = [*widths[:group], full[group], *widths[group + 1 :]]
            back[group] += (term_at(term, wider) - term_at(term, widths)) / whole
    return back
