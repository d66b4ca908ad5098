"""From wished widths to legal ones that use the budget up: round down, spend what is left, trade the rest."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from peelcli.allocation.grow import Wishes
from peelcli.allocation.meter import Meter
from peelcli.allocation.steps import Steps
from peelcli.records import Widths

ENOUGH = 0.9995  # share of the tightest limit at which trading stops
FINE = 0.995  # up to here trades between distant widths are looked at
NEEDED = 0.985  # up to here even a trade that loses gain is made
_ROUNDS = 200
_TRIES = 12
_REACHES = ((2, 3), (6, 9), (18, 27))  # steps down and up in one trade; the wider ones where no near one is left

Gain = Callable[[int, int, int], float]
"""(group, width, wider width) -> what the step is worth; the unit is the scorer's."""


def legalise(meter: Meter, wished: Wishes, gain: Gain) -> Widths:
    """Make widths legal without breaking a limit, and leave no legal step unspent.

    Steps towards the wished width come first, then any step, each time the one that buys the most gain for its cost.
    What no single step can use is used by trades: one group some steps down, another one up.

    Args:
        meter: groups and limits.
        wished: widths whose legal floor fits the limits.
        gain: what a step is worth.
    """
    spender = _Spender(meter, meter.down_to_legal(wished), gain)
    spender.spend(lambda group, width: width < wished[group])
    spender.spend(lambda _group, _width: True)
    spender.trade()
    return tuple(spender.widths)


class _Move(NamedTuple):
    """One group at another width.

    Attributes:
        price: by how much the use of the tightest limit changes.
        changes: by how much each count does.
    """

    price: float
    group: int
    width: int
    changes: tuple[int, ...]


class _Spender:
    """Widths that fit, and their counts, while steps are added."""

    def __init__(self, meter: Meter, widths: Widths, gain: Gain) -> None:
        self.meter = meter
        self.widths = list(widths)
        self.counts = meter.counts(widths)
        self.gain = gain

    def spend(self, wanted: Callable[[int, int], bool]) -> None:
        """Add affordable steps in the order of gain per cost until none fits; of equal ones the first group's.

        A step that does not fit now will not fit later, as widths only grow here and costs with them. For the same
        reason what a step was worth when it was queued is the most that it can be worth now.
        """
        steps = Steps(self.meter, self.widths, self.meter.next_up)
        queue = [(-self._worth(steps, g), g) for g in self.meter.free if self._is_open(steps, g, wanted)]
        heapq.heapify(queue)
        while queue:
            _, group = heapq.heappop(queue)
            after = self._after(steps, group)
            if not self.meter.fits(after):
                continue
            entry = (-self._worth(steps, group), group)
            if queue and entry > queue[0]:
                heapq.heappush(queue, entry)
                continue
            steps.take(group)
            self.widths[group], self.counts = steps.widths[group], after
            if self._is_open(steps, group, wanted):
                heapq.heappush(queue, (-self._worth(steps, group), group))

    def _is_open(self, steps: Steps, group: int, wanted: Callable[[int, int], bool]) -> bool:
        return steps.width[group] is not None and wanted(group, steps.widths[group])

    def _after(self, steps: Steps, group: int) -> tuple[int, ...]:
        return tuple(count + change for count, change in zip(self.counts, steps.change(group), strict=True))

    def _worth(self, steps: Steps, group: int) -> float:
        """Gain per cost of a group's next step; what it costs is the largest part of any limit that it takes."""
        wider = steps.width[group]
        assert wider is not None
        parts = (change / limit.bound for change, limit in zip(steps.change(group), self.meter.limits, strict=True))
        return self.gain(group, steps.widths[group], wider) / (max(parts) or 1e-30)

    def trade(self) -> None:
        """Exchange steps between pairs of groups as long as that uses more of the budget."""
        for _ in range(_ROUNDS):
            used = self.meter.used(self.counts)
            if used >= ENOUGH:
                return
            reaches = _REACHES if used < FINE else _REACHES[:1]
            better = next(filter(None, map(self._best_trade, reaches)), None)
            if better is None:
                return
            changes, self.counts = better
            for group, width in changes.items():
                self.widths[group] = width
            self.spend(lambda _group, _width: True)

    def _best_trade(self, reach: tuple[int, int]) -> tuple[dict[int, int], tuple[int, ...]] | None:
        """The affordable trade that uses most without losing gain; candidates by first-order cost, verified exactly.

        Trades must not undo what the scores decided: one that loses gain is made only where much of the budget is
        left, only between neighbouring widths, and then it is the one that loses least for what it uses.
        """
        used = self.meter.used(self.counts)
        best: tuple[tuple[bool, float, float], dict[int, int], tuple[int, ...]] | None = None
        for down, up in self._candidates(1.0 - used, *reach):
            joint = self.meter.joint(self.widths, (down.group, down.width), (up.group, up.width))
            after = tuple(map(sum, zip(self.counts, down.changes, up.changes, joint, strict=True)))
            use = self.meter.used(after)
            if not self.meter.fits(after) or use <= used + 1e-12:
                continue
            gained = self._gained(down, up)
            fair = gained >= 0
            rank = (fair, use, gained) if fair else (fair, gained / (use - used), use)
            if (fair or (used < NEEDED and reach == _REACHES[0])) and (best is None or rank > best[0]):
                best = (rank, {down.group: down.width, up.group: up.width}, after)
        return (best[1], best[2]) if best else None

    def _gained(self, down: _Move, up: _Move) -> float:
        """What a trade is worth: the gain of the group that grows less that of the group that shrinks."""
        lost = self.gain(down.group, down.width, self.widths[down.group])
        return self.gain(up.group, self.widths[up.group], up.width) - lost

    def _candidates(self, slack: float, down: int, up: int) -> Iterator[tuple[_Move, _Move]]:
        """Pairs of one group down and another up that together cost about the slack.

        Both sides are sorted by what they cost of the tightest limit, so that few pairs need an exact look.
        """
        ups = sorted(self._moves(self.meter.next_up, up))
        prices = [move.price for move in ups]
        for move in self._moves(self.meter.next_down, down):
            middle = bisect_right(prices, slack - move.price)
            for other in ups[max(0, middle - _TRIES) : middle + 2]:
                if other.group != move.group:
                    yield move, other

    def _moves(self, step: Callable[[int, int], int | None], reach: int) -> Iterator[_Move]:
        """Up to `reach` steps of every free group."""
        used = self.meter.used(self.counts)
        for group in self.meter.free:
            width = self.widths[group]
            for _ in range(reach):
                following = step(group, width)
                if following is None:
                    break
                width = following
                changes = self.meter.change(self.widths, group, width)
                after = tuple(map(sum, zip(self.counts, changes, strict=True)))
                yield _Move(self.meter.used(after) - used, group, width, changes)
