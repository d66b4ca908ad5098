"""The backbone and the one round, by hand and in general. Widths are real numbers here, legal ones come after."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from peelcli.allocation.grow import even, grow, shares
from peelcli.allocation.meter import Meter
from peelcli.records import Limit
from tests.support import graphs


def test_the_even_backbone_by_hand():
    # 4 w1 w2 <= 40: 3 * 3 costs 36 and 4 * 4 costs 64, so that the share stops just short of 4 / 8.
    meter = graphs.meter(graphs.TWO, macs=40)
    assert even(meter) == pytest.approx((4, 4))
    assert meter.down_to_legal(even(meter)) == (3, 3)
    # half of the budget: 2 * 2 costs 16, 3 * 3 costs 36
    assert meter.down_to_legal(even(meter, 0.5)) == (2, 2)


def test_where_all_fits_even_is_full():
    assert even(graphs.meter(graphs.TWO, macs=256)) == (8.0, 8.0)


def test_no_backbone_is_below_the_floors():
    graph = graphs.graph([graphs.group("a", 8, floor=4), graphs.group("b", 8)], (graphs.product(1, 0, 1),))
    assert even(graphs.meter(graph, macs=8), 0.1) == (4.0, 1.0)


def test_shares_by_hand():
    graph = graphs.graph([graphs.group("a", 8), graphs.group("b", 8), graphs.group("c", 8, locked=True)], ())
    meter = graphs.meter(graph, macs=1)
    assert shares(meter, (3.0, 1.0, 9.0), 1.0) == (0.75, 0.25, 0.0)  # the locked group's score does not count
    assert shares(meter, (3.0, 1.0, 9.0), 2.0) == pytest.approx((0.9, 0.1, 0.0))
    assert shares(meter, (3.0, 1.0, 9.0), 0.0) == (0.5, 0.5, 0.0)
    assert shares(meter, (3.0, 0.0, 9.0), 0.0) == (0.5, 0.5, 0.0)  # 0 grows all groups alike, also one without score
    assert shares(meter, (3.0, 0.0, 9.0), 1.0) == (1.0, 0.0, 0.0)
    assert shares(meter, (0.0, 0.0, 9.0), 1.0) == (0.5, 0.5, 0.0)


def test_scores_of_any_size():
    meter = graphs.meter(graphs.TWO, macs=1)
    assert shares(meter, (1e200, 5e199), 2.0) == pytest.approx((0.8, 0.2))
    assert shares(meter, (1e-200, 5e-201), 2.0) == pytest.approx((0.8, 0.2))


def test_growth_by_hand():
    # From (2, 2) with shares 3/4 and 1/4 of two groups: (2 (1 + 1.5 x), 2 (1 + 0.5 x)) and 4 w1 w2 <= 40 after rounding
    # down. At x = 2/3: (4, 2.67) -> (4, 2) costs 32; at x = 1: (5, 3) costs 60, so it stops just short of (5, 3).
    meter = graphs.meter(graphs.TWO, macs=40)
    grown = grow(meter, (2.0, 2.0), (3.0, 1.0), 1.0)
    assert grown == pytest.approx((5, 3))
    assert meter.down_to_legal(grown) == (4, 2)


def test_a_backbone_has_every_group():
    with pytest.raises(ValueError, match="zip"):
        grow(graphs.meter(graphs.TWO, macs=40), (2.0,), (3.0, 1.0), 1.0)


def test_what_is_full_returns_its_share():
    # Cost 10 (w1 + w2), budget 120, from (1, 6). Shares .9 and .1: the first is full at 4 long before the second,
    # which alone grows on to 8: 10 (4 + 8) = 120.
    groups = [graphs.group("small", 4), graphs.group("large", 16)]
    meter = graphs.meter(graphs.graph(groups, (graphs.product(10, 0), graphs.product(10, 1))), macs=120)
    assert meter.down_to_legal(grow(meter, (1.0, 6.0), (9.0, 1.0), 1.0)) == (4, 8)


def test_a_group_without_score_stays_at_the_backbone():
    meter = graphs.meter(graphs.TWO, macs=4 * 8 * 8 - 1)
    assert grow(meter, (2.0, 2.0), (1.0, 0.0), 1.0) == (8.0, 2.0)


def test_a_hardly_informative_group_takes_nothing_from_the_bisection():
    meter = graphs.meter(graphs.TWO, macs=40)
    grown = grow(meter, (2.0, 2.0), (1.0, 1e-300), 1.0)
    assert meter.down_to_legal(grown) == (5, 2)
    assert all(map(math.isfinite, grown))


@st.composite
def cases(draw):
    graph = draw(graphs.any_graph())
    full, least = (Meter(graph, [Limit("macs", 1)]).counts(w)[0] for w in (graph.full, graph.least))
    assume(full > least)
    meter = Meter(graph, [Limit("macs", draw(st.integers(least, full - 1)))])
    scores = draw(st.lists(st.floats(0, 10), min_size=len(graph.groups), max_size=len(graph.groups)))
    return meter, scores


@given(cases(), st.floats(0.05, 0.95), st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_what_holds_for_all(case, pool, tau):
    meter, scores = case
    backbone = even(meter, 1 - pool)
    grown = grow(meter, backbone, scores, tau)
    assert all(low <= high for low, high in zip(backbone, grown, strict=True))
    assert all(width <= legal[-1] + 1e-9 for width, legal in zip(grown, meter.legal, strict=True))
    assert meter.fits(meter.counts(meter.down_to_legal(grown)))


@given(cases(), st.floats(0.1, 0.9))
def test_a_larger_share_of_the_budget_narrows_no_group(case, share):
    meter, _ = case
    assert all(a <= b for a, b in zip(even(meter, share), even(meter), strict=True))


@given(cases(), st.floats(0.05, 0.95))
def test_without_the_score_s_say_growth_is_even(case, pool):
    meter, scores = case
    backbone = even(meter, 1 - pool)
    grown = grow(meter, backbone, scores, 0.0)
    factors = [grown[g] / backbone[g] for g in meter.free if grown[g] < meter.legal[g][-1] - 1e-9]
    assert all(factor == pytest.approx(factors[0]) for factor in factors)


@given(cases(), st.floats(0.05, 0.95))
def test_the_more_informative_group_grows_by_the_larger_factor(case, pool):
    meter, scores = case
    backbone = even(meter, 1 - pool)
    grown = grow(meter, backbone, scores, 1.0)
    growing = [g for g in meter.free if grown[g] < meter.legal[g][-1] - 1e-9]
    for a in growing:
        for b in growing:
            if scores[a] >= scores[b]:
                assert grown[a] / backbone[a] >= grown[b] / backbone[b] - 1e-9
