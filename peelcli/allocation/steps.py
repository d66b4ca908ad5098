"""What the next legal step of every group changes, kept up to date while widths change one by one.

A step of one group touches the terms of that group alone, so that keeping all of them costs as much as there are
terms, not groups times terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peelcli.allocation.meter import Meter
from peelcli.graph.cost import groups_of, term_at
from peelcli.records import Table, Term

Move = Callable[[int, int], int | None]
"""(group, width) -> the next legal width in one direction, None at its end."""


class Steps:
    """Widths, and for every free group its next step in one direction.

    Attributes:
        widths: of all groups.
        width: by group the width after its next step; None where there is none.
    """

    def __init__(self, meter: Meter, widths: Sequence[int], move: Move) -> None:
        self.widths = list(widths)
        self.width: dict[int, int | None] = {}
        self._meter = meter
        self._move = move
        self._changes: dict[int, list[int]] = {}  # by group: of every count
        self._parts: dict[tuple[int, int, int], int] = {}  # by count, term and group: counts may share a term
        for group in meter.free:
            self._look(group)

    def change(self, group: int) -> tuple[int, ...]:
        """By how much the next step of a group, which must have one, changes each count."""
        return tuple(self._changes[group])

    def take(self, group: int) -> None:
        """Make a group's next step."""
        width = self.width[group]
        assert width is not None
        self.widths[group] = width
        self._look(group)
        for count, touching in enumerate(self._meter.touching):
            for term in touching.get(group, ()):
                for other in groups_of(term) - {group}:
                    if self.width.get(other) is not None:
                        part = self._part(term, other)
                        self._changes[other][count] += part - self._parts[count, id(term), other]
                        self._parts[count, id(term), other] = part

    def _look(self, group: int) -> None:
        """Work out the next step of a group from all its terms."""
        self.width[group] = self._move(group, self.widths[group])
        if self.width[group] is None:
            return
        totals = []
        for count, touching in enumerate(self._meter.touching):
            parts = {(count, id(term), group): self._part(term, group) for term in touching.get(group, ())}
            self._parts |= parts
            totals.append(sum(parts.values()))
        self._changes[group] = totals

    def _part(self, term: Term | Table, group: int) -> int:
        """What the next step of a group changes in one term."""
        width, wide = self.widths[group], self.width[group]
        assert wide is not None
        before = term_at(term, self.widths)
        self.widths[group] = wide
        after = term_at(term, self.widths)
        self.widths[group] = width
        return after - before
