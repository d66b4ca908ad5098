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


def test_without_a_bound_of_latency_nothing_changes():
    meter = Meter(timed(30, 10), [Limit("macs", 100)])
    assert per_time(meter, [3.0, 2.0], (5, 5)) == [3.0, 2.0]


def test_a_group_that_can_not_grow_keeps_its_score():
    meter = Meter(timed(30, 10), [Limit("latency", 200)])
    assert per_time(meter, [3.0, 2.0], (10, 5))[0] == 3.0


@pytest.mark.parametrize("method", ["peel", "greedy", "uniform"])
def test_a_bound_of_latency_holds_with_others(method):
    graph = timed(30, 10)
    scores = graphs.scores(graph, [1.0, 1.0])
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
