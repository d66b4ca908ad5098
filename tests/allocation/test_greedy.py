"""The greedy control by hand."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from peelcli.allocation.greedy import greedy, worth_of_widths
from peelcli.allocation.meter import Meter
from peelcli.records import GroupScore, Limit, Scores
from tests.support import graphs


def test_the_worth_of_widths_is_that_of_the_best_bundles():
    groups = [graphs.group("a", 3), graphs.group("b", 4, step=2, floor=2, bundle=2)]
    meter = graphs.meter(graphs.graph(groups, ()), macs=1)
    scores = Scores("test", (GroupScore((1.0, 5.0, 2.0), 1.0), GroupScore((1.0, 3.0, 4.0, 6.0), 1.0)))
    assert worth_of_widths(meter, scores) == [[0.0, 5.0, 7.0, 8.0], [0.0, 5.0, 7.0]]


def test_the_cheapest_loss_goes_first():
    # 10 w1 + 20 w2 = 90 at (3, 3), budget 60. Losses a MAC: a 1/10, then 4/10; b 3/20, then 3/20, then 9/20.
    # a to 2 (80), b to 2 (60): done.
    graph = graphs.graph([graphs.group("a", 3), graphs.group("b", 3)], (graphs.product(10, 0), graphs.product(20, 1)))
    worth = [[0.0, 5.0, 9.0, 10.0], [0.0, 9.0, 12.0, 15.0]]
    assert greedy(graphs.meter(graph, macs=60), worth) == (2, 2)
    assert greedy(graphs.meter(graph, macs=50), worth) == (2, 1)
    assert greedy(graphs.meter(graph, macs=30), worth) == (1, 1)


def test_what_a_cut_saves_is_looked_at_again_when_others_were_made():
    # 2 w1 w2 + 9 w1 + 3 w2 = 39 at (2, 3), budget 27. b's last channel is worth nothing: (2, 2), 32. Before that cut a
    # would have lost 6 for 15 MACs, now 6 for 13; b loses 3 for 7, which is less: (2, 1), 25.
    terms = (graphs.product(2, 0, 1), graphs.product(9, 0), graphs.product(3, 1))
    graph = graphs.graph([graphs.group("a", 2), graphs.group("b", 3)], terms)
    assert greedy(graphs.meter(graph, macs=27), [[0.0, 3.0, 9.0], [0.0, 3.0, 6.0, 6.0]]) == (2, 1)


def test_only_limits_that_are_broken_count():
    # a saves MACs, b parameters; only the parameters are over
    graph = graphs.graph([graphs.group("a", 4), graphs.group("b", 4)], (graphs.product(9, 0),), (graphs.product(1, 1),))
    assert greedy(graphs.meter(graph, macs=36, params=3), [[0.0, 1, 2, 3, 3.1], [0.0, 5, 10, 15, 20]]) == (4, 3)


def test_limits_count_by_the_part_of_them_that_is_saved():
    # 100 w1 + 60 w2 = 320 of 270, 5 w2 = 10 of 5. A channel of a loses 1 for 100/270, one of b 2 for 60/270 + 5/5: that
    # is less, and all that is needed, though of plain numbers a saves more for its loss.
    macs, params = (graphs.product(100, 0), graphs.product(60, 1)), (graphs.product(5, 1),)
    graph = graphs.graph([graphs.group("a", 2), graphs.group("b", 2)], macs, params)
    assert greedy(graphs.meter(graph, macs=270, params=5), [[0.0, 1, 2], [0.0, 2, 4]]) == (2, 1)


@given(graphs.any_graph(), st.data())
def test_it_ends_within_the_limits(graph, data):
    ends = [Meter(graph, [Limit("macs", 1), Limit("params", 1)]).counts(w) for w in (graph.least, graph.full)]
    bounds = [data.draw(st.integers(low, high)) for low, high in zip(*ends, strict=True)]
    assume(all(bound > 0 for bound in bounds))
    meter = Meter(graph, [Limit("macs", bounds[0]), Limit("params", bounds[1])])
    layers = data.draw(st.lists(st.floats(0, 5), min_size=len(graph.groups), max_size=len(graph.groups)))
    widths = greedy(meter, worth_of_widths(meter, graphs.scores(graph, layers)))
    assert meter.fits(meter.counts(widths))
    assert all(width in legal for width, legal in zip(widths, meter.legal, strict=True))
