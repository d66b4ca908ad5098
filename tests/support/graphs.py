"""Channel graphs made of numbers alone, for what needs no model."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from peelcli.allocation.meter import Meter
from peelcli.records import (
    ChannelGraph,
    CostModel,
    Group,
    GroupScore,
    Limit,
    Locked,
    Polynomial,
    Scores,
    Share,
    Size,
    Term,
)


def group(name: str, full: int, step: int = 1, floor: int = 1, bundle: int = 1, locked: bool = False) -> Group:
    """Channels in neighbouring bundles, without slices."""
    bundles = tuple(tuple(range(start, start + bundle)) for start in range(0, full, bundle))
    reason = Locked("for the test") if locked else None
    return Group(name, (name,), full, step, full if locked else floor, bundles, (), (), reason)


def product(coefficient: int, *groups: int, constant: int = 0) -> Term:
    """One term: coefficient * (constant + w) * (constant + w') * ... of the named groups."""
    return Term("product", coefficient, tuple(Size(constant, (Share(g, 1, 1),)) for g in groups))


def graph(groups: Sequence[Group], macs: Polynomial, params: Polynomial = (), thop: Polynomial = ()) -> ChannelGraph:
    return ChannelGraph(tuple(groups), CostModel(macs, params, thop))


def scores(graph: ChannelGraph, layers: Sequence[float]) -> Scores:
    """Layer scores as given; the channels of a group are worth 1, 2, 3, ... of their layer's."""
    made = (
        GroupScore(tuple(layer * (channel + 1) for channel in range(group.full)), layer)
        for group, layer in zip(graph.groups, layers, strict=True)
    )
    return Scores("test", tuple(made))


def meter(graph: ChannelGraph, macs: int, params: int | None = None) -> Meter:
    limits = [Limit("macs", macs)] + ([Limit("params", params)] if params is not None else [])
    return Meter(graph, limits)


# Two groups of eight whose cost is 4 w1 w2, as in STYLE.md.
TWO = graph([group("one", 8), group("two", 8)], (product(4, 0, 1),), (product(1, 0, constant=2),))


@st.composite
def any_group(draw: st.DrawFn, name: str = "group") -> Group:
    bundle = draw(st.sampled_from([1, 1, 1, 2, 3]))
    count = draw(st.integers(1, 12))
    step = bundle * draw(st.integers(1, 3))
    full = bundle * count
    floor = min(full, step * draw(st.integers(1, 3)))
    return group(name, full, step, floor, bundle, locked=floor == full or draw(st.integers(0, 5)) == 0)


@st.composite
def any_graph(draw: st.DrawFn) -> ChannelGraph:
    """One to five groups; every count is a sum of products of one or two groups and a constant.

    The terms of the multiply-adds are among thop's too, as in real graphs.
    """
    groups = [draw(any_group(name=f"g{position}")) for position in range(draw(st.integers(1, 5)))]
    place = st.integers(0, len(groups) - 1)
    pairs = st.lists(st.tuples(st.integers(1, 9), place, place, st.integers(0, 3)), min_size=1, max_size=6)

    def polynomial() -> Polynomial:
        terms = [
            product(coefficient, *dict.fromkeys((a, b)), constant=constant)
            for coefficient, a, b, constant in draw(pairs)
        ]
        return (*terms, Term("fixed", draw(st.integers(0, 20)), ()))

    macs = polynomial()
    return graph(groups, macs, polynomial(), (*macs, *polynomial()))
