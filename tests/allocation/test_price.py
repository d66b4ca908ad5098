"""A pool of time goes to what does much in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peelcli.allocation.allocate import allocate
from peelcli.allocation.meter import Meter
from peelcli.allocation.price import per_time
from peelcli.graph import cost
from peelcli.records import Limit, Table
from tests.support import graphs

# Two groups that do equally much; the channels of the first take three times as long.
PLAIN = graphs.graph(
    [graphs.group("slow", 10), graphs.group("fast", 10)], (graphs.product(10, 0), graphs.product(10, 1))
)


def timed(*rates: int):
    tables = tuple(
        Table(f"{g}", term.sizes, ((0, 10),), (0, 10 * rate))
        for g, (term, rate) in enumerate(zip(PLAIN.cost.macs, rates, strict=True))
    )
    return replace(PLAIN, cost=replace(PLAIN.cost, latency=tables))


def test_scores_for_time_by_hand():
    meter = Meter(timed(30, 10), [Limit("latency", 200)])
    # from (5, 5): each regains a quarter of the multiply-adds, the slow one 3/8 of the time, the fast one 1/8
    assert per_time(meter, [3.0, 2.0], (5, 5)) == [pytest.approx(2.0), pytest.approx(4.0)]


def test_a_group_regains_all_its_terms_at_the_widths_of_the_others():
    # w1 w2 + 2 w2 w3 multiply-adds, 2, 3, 4 wide of 4, 5, 6: 20 + 60 in full. The times 3 w1 + 2 w2 + w3: 28 in full.
    widths = (2, 3, 4)
    groups = [graphs.group("a", 4), graphs.group("b", 5), graphs.group("c", 6)]
    graph = graphs.graph(groups, (graphs.product(1, 0, 1), graphs.product(2, 1, 2)))
    times = (graphs.product(3, 0), graphs.product(1, 1), graphs.product(1, 1), graphs.product(1, 2))
    meter = Meter(replace(graph, cost=replace(graph.cost, latency=times)), [Limit("latency", 20)])
    more = [2 * 3 / 80, (2 * 2 + 2 * 2 * 4) / 80, 2 * 3 * 2 / 80]
    longer = [3 * 2 / 28, 2 * 2 / 28, 2 / 28]
    wanted = [score * m / t for score, m, t in zip((1.0, 2.0, 3.0), more, longer, strict=True)]
    assert per_time(meter, [1.0, 2.0, 3.0], widths) == pytest.approx(wanted)


def test_the_least_time_is_a_whole_one():
    # 1 ns in full, none of it at one channel: all of it comes back, with nine of ten multiply-adds
    graph = graphs.graph([graphs.group("a", 10)], (graphs.product(10, 0),))
    table = Table("a", graph.cost.macs[0].sizes, ((0, 10),), (0, 1))
    meter = Meter(replace(graph, cost=replace(graph.cost, latency=(table,))), [Limit("latency", 1)])
    assert per_time(meter, [2.0], (1,)) == pytest.approx([1.8])


def test_what_takes_no_time_keeps_its_score():
    meter = Meter(PLAIN, [Limit("latency", 1)])
    assert per_time(meter, [3.0, 2.0], (5, 5)) == [3.0, 2.0]


def test_what_takes_time_without_multiply_adds_keeps_its_score():
    graph = replace(PLAIN, cost=replace(timed(30, 10).cost, macs=PLAIN.cost.macs[1:]))
    meter = Meter(graph, [Limit("latency", 200)])
    assert per_time(meter, [3.0, 2.0], (5, 5)) == [3.0, pytest.approx(2.0 * (1 / 2) / (1 / 8))]


def test_a_score_for_each_group():
    with pytest.raises(ValueError, match="zip"):
        per_time(Meter(timed(30, 10), [Limit("latency", 200)]), [3.0], (5, 5))


def test_without_a_bound_of_latency_nothing_changes():
    meter = Meter(timed(30, 10), [Limit("macs", 100)])
    assert per_time(meter, [3.0, 2.0], (5, 5)) == [3.0, 2.0]


def test_a_group_that_can_not_grow_keeps_its_score():
    meter = Meter(timed(30, 10), [Limit("latency", 200)])
    assert per_time(meter, [3.0, 2.0], (10, 5))[0] == 3.0


@pytest.mark.parametrize("additive", [True, False])
@pytest.mark.parametrize("method", ["peel", "greedy", "uniform"])
def test_a_bound_of_latency_holds_with_others(method, additive):
    graph = timed(30, 10)
    scores = replace(graphs.scores(graph, [1.0, 1.0]), additive=additive)
    widths = allocate(graph, scores, [Limit("latency", 200), Limit("macs", 150)], method)
    assert cost.evaluate(graph.cost.latency, widths) <= 200
    assert cost.evaluate(graph.cost.macs, widths) <= 150


def test_equal_scores_keep_more_where_it_is_fast():
    graph = timed(30, 10)
    scores = graphs.scores(graph, [1.0, 1.0])
    slow, fast = allocate(graph, scores, [Limit("latency", 200)], "peel")
    assert fast > slow
    plain = allocate(graph, scores, [Limit("macs", 100)], "peel")
    assert cost.evaluate(graph.cost.macs, (slow, fast)) > cost.evaluate(graph.cost.macs, plain)
