"""What widths cost against limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peelcli.allocation.meter import Meter
from peelcli.graph import cost
from peelcli.records import Limit, Share, Size, Table
from tests.support import graphs


def test_by_hand():
    graph = graphs.graph([graphs.group("a", 8, step=3, floor=3), graphs.group("b", 4, locked=True)], ())
    meter = Meter(graph, [])
    assert meter.legal == ((3, 6, 8), (4,))
    assert meter.free == (0,)
    assert meter.down_to_legal((7.9, 1.0)) == (6, 4)
    assert meter.down_to_legal((6.0 - 1e-12, 4.0)) == (6, 4)  # round-off of a bisection
    assert meter.down_to_legal((1.0, 9.0)) == (3, 4)
    assert [meter.next_up(0, width) for width in (3, 6, 8)] == [6, 8, None]
    assert [meter.next_down(0, width) for width in (3, 6, 8)] == [None, 3, 6]
    assert meter.next_up(1, 4) is meter.next_down(1, 4) is None


def test_the_tightest_limit_counts():
    meter = graphs.meter(graphs.TWO, macs=100, params=8)  # 4 w1 w2 and 2 + w1
    assert meter.counts((5, 4)) == (80, 7)
    assert meter.used((80, 7)) == 7 / 8
    assert meter.fits((100, 8))
    assert not meter.fits((101, 8))
    assert not meter.fits((100, 9))


def test_counts_are_those_of_the_limits():
    meter = graphs.meter(graphs.TWO, macs=100, params=8)
    with pytest.raises(ValueError, match="zip"):
        meter.fits((80,))
    with pytest.raises(ValueError, match="zip"):
        meter.used((80,))
    with pytest.raises(ValueError, match="zip"):
        meter.down_to_legal((5.0,))


@given(graphs.any_graph(), st.data())
def test_changes_are_counted_as_the_whole_is(graph, data):
    meter = Meter(graph, [Limit("macs", 1), Limit("params", 1), Limit("thop_macs", 1)])
    widths = data.draw(st.tuples(*(st.sampled_from(legal) for legal in meter.legal)))
    wanted = data.draw(st.tuples(*(st.sampled_from(legal) for legal in meter.legal)))
    one, other = data.draw(st.permutations(range(len(widths))))[:2] if len(widths) > 1 else (0, 0)
    changed = list(widths)
    parts = [meter.counts(widths), meter.change(changed, one, wanted[one])]
    if other != one:
        parts.append(meter.change(changed, other, wanted[other]))
        parts.append(meter.joint(changed, (one, wanted[one]), (other, wanted[other])))
    assert tuple(changed) == widths
    after = tuple(wanted[g] if g in (one, other) else widths[g] for g in range(len(widths)))
    counts = tuple(map(sum, zip(*parts, strict=True)))
    assert counts == meter.counts(after)
    costs = cost.costs(graph.cost, after)
    assert counts == (costs.macs, costs.params, costs.thop_macs)


def test_a_width_that_takes_as_long_as_a_wider_one_is_left_out_where_time_counts():
    graph = graphs.graph([graphs.group("a", 32, step=8, floor=8)], (graphs.product(1, 0),))
    table = Table("a", (Size(0, (Share(0, 1, 1),)),), ((8, 16, 24, 32),), (50, 30, 30, 40))
    graph = replace(graph, cost=replace(graph.cost, latency=(table,)))
    assert Meter(graph, [Limit("macs", 32)]).legal == ((8, 16, 24, 32),)
    timed = Meter(graph, [Limit("macs", 32), Limit("latency", 35)])
    assert timed.legal == ((24, 32),)
    assert timed.least == (24,)


def test_the_others_are_full_where_a_width_is_judged_by_its_time():
    # a's 8 channels take 10 where b has its 4 channels; where b had 2, as c has, they would take longer than 16
    groups = [graphs.group("a", 16, step=8, floor=8), graphs.group("b", 4, locked=True), graphs.group("c", 2)]
    sizes = (Size(0, (Share(0, 1, 1),)), Size(0, (Share(1, 1, 1),)))
    table = Table("a and b", sizes, ((8, 16), (2, 4)), (50, 10, 30, 30))
    graph = graphs.graph(groups, ())
    graph = replace(graph, cost=replace(graph.cost, latency=(table,)))
    assert Meter(graph, [Limit("latency", 30)]).legal[0] == (8, 16)


def test_what_two_changes_make_together_is_seen_in_the_terms_of_both_alone(monkeypatch):
    # a stream that 50 layers write, with two tensors each: a pair with one of the layers shares 2 of its 100 terms
    groups = [graphs.group("stream", 8), *(graphs.group(f"layer{n}", 8) for n in range(50))]
    graph = graphs.graph(groups, tuple(graphs.product(3, 0, 1 + n % 50) for n in range(100)))
    meter, widths, seen = graphs.meter(graph, macs=1), list(graph.full), []
    monkeypatch.setattr("peelcli.allocation.meter.term_at", lambda *term: seen.append(term) or cost.term_at(*term))
    assert meter.joint(widths, (0, 6), (7, 5)) == (2 * 3 * (8 - 6) * (8 - 5),)
    assert meter.joint(widths, (1, 6), (2, 5)) == (0,)
    assert len(seen) == 8  # two terms, at both widths of both groups
