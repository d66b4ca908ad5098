"""The over-pruned backbone, and the one round that hands the resource pool to the informative groups.

Source: the pool and its single round, Hou et al., arXiv:2103.01847, fig. 1. The even share of the backbone and the
formula of the shares are ours (docs/method.md): the paper does not give them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peelcli.allocation.meter import Meter

Wishes = tuple[float, ...]  # widths before they are made legal, one per group
_HALVINGS = 60
_CEILING = 2.0**60  # a group whose share is so small that this does not fill it gets nothing by score


def even(meter: Meter, budget_share: float = 1.0) -> Wishes:
    """Widths at which every group keeps the same share of its channels and a part of the budget is used.

    Args:
        meter: groups and limits.
        budget_share: the part of every limit that may be used; 1 - pool for the backbone.

    Returns:
        width = max(floor, r * full) with the largest r whose legal widths cost at most budget_share of every limit.
        Where even the floors cost more, the floors.
    """

    def at(r: float) -> Wishes:
        return tuple(max(float(legal[0]), r * legal[-1]) for legal in meter.legal)

    return at(_largest(lambda r: meter.used(meter.counts(meter.down_to_legal(at(r)))) <= budget_share, 1.0))


def shares(meter: Meter, scores: Sequence[float], tau: float) -> tuple[float, ...]:
    """Each group's part of the pool: score^tau / sum(score^tau) over the groups that have a choice, one at least."""
    top = max(scores[g] for g in meter.free)
    powers = {g: (scores[g] / top) ** tau if top > 0 else 1.0 for g in meter.free}
    total = sum(powers.values())
    return tuple(powers.get(g, 0.0) / total for g in range(len(scores)))


def grow(meter: Meter, backbone: Wishes, scores: Sequence[float], tau: float) -> Wishes:
    """Hand the pool out in one round, in proportion to the scores.

    Args:
        meter: groups and limits.
        backbone: widths that the groups grow from; none shrinks.
        scores: one number per group, >= 0, comparable across groups.
        tau: how strongly scores decide; 0 grows all groups alike.

    Returns:
        width_g = min(full_g, backbone_g * (1 + lambda * share_g * G)) with the largest lambda within the limits, where
        G counts the groups with a choice. A group that is full returns its share to the pool, because lambda then
        grows for the others.
    """
    part = shares(meter, scores, tau)

    def at(scale: float) -> Wishes:
        return tuple(
            min(float(legal[-1]), width * (1 + scale * share * len(meter.free)))
            for width, share, legal in zip(backbone, part, meter.legal, strict=True)
        )

    def affordable(scale: float) -> bool:
        return meter.fits(meter.counts(meter.down_to_legal(at(scale))))

    ceiling = 1.0
    while ceiling < _CEILING and affordable(ceiling) and at(ceiling) != at(2 * ceiling):
        ceiling *= 2
    return at(_largest(affordable, ceiling))


def _largest(holds: Callable[[float], bool], ceiling: float) -> float:
    """The largest number in [0, ceiling] at which a condition holds that turns false once (bisection); 0 if none."""
    if holds(ceiling):
        return ceiling
    low, high = 0.0, ceiling
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
