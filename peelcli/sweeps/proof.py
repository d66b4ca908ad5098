"""One proof of surgery for all points of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from peelcli import calibration
from peelcli.config import Budget, Options
from peelcli.errors import PeelError
from peelcli.planning import REPLANS, Clock, Prepared, carry_out, limits_of, plan_at, without_broken
from peelcli.records import Check, Subject, Widths


def proven(
    subject: Subject, prepared: Prepared, budgets: Sequence[Budget], options: Options, clock: Clock
) -> tuple[Prepared, Check | None]:
    """Prove the cut that holds every channel which some point could go without, and lock the groups that break it.

    The widths of each group are the least that any allocation chooses at any of the budgets. As the channels of a
    group go in the order of their scores, each point cuts a part of what is cut here. Slices that are right for all of
    these channels are right for some of them; what a point costs is checked at the point.

    Returns:
        The groups, those locked whose cut is not right; and the check, None where no budget can be met.
    """
    for _ in range(REPLANS):
        widths = _least(prepared, budgets, options)
        if widths is None:
            return prepared, None
        settled = carry_out(subject, plan_at(subject, prepared, widths), clock)
        if not settled.failed:
            return prepared, next((c for c in settled.checks if c.name == "masked_equivalence"), None)
        prepared, broken = without_broken(subject, prepared, settled, options.seed, clock)
        if not broken:
            break
    return prepared, settled.failed[0]


def _least(prepared: Prepared, budgets: Sequence[Budget], options: Options) -> Widths | None:
    """The least width of each group over all budgets and allocations."""
    found: list[Widths] = []
    for budget in budgets:
        limits = limits_of(budget, prepared.before)
        with suppress(PeelError):  # out of reach: the point itself will say so
            tried = calibration.choices(prepared.graph, prepared.scores, limits, options)
            found += [choice.widths for choice in tried]
    return tuple(map(min, zip(*found, strict=True))) if found else None
