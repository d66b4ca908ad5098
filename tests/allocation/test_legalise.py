"""Legal widths that use the budget up without undoing what the scores decided."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from peelcli.allocation.legalise import legalise
from peelcli.allocation.meter import Meter
from peelcli.records import ChannelGraph, Limit, Term
from tests.support import graphs


def worth(*layers):
    """A step, which always goes up, is worth its layer's score for each channel."""

    def gain(group: int, width: int, wider: int) -> float:
        assert width < wider
        return layers[group] * (wider - width)

    return gain


def test_rounded_down_then_the_best_steps():
    # 10 w1 + 10 w2 <= 95; wished (3.9, 2.2) -> (3, 2); towards the wish (4, 3) next, then the dearer score
    graph = graphs.graph([graphs.group("a", 8), graphs.group("b", 8)], (graphs.product(10, 0), graphs.product(10, 1)))
    assert legalise(graphs.meter(graph, macs=95), (3.9, 2.2), worth(1, 2)) == (4, 5)
    assert legalise(graphs.meter(graph, macs=95), (3.9, 2.2), worth(2, 1)) == (6, 3)


def test_a_step_is_judged_by_what_it_buys_for_its_price():
    # a's channel costs 1 and is worth 2, b's costs 10 and is worth 7: a goes first, up to its 8, though b's is worth
    # more; then b's does not fit, and four of a for one of b would lose
    graph = graphs.graph([graphs.group("a", 8), graphs.group("b", 8)], (graphs.product(1, 0), graphs.product(10, 1)))
    assert legalise(graphs.meter(graph, macs=24), (1.0, 1.0), worth(2, 7)) == (8, 1)


def test_a_trade_uses_what_no_step_can():
    # 3 w1 + 7 w2 <= 50 from (1, 6) = 45: the step of a fits once (2, 6) = 48, then nothing. One of b against three of
    # a: (5, 5) = 50, worth 3 - 1.
    graph = graphs.graph([graphs.group("a", 8), graphs.group("b", 8)], (graphs.product(3, 0), graphs.product(7, 1)))
    assert legalise(graphs.meter(graph, macs=50), (1.0, 6.0), worth(1, 1)) == (5, 5)


def test_no_trade_that_loses_gain_where_enough_is_used():
    # The same, but b's channels are worth 4: (5, 5) would lose 1. Of 490 MACs 488 are used, that is enough.
    graph = graphs.graph([graphs.group("a", 8), graphs.group("b", 8)], (graphs.product(3, 0), graphs.product(7, 1)))
    graph = graphs.graph(graph.groups, (*graph.cost.macs, Term("fixed", 440, ())))
    assert legalise(graphs.meter(graph, macs=490), (1.0, 6.0), worth(1, 4)) == (2, 6)
    for least in (3, 2.5, 1):  # 3 for 3 loses nothing, 3 for 2.5 gains half
        assert legalise(graphs.meter(graph, macs=490), (1.0, 6.0), worth(1, least)) == (5, 5)


def test_after_a_trade_steps_are_tried_again():
    # 3 w1 w2 + 4 w2 <= 19. From (1, 1) b's step is worth 3 for 7: (1, 2), 14, and no step fits. One of b against three
    # of a loses nothing and uses more: (4, 1), 16. Now a's fits: (5, 1), 19.
    graph = graphs.graph([graphs.group("a", 5), graphs.group("b", 3)], (graphs.product(3, 0, 1), graphs.product(4, 1)))
    assert legalise(graphs.meter(graph, macs=19), (1.0, 1.0), worth(1, 3)) == (5, 1)


def test_what_others_made_dearer_waits_for_its_turn():
    # 4 w1 w2 + 5 w3, and so much is fixed that nothing is traded; 12 are left at (1, 1, 1). a's step is worth 10 for 4,
    # b's 6 for 4, c's 4 for 5. Once a has grown, b's costs 8: c's comes first, and then b's does not fit.
    terms = (graphs.product(4, 0, 1), graphs.product(5, 2), Term("fixed", 99_991, ()))
    graph = graphs.graph([graphs.group(name, 2) for name in "abc"], terms)
    assert legalise(graphs.meter(graph, macs=100_012), (1.0, 1.0, 1.0), worth(10, 6, 4)) == (2, 1, 2)
    assert legalise(graphs.meter(graph, macs=100_017), (1.0, 1.0, 1.0), worth(10, 6, 4)) == (2, 2, 2)


def test_trades_see_what_is_cheap_among_much_that_is_dear():
    # The trade of above beside five groups whose steps never fit.
    names, dear = [f"dear{n}" for n in range(5)], tuple(graphs.product(100, 2 + n) for n in range(5))
    groups = [graphs.group(name, 8) for name in ("a", "b", *names)]
    meter = graphs.meter(graphs.graph(groups, (graphs.product(3, 0), graphs.product(7, 1), *dear)), macs=550)
    assert legalise(meter, (1.0, 6.0, *[1.0] * 5), worth(1, 1, *[1] * 5))[:2] == (5, 5)


def test_the_cheapest_step_up_is_one_to_trade_for():
    # 8 w1 + 7 w2 <= 65 from (1, 8), 64: one of b, which is full, for one of a
    graph = graphs.graph([graphs.group("a", 8), graphs.group("b", 8)], (graphs.product(8, 0), graphs.product(7, 1)))
    assert legalise(graphs.meter(graph, macs=65), (1.0, 8.0), worth(1, 1)) == (2, 7)


def test_of_equal_trades_the_first_is_made():
    # the same with a second group like a
    terms = (graphs.product(8, 0), graphs.product(7, 1), graphs.product(8, 2))
    graph = graphs.graph([graphs.group(name, 8) for name in "abc"], terms)
    assert legalise(graphs.meter(graph, macs=73), (1.0, 8.0, 1.0), worth(1, 1, 1)) == (2, 7, 1)


def test_a_trade_that_loses_is_made_below_98_5_percent_only():
    # 4 w1 + 3 w2 and what is fixed; one of b, which is worth 2, for one of a, which is worth 1
    def traded(fixed: int, bound: int) -> tuple[int, ...]:
        terms = (graphs.product(4, 0), graphs.product(3, 1), Term("fixed", fixed, ()))
        graph = graphs.graph([graphs.group("a", 2), graphs.group("b", 2)], terms)
        return legalise(graphs.meter(graph, macs=bound), (1.0, 2.0), worth(1, 2))

    assert traded(187, 200) == (1, 2)  # 197 of 200 are 98.5 %
    assert traded(186, 199) == (2, 1)


def three(costs: tuple[int, int, int], fixed: int) -> ChannelGraph:
    """Groups of two channels, each of its cost, beside what is fixed."""
    terms = tuple(graphs.product(cost, group) for group, cost in enumerate(costs))
    return graphs.graph([graphs.group(name, 2) for name in "abc"], (*terms, Term("fixed", fixed, ())))


def test_of_trades_that_lose_nothing_the_one_that_uses_most():
    # 995 of 1000 at (1, 2, 1). One of b, worth 1 for 10, against one of a, 2 for 14, or one of c, 5 for 12.
    graph = three((14, 10, 12), 949)
    assert legalise(graphs.meter(graph, macs=1000), (1.0, 2.0, 1.0), worth(2, 1, 5)) == (2, 1, 1)


def test_of_trades_that_lose_the_one_that_loses_least_for_what_it_uses():
    # 147 of 150 at (1, 2, 1). One of b, worth 7 for 10, against one of a, 3 for 11: 4 lost for 1. Or against one of c,
    # 1 for 12: 6 lost for 2.
    graph = three((11, 10, 12), 104)
    assert legalise(graphs.meter(graph, macs=150), (1.0, 2.0, 1.0), worth(3, 7, 1)) == (1, 1, 2)


@pytest.mark.parametrize(
    ("steps", "bound", "made"),
    [
        (3, 1000, True), (4, 1000, False),  # 99.9 %: near trades only
        (4, 200, False), (4, 199, True),  # from 99.5 % on
        (9, 199, True), (10, 199, True), (27, 199, True), (28, 199, False),
    ],
)  # fmt: skip
def test_distant_trades_are_looked_at_below_99_5_percent(steps, bound, made):
    # one of b, 2 n - 1, for n of a, 2 each; at (1, 2) 1 is left
    dear = 2 * steps - 1
    terms = (graphs.product(2, 0), graphs.product(dear, 1), Term("fixed", bound - 3 - 2 * dear, ()))
    graph = graphs.graph([graphs.group("a", steps + 1), graphs.group("b", 2)], terms)
    wanted = (steps + 1, 1) if made else (1, 2)
    assert legalise(graphs.meter(graph, macs=bound), (1.0, 2.0), worth(1, 1)) == wanted


def test_from_99_95_percent_on_nothing_is_traded():
    # 12 w1 + 10 w2, 5 are left at (1, 2)
    for bound, widths in ((10_000, (1, 2)), (9_999, (2, 1))):
        terms = (graphs.product(12, 0), graphs.product(10, 1), Term("fixed", bound - 37, ()))
        graph = graphs.graph([graphs.group("a", 2), graphs.group("b", 2)], terms)
        assert legalise(graphs.meter(graph, macs=bound), (1.0, 2.0), worth(1, 1)) == widths


def test_a_step_costs_the_largest_part_of_a_limit():
    # 10 are left of 1000 multiply-adds, 8 of 10 parameters. a's step takes 1 % of the former, for 1; b's takes 0.1 %
    # and 20 %, for 10. Once a has grown all is used.
    macs = (graphs.product(10, 0), graphs.product(1, 1), Term("fixed", 979, ()))
    graph = graphs.graph([graphs.group("a", 2), graphs.group("b", 2)], macs, (graphs.product(2, 1),))
    assert legalise(graphs.meter(graph, macs=1000, params=10), (1.0, 1.0), worth(1, 10)) == (2, 1)


def test_a_free_step_is_taken():
    # b costs no MACs, only parameters, which nobody bounds
    graph = graphs.graph([graphs.group("a", 8), graphs.group("b", 8)], (graphs.product(3, 0),))
    assert legalise(graphs.meter(graph, macs=12), (1.0, 1.0), worth(1, 0)) == (4, 8)


def test_steps_of_bundles_and_a_last_step_that_is_shorter():
    group = graphs.group("a", 14, step=4, floor=4, bundle=2)
    graph = graphs.graph([group], (graphs.product(1, 0),))
    widths = [legalise(graphs.meter(graph, macs=macs), (4.0,), worth(1))[0] for macs in (4, 7, 8, 13, 14)]
    assert widths == [4, 4, 8, 12, 14]


def steps_that_fit(meter, widths):
    ups = ((g, meter.next_up(g, widths[g])) for g in meter.free)
    return [g for g, wider in ups if wider and meter.fits(meter.counts((*widths[:g], wider, *widths[g + 1 :])))]


@given(graphs.any_graph(), st.data())
def test_never_above_and_no_legal_step_left(graph, data):
    names = data.draw(st.sampled_from([("macs",), ("params",), ("macs", "thop_macs", "params")]))
    ends = [Meter(graph, [Limit(name, 1) for name in names]).counts(w) for w in (graph.least, graph.full)]
    bounds = [data.draw(st.integers(low, high)) for low, high in zip(*ends, strict=True)]
    assume(all(bound > 0 for bound in bounds))
    meter = Meter(graph, [Limit(name, bound) for name, bound in zip(names, bounds, strict=True)])
    layers = data.draw(st.lists(st.floats(0, 5), min_size=len(graph.groups), max_size=len(graph.groups)))
    widths = legalise(meter, tuple(float(w) for w in graph.least), worth(*layers))
    assert meter.fits(meter.counts(widths))
    assert all(width in legal for width, legal in zip(widths, meter.legal, strict=True))
    assert steps_that_fit(meter, widths) == []
    assert legalise(meter, tuple(float(w) for w in graph.least), worth(*layers)) == widths
