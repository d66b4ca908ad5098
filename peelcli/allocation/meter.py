"""What widths cost against limits, fast: a change of one group re-evaluates only the terms that it touches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from peelcli.graph.cost import evaluate, groups_of, term_at
from peelcli.records import ChannelGraph, CostModel, Limit, Polynomial, Table, Term, Widths


def polynomial_of(model: CostModel, limit: Limit) -> Polynomial:
    """The count that a limit bounds."""
    return {"macs": model.macs, "thop_macs": model.thop, "params": model.params, "latency": model.latency}[limit.count]


class Meter:
    """Legal widths and the cost of them against several limits.

    Attributes:
        graph: the groups and the counts.
        limits: upper bounds that hold together.
        legal: legal widths by group, ascending; where latency is bounded without those that take no less time than a
            wider one.
        free: positions of the groups that have a choice.
        touching: for each limit the terms that a group's width changes, by group.
    """

    def __init__(self, graph: ChannelGraph, limits: Sequence[Limit]) -> None:
        self.graph = graph
        self.limits = tuple(limits)
        self._polynomials = [polynomial_of(graph.cost, limit) for limit in limits]
        self.touching: list[dict[int, list[Term | Table]]] = [_by_group(p) for p in self._polynomials]
        self._members = {id(term): groups_of(term) for p in self._polynomials for term in p}
        self.legal = tuple(self._worthwhile(g) for g in range(len(graph.groups)))
        self.free = tuple(g for g, widths in enumerate(self.legal) if len(widths) > 1)

    def _worthwhile(self, group: int) -> Widths:
        """A group's legal widths, the others full: 8 channels can take longer than 16 where kernels work on 16."""
        widths = self.graph.groups[group].legal_widths()
        for limit, touching in zip(self.limits, self.touching, strict=True):
            if limit.count == "latency":
                full = self.graph.full
                terms = touching.get(group, ())
                times = [sum(term_at(t, [*full[:group], w, *full[group + 1 :]]) for t in terms) for w in widths]
                ends = range(len(widths))
                widths = tuple(widths[k] for k in ends if all(times[k] < time for time in times[k + 1 :]))
        return widths

    @property
    def least(self) -> Widths:
        """The narrowest legal widths."""
        return tuple(widths[0] for widths in self.legal)

    def counts(self, widths: Sequence[int]) -> tuple[int, ...]:
        """Every bounded count at the given widths, in the order of the limits."""
        return tuple(evaluate(polynomial, widths) for polynomial in self._polynomials)

    def change(self, widths: list[int], group: int, width: int) -> tuple[int, ...]:
        """By how much every count changes when one group does; `widths` are those before, and are so again after."""
        return tuple(_difference(touching.get(group, ()), widths, group, width) for touching in self.touching)

    def joint(self, widths: list[int], one: tuple[int, int], other: tuple[int, int]) -> tuple[int, ...]:
        """What the changes of two groups make of every count beyond the sum of what each makes alone.

        Only terms that both groups touch have such a part, and most pairs share few or none, even with a group that
        touches every layer.

        Args:
            widths: before the changes, and so again after.
            one: a group and its new width.
            other: another group and its new width.
        """
        (group, width), (second, wide) = one, other
        results = []
        for touching in self.touching:
            terms = self._shared(touching, group, second)
            alone = _difference(terms, widths, group, width)
            narrow, widths[second] = widths[second], wide
            beside = _difference(terms, widths, group, width)
            widths[second] = narrow
            results.append(beside - alone)
        return tuple(results)

    def _shared(self, touching: Mapping[int, list[Term | Table]], one: int, other: int) -> list[Term | Table]:
        few, many = touching.get(one, []), touching.get(other, [])
        if len(few) > len(many):
            few, many, other = many, few, one
        return [term for term in few if other in self._members[id(term)]]

    def fits(self, counts: Sequence[int]) -> bool:
        """Whether all limits hold."""
        return all(count <= limit.bound for count, limit in zip(counts, self.limits, strict=True))

    def used(self, counts: Sequence[int]) -> float:
        """The share of the tightest limit that is used; above 1 where a limit is broken."""
        return max(count / limit.bound for count, limit in zip(counts, self.limits, strict=True))

    def down_to_legal(self, wished: Sequence[float]) -> Widths:
        """The largest legal widths that are not above the wished ones, or the least legal width."""
        return tuple(
            widths[max(0, bisect_right(widths, wish + 1e-9) - 1)]
            for widths, wish in zip(self.legal, wished, strict=True)
        )

    def next_up(self, group: int, width: int) -> int | None:
        """The next wider legal width, or None at full width."""
        widths = self.legal[group]
        position = bisect_right(widths, width)
        return widths[position] if position < len(widths) else None

    def next_down(self, group: int, width: int) -> int | None:
        """The next narrower legal width, or None at the least."""
        widths = self.legal[group]
        position = bisect_right(widths, width) - 2
        return widths[position] if position >= 0 else None


def _difference(terms: Sequence[Term | Table], widths: list[int], group: int, width: int) -> int:
    """By how much the sum of terms changes with the width of one group; `widths` are put back."""
    before = sum(term_at(term, widths) for term in terms)
    old, widths[group] = widths[group], width
    after = sum(term_at(term, widths) for term in terms)
    widths[group] = old
    return after - before


def _by_group(polynomial: Polynomial) -> dict[int, list[Term | Table]]:
    table: dict[int, list[Term | Table]] = {}
    for term in polynomial:
        for group in groups_of(term):
            table.setdefault(group, []).append(term)
    return table
