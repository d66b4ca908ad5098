"""Which groups break a proof, found by cutting fewer of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from peelcli.records import Cut


def faulty_groups(
    cuts: Sequence[Cut], holds: Callable[[Sequence[Cut]], bool], seconds: float = math.inf
) -> tuple[str, ...]:
    """Names of the groups whose cuts break a proof, found by halving; of those that only break it together, all.

    Args:
        cuts: a set that fails; groups at full width are left out of the search.
        holds: whether a proof holds when just these cuts are made.
        seconds: after so long what is not cleared yet counts as faulty, so that no search goes on for ever.
    """
    active = [cut for cut in cuts if cut.width < cut.group.full]
    deadline = time.monotonic() + seconds
    return tuple(cut.group.name for cut in _search(active, lambda some: time.monotonic() < deadline and holds(some)))


def _search(cuts: list[Cut], holds: Callable[[Sequence[Cut]], bool]) -> list[Cut]:
    if not cuts or holds(cuts):
        return []
    if len(cuts) == 1:
        return cuts
    half = len(cuts) // 2
    return (_search(cuts[:half], holds) + _search(cuts[half:], holds)) or _conflict(cuts, [], holds)


def _conflict(cuts: list[Cut], beside: list[Cut], holds: Callable[[Sequence[Cut]], bool]) -> list[Cut]:
    """A least part of some cuts that fails beside others, which hold alone (QuickXplain: Junker, AAAI 2004)."""
    if len(cuts) == 1:
        return cuts
    half = len(cuts) // 2
    first, second = cuts[:half], cuts[half:]
    right = _conflict(second, beside + first, holds) if holds(beside + first) else []
    left = _conflict(first, beside + right, holds) if holds(beside + right) else []
    return left + right
