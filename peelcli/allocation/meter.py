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

    def counts_after(self, counts: Sequence[int], widths: Sequence[int], changes: Mapping[int, int]) -> tuple[int, ...]:
        """The counts when some groups change, given the counts before.

        Args:
            counts: what `widths` cost.
            widths: before the change.
            changes: new width by group.
        """
        after = list(widths)
        for group, width in changes.items():
            after[group] = width
        results = []
        for count, touching in zip(counts, self.touching, strict=True):
            terms = {id(term): term for group in changes for term in touching.get(group, ())}
            moved = sum(term_at(term, after) - term_at(term, widths) for term in terms.values())
            results.append(count + moved)
        return tuple(results)

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


def _by_group(polynomial: Polynomial) -> dict[int, list[Term | Table]]:
    table: dict[int, list[Term | Table]] = {}
    for term in polynomial:
        for group in groups_of(term):
            table.setdefault(group, []).append(term)
    return table
