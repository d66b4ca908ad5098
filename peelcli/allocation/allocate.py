"""Widths for a budget: peel, and the controls uniform and greedy. Pure arithmetic on names and ints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from peelcli import units
from peelcli.allocation.greedy import greedy, losses, worth_of_widths
from peelcli.allocation.grow import even, grow
from peelcli.allocation.legalise import Gain, legalise
from peelcli.allocation.meter import Meter
from peelcli.allocation.price import per_time
from peelcli.errors import BudgetOutOfReach, NothingToPrune
from peelcli.records import ChannelGraph, Limit, Scores, Widths

Method = Literal["peel", "uniform", "greedy"]
_NAMES = {"macs": "MACs", "thop_macs": "MACs as thop counts them", "params": "parameters", "latency": "latency"}


def allocate(
    graph: ChannelGraph, scores: Scores, limits: Sequence[Limit], method: Method, pool: float = 0.5, tau: float = 1.0
) -> Widths:
    """Choose the width of every group.

    Args:
        graph: groups with their legal widths, and the counts.
        scores: one per group.
        limits: upper bounds that hold together.
        method: a key of ALLOCATORS.
        pool: share of the budget that is handed out by score (peel only), in (0, 1).
        tau: exponent on the scores (peel only).

    Returns:
        Legal widths within all limits, to which no legal step can be added.

    Raises:
        NothingToPrune: no group has a choice.
        BudgetOutOfReach: the least legal widths cost more than a limit.
    """
    meter = Meter(graph, limits)
    if meter.fits(meter.counts(graph.full)):
        return graph.full
    if not meter.free:
        raise NothingToPrune(
            "no layer's width can change in this model", hint="`peel inspect` says why, group by group"
        )
    _check_reach(meter)
    return ALLOCATORS[method](meter, scores, pool, tau)


def backbone(graph: ChannelGraph, limits: Sequence[Limit], method: Method, pool: float) -> tuple[float, ...]:
    """The widths before the pool was shared out; nothing where there was none: another method, or a budget met already.

    Args are those of `allocate`.
    """
    meter = Meter(graph, limits)
    if method != "peel" or meter.fits(meter.counts(graph.full)):
        return ()
    return even(meter, 1.0 - pool)


def _check_reach(meter: Meter) -> None:
    """Refuse a budget before any work when not even the least widths fit."""
    for limit, least in zip(meter.limits, meter.counts(meter.least), strict=True):
        if least > limit.bound:
            raise BudgetOutOfReach(_NAMES[limit.count], _amount(limit, least), _amount(limit, limit.bound))


def _amount(limit: Limit, value: int) -> str:
    if limit.count == "latency":
        return units.duration(value / 10**9)
    return f"{units.si(value, 3).strip()} ({value})" if limit.count == "params" else f"{units.macs(value)} ({value})"


def _peel(meter: Meter, scores: Scores, pool: float, tau: float) -> Widths:
    """Over-pruned backbone, then one round that hands out the pool by score (Hou et al., arXiv:2103.01847)."""
    backbone = even(meter, 1.0 - pool)
    base = meter.down_to_legal(backbone)
    if scores.additive:
        worth = worth_of_widths(meter, scores)
        lost = per_time(meter, losses(meter, worth, base), base)
        return legalise(meter, grow(meter, backbone, lost, tau), _by_worth(meter, worth))
    layer = per_time(meter, [score.layer for score in scores.groups], base)
    return legalise(meter, grow(meter, backbone, layer, tau), _by_layer_score(meter, layer))


def _uniform(meter: Meter, scores: Scores, pool: float, tau: float) -> Widths:
    """The same share of every group; what rounding leaves goes to groups that are behind, where it is cheap."""
    del scores, pool, tau

    def behind(group: int, width: int, wider: int) -> float:
        full = meter.graph.groups[group].full
        return (1.0 - width / full) ** 2 - (1.0 - wider / full) ** 2

    return legalise(meter, even(meter), behind)


def _greedy(meter: Meter, scores: Scores, pool: float, tau: float) -> Widths:
    """Least score lost per cost saved, step by step from full width."""
    del pool, tau
    worth = worth_of_widths(meter, scores)
    widths = greedy(meter, worth)
    return legalise(meter, tuple(float(w) for w in widths), _by_worth(meter, worth))


def _by_worth(meter: Meter, worth: Sequence[Sequence[float]]) -> Gain:
    """A step is worth the score of the channels that it brings back."""

    def regained(group: int, width: int, wider: int) -> float:
        size = meter.graph.groups[group].bundle_size
        return worth[group][wider // size] - worth[group][width // size]

    return regained


def _by_layer_score(meter: Meter, layer: Sequence[float]) -> Gain:
    """A step is worth its group's score for the part of the group that it adds."""

    def worth(group: int, width: int, wider: int) -> float:
        return layer[group] * (wider - width) / meter.graph.groups[group].full

    return worth


ALLOCATORS: dict[Method, Callable[[Meter, Scores, float, float], Widths]] = {
    "peel": _peel,
    "uniform": _uniform,
    "greedy": _greedy,
}

TRIED: tuple[tuple[str, Method, float], ...] = (
    ("peel", "peel", 1.0),
    ("peel, half tau", "peel", 0.5),
    ("greedy", "greedy", 1.0),
    ("uniform", "uniform", 1.0),
)
"""What `--allocate auto` compares: (name, allocator, part of the user's tau)."""
