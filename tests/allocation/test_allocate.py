"""Whole allocations: worked by hand, and what every one of them promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from peelcli.allocation.allocate import ALLOCATORS, allocate, backbone
from peelcli.allocation.greedy import losses, worth_of_widths
from peelcli.allocation.meter import Meter
from peelcli.errors import BudgetOutOfReach, NothingToPrune
from peelcli.graph import cost
from peelcli.records import GroupScore, Limit, Scores, Share, Size, Table
from tests.support import graphs

METHODS = tuple(ALLOCATORS)


def macs(bound: int) -> list[Limit]:
    return [Limit("macs", bound)]


def test_two_groups_worked_by_hand():
    # a(w) = 4 w1 w2, scores 3:1, budget 40, half of it the pool. Backbone: 4 * 2 * 2 = 16 <= 20 < 36 = 4 * 3 * 3, so it
    # stops just short of (3, 3). Growing by 1 + 1.5 x and 1 + 0.5 x passes (3, 3), 36, and stops short of (4, 3.3), 48.
    # No step fits (3, 3). Two trades use all 40: (5, 2) gains 3 * 2/8 - 1/8, (2, 5) gains 3/8 - 3/8.
    assert allocate(graphs.TWO, graphs.scores(graphs.TWO, (3.0, 1.0)), macs(40), "peel") == (5, 2)
    assert allocate(graphs.TWO, graphs.scores(graphs.TWO, (1.0, 3.0)), macs(40), "peel") == (2, 5)


def test_the_score_decides_who_grows():
    # 10 (w1 + w2) <= 100. Half of it: 10 (2 + 2) <= 50 < 10 (3 + 3), so the backbone is just short of (3, 3). Shares
    # 5/6 and 1/6 of two groups: 3 (1 + 5/3 x) and 3 (1 + 1/3 x). (7, 3.8) at x = 0.8 uses all, the next is at x = 1.
    graph = graphs.graph([graphs.group("a", 8), graphs.group("b", 8)], (graphs.product(10, 0), graphs.product(10, 1)))
    assert allocate(graph, graphs.scores(graph, (5.0, 1.0)), macs(100), "peel") == (7, 3)
    assert allocate(graph, graphs.scores(graph, (1.0, 1.0)), macs(100), "peel") == (5, 5)
    assert allocate(graph, graphs.scores(graph, (5.0, 1.0)), macs(100), "peel", tau=0.0) == (5, 5)
    assert allocate(graph, graphs.scores(graph, (0.0, 0.0)), macs(100), "peel") == (5, 5)


def test_the_pool_bounds_what_the_score_can_do():
    graph = graphs.graph([graphs.group("a", 100), graphs.group("b", 100)], (graphs.product(1, 0), graphs.product(1, 1)))
    scores = graphs.scores(graph, (1.0, 0.0))
    # the backbone is half of (1 - pool) * 100 each, in whole channels; all of the pool goes to a
    assert allocate(graph, scores, macs(100), "peel", pool=0.2) == (60, 40)
    assert allocate(graph, scores, macs(100), "peel", pool=0.5) == (75, 25)
    assert allocate(graph, scores, macs(100), "peel", pool=0.75) == (88, 12)


def test_half_is_the_pool_and_scores_count_as_they_are_where_nothing_is_said():
    graph = graphs.graph([graphs.group("a", 100), graphs.group("b", 100)], (graphs.product(1, 0), graphs.product(1, 1)))
    scores = graphs.scores(graph, (3.0, 1.0))
    said = {(pool, tau): allocate(graph, scores, macs(100), "peel", pool, tau) for pool in (0.5, 0.9) for tau in (1, 2)}
    assert len(set(said.values())) == 4
    assert allocate(graph, scores, macs(100), "peel") == said[0.5, 1]


def test_a_step_is_worth_its_part_of_the_layer_s_score():
    # 2 w1 + 4 w2 <= 27, a of 1 .. 4 and b of 2, 4, 6. The backbone of 13.5 is short of (2.7, 4), growth by shares 1/3
    # and 2/3 ends short of (3.3, 6): (3, 4), then a's step, (4, 4), 24. Only three of a for one of b use more, (1, 6):
    # that would lose 1 * 3/4 for 2 * 2/6.
    groups = [graphs.group("a", 4), graphs.group("b", 6, step=2, floor=2)]
    graph = graphs.graph(groups, (graphs.product(2, 0), graphs.product(4, 1)))
    assert allocate(graph, graphs.scores(graph, (1.0, 2.0)), macs(27), "peel") == (4, 4)
    assert allocate(graph, graphs.scores(graph, (1.0, 2.5)), macs(27), "peel") == (1, 6)


def test_uniform_by_hand():
    # 8 and 16 channels, w1 w2 <= 64. 11/16 of both: (5, 11) = 55; 12/16: (6, 12) = 72. One step of b: (5, 12) = 60.
    graph = graphs.graph([graphs.group("a", 8), graphs.group("b", 16)], (graphs.product(1, 0, 1),))
    assert allocate(graph, graphs.scores(graph, (9.0, 1.0)), macs(64), "uniform") == (5, 12)


def test_uniform_trades_by_how_far_groups_are_behind():
    # 6 w1 + 5 w2 <= 107, both of 16; a step from w is worth (16 - w)^2 - (15 - w)^2. Short of (10, 10) is (9, 9), 99,
    # and b's step is the cheaper of equal ones, 104. One of b for one of a loses nothing: (10, 9), 105, below 98.5 %.
    # Now (11, 8) loses 15 - 11 for 1 MAC more, (12, 7) would lose 32 - 20 for 2. 106 of 107 is enough to stop losing.
    graph = graphs.graph([graphs.group("a", 16), graphs.group("b", 16)], (graphs.product(6, 0), graphs.product(5, 1)))
    assert allocate(graph, graphs.scores(graph, (9.0, 1.0)), macs(107), "uniform") == (11, 8)


def test_greedy_by_hand():
    # 10 w1 + 20 w2 = 90, budget 60; a channel of a is worth 3, 2, 1 and of b 9, 6, 3. Losses a MAC: a .1 .2 .3, b .15
    # .3 .45: a to 2 (80), b to 2 (60).
    graph = graphs.graph([graphs.group("a", 3), graphs.group("b", 3)], (graphs.product(10, 0), graphs.product(20, 1)))
    assert allocate(graph, graphs.scores(graph, (1.0, 3.0)), macs(60), "greedy") == (2, 2)


def test_two_limits_together():
    # 4 w1 w2 <= 100 and 2 + w1 <= 4: the parameters hold a at 2, then b takes all the MACs it can.
    limits = [Limit("macs", 100), Limit("params", 4)]
    for method in METHODS:
        assert allocate(graphs.TWO, graphs.scores(graphs.TWO, (9.0, 1.0)), limits, method) == (2, 8)


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_that_is_met_already_changes_nothing(method):
    assert allocate(graphs.TWO, graphs.scores(graphs.TWO, (3.0, 1.0)), macs(256), method) == (8, 8)
    locked = graphs.graph([graphs.group("a", 8, locked=True)], (graphs.product(1, 0),))
    assert allocate(locked, graphs.scores(locked, (1.0,)), macs(8), method) == (8,)


@pytest.mark.parametrize("method", METHODS)
def test_the_least_that_can_be_reached_is_reached(method):
    assert allocate(graphs.TWO, graphs.scores(graphs.TWO, (3.0, 1.0)), macs(4), method) == (1, 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_out_of_reach_says_what_can_be_reached(method):
    with pytest.raises(BudgetOutOfReach) as caught:
        allocate(graphs.TWO, graphs.scores(graphs.TWO, (3.0, 1.0)), macs(3), method)
    assert caught.value.message == "the least MACs that this model can reach is 4 MACs (4); the budget is 3 MACs (3)"
    assert caught.value.exit_code == 1


def test_the_limit_that_can_t_hold_is_named():
    limits = [Limit("macs", 100), Limit("params", 2)]
    with pytest.raises(BudgetOutOfReach, match=r"the least parameters .* is 3 \(3\); the budget is 2 \(2\)"):
        allocate(graphs.TWO, graphs.scores(graphs.TWO, (3.0, 1.0)), limits, "peel")


def test_what_can_be_reached_is_told_in_the_unit_of_the_limit():
    # 1,234,567 parameters, or multiply-adds, a channel; 3 ms for one channel, 8 ms for two
    large = (graphs.product(1_234_567, 0),)
    table = Table("a", (Size(0, (Share(0, 1, 1),)),), ((1, 2),), (3_000_000, 8_000_000))
    graph = graphs.graph([graphs.group("a", 2)], large, large, large)
    graph = replace(graph, cost=replace(graph.cost, latency=(table,)))
    told = {
        "params": "the least parameters that this model can reach is 1.235 M (1234567); the budget is 999 (999)",
        "macs": "the least MACs that this model can reach is 1.23 MMACs (1234567); the budget is 999 MACs (999)",
        "thop_macs": "the least MACs as thop counts them that this model can reach is 1.23 MMACs (1234567); "
        "the budget is 999 MACs (999)",
        "latency": "the least latency that this model can reach is 3 ms; the budget is 0.999 us",
    }
    for count, message in told.items():
        with pytest.raises(BudgetOutOfReach) as caught:
            allocate(graph, graphs.scores(graph, (1.0,)), [Limit(count, 999)], "peel")
        assert caught.value.message == message


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_prune(method):
    graph = graphs.graph([graphs.group("a", 8, locked=True)], (graphs.product(1, 0),))
    with pytest.raises(NothingToPrune) as caught:
        allocate(graph, graphs.scores(graph, (1.0,)), macs(7), method)
    assert caught.value.message == "no layer's width can change in this model"
    assert caught.value.hint == "`peel inspect` says why, group by group"


def test_the_backbone_by_hand():
    # 4 w1 w2 <= 40, half of it the pool: just short of (3, 3), which would cost 36 of 20
    assert backbone(graphs.TWO, macs(40), "peel", 0.5) == pytest.approx((3, 3))
    assert backbone(graphs.TWO, macs(40), "peel", 0.2) == pytest.approx((3, 3))  # 32; 4 * 2 * 2 = 16 fits
    assert backbone(graphs.TWO, macs(40), "peel", 0.05) == pytest.approx((4, 4))  # 38 hold 36


def test_no_backbone_where_no_pool_is_shared_out():
    assert backbone(graphs.TWO, macs(40), "uniform", 0.5) == ()
    assert backbone(graphs.TWO, macs(40), "greedy", 0.5) == ()
    assert backbone(graphs.TWO, macs(256), "peel", 0.5) == ()  # the budget is met already
    assert backbone(graphs.TWO, macs(255), "peel", 0.5) != ()


@st.composite
def cases(draw):
    graph = draw(graphs.any_graph())
    names = draw(st.sampled_from([("macs",), ("params",), ("macs", "thop_macs"), ("macs", "thop_macs", "params")]))
    ends = [Meter(graph, [Limit(name, 1) for name in names]).counts(w) for w in (graph.least, graph.full)]
    bounds = [draw(st.integers(low, max(low, high - 1))) for low, high in zip(*ends, strict=True)]
    assume(all(bound > 0 for bound in bounds) and graph.least != graph.full)
    layers = draw(st.lists(st.floats(0, 10), min_size=len(graph.groups), max_size=len(graph.groups)))
    return graph, graphs.scores(graph, layers), [Limit(n, b) for n, b in zip(names, bounds, strict=True)]


@given(cases(), st.sampled_from(METHODS), st.floats(0.05, 0.95), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_never_above_and_nothing_left(case, method, pool, tau):
    graph, scores, limits = case
    widths = allocate(graph, scores, limits, method, pool, tau)
    costs = cost.costs(graph.cost, widths)
    assert all(getattr(costs, limit.count) <= limit.bound for limit in limits)
    for position, (group, width) in enumerate(zip(graph.groups, widths, strict=True)):
        legal = group.legal_widths()
        assert width in legal
        assert not group.locked or width == group.full
        if width < group.full:
            wider = (*widths[:position], legal[legal.index(width) + 1], *widths[position + 1 :])
            more = cost.costs(graph.cost, wider)
            assert any(getattr(more, limit.count) > limit.bound for limit in limits)
    assert allocate(graph, scores, limits, method, pool, tau) == widths


@given(cases(), st.sampled_from(METHODS))
def test_locks_are_kept_whatever_the_others_do(case, method):
    graph, scores, limits = case
    widths = allocate(graph, scores, limits, method)
    assert all(width == group.full for group, width in zip(graph.groups, widths, strict=True) if group.locked)


@given(cases(), st.floats(0.1, 100))
def test_the_unit_of_the_scores_does_not_matter(case, factor):
    graph, scores, limits = case
    double = 2.0 ** round(factor)  # a power of two, so that no rounding comes in
    other = graphs.scores(graph, [score.layer * double for score in scores.groups])
    assert allocate(graph, scores, limits, "peel") == allocate(graph, other, limits, "peel")


# --- scores that add up to a loss


def losing(graph, *channels):
    """Additive scores: for each group what every bundle's removal adds, on each of its channels."""
    made = []
    for group, values in zip(graph.groups, channels, strict=True):
        by_channel = [0.0] * group.full
        for bundle, value in zip(group.bundles, values, strict=True):
            for channel in bundle:
                by_channel[channel] = value
        made.append(GroupScore(tuple(by_channel), float(sum(values))))
    return Scores("test", tuple(made), additive=True)


LINES = graphs.graph([graphs.group("a", 8), graphs.group("b", 8)], (graphs.product(10, 0), graphs.product(10, 1)))


def test_shares_come_from_what_the_backbone_has_lost():
    # 10 (w1 + w2) <= 100, half of it the pool: the backbone is just short of (3, 3), legal (2, 2). There a has lost its
    # least six, 6 * 5 = 30, and b 6 * 1 = 6, whatever the two that stay are worth: shares 5/6 and 1/6 as above.
    scores = losing(LINES, [5.0] * 6 + [6, 6], [1.0] * 6 + [900, 900])
    assert allocate(LINES, scores, macs(100), "peel") == (7, 3)
    assert allocate(LINES, scores, macs(100), "peel", tau=0.0) == (5, 5)
    plain = replace(scores, additive=False)  # layer scores 42 and 1806
    assert allocate(LINES, plain, macs(100), "peel") == (3, 7)


def test_a_step_is_worth_the_channels_that_it_brings_back():
    # 10 (w1 + w2) <= 110; at (2, 2) both have lost 30, so both grow to just below 6, (5, 5), and one step is left. The
    # sixth channel of a brings back 4.8, that of b 1.
    a, b = [1.0, 2, 4.8, 5.2, 5.2, 11.8, 20, 20], [1.0, 1, 1, 1, 13, 13, 20, 20]
    assert sum(a[:6]) == pytest.approx(sum(b[:6]))
    assert allocate(LINES, losing(LINES, a, b), macs(110), "peel") == (6, 5)
    assert allocate(LINES, losing(LINES, b, a), macs(110), "peel") == (5, 6)


def test_losses_by_hand_and_each_bundle_once():
    groups = [graphs.group("a", 3), graphs.group("b", 6, step=2, floor=2, bundle=2)]
    graph = graphs.graph(groups, (graphs.product(1, 0), graphs.product(1, 1)))
    meter = Meter(graph, macs(9))
    worth = worth_of_widths(meter, losing(graph, [3.0, 1, 2], [5.0, 1, 3]))
    assert losses(meter, worth, (3, 6)) == [0.0, 0.0]
    assert losses(meter, worth, (2, 4)) == [1.0, 1.0]
    assert losses(meter, worth, (1, 2)) == [3.0, 4.0]
    assert losses(meter, worth, (0, 0)) == [6.0, 9.0]


def test_what_does_not_match_is_no_loss():
    meter = Meter(LINES, macs(100))
    curves = worth_of_widths(meter, losing(LINES, [1.0] * 8, [1.0] * 8))
    for worth, widths in ((curves[:1], (3, 3)), (curves, (3,))):
        with pytest.raises(ValueError, match="zip"):
            losses(meter, worth, widths)
    with pytest.raises(ValueError, match="zip"):
        worth_of_widths(meter, losing(graphs.graph(LINES.groups[:1], ()), [1.0] * 8))


def test_greedy_counts_the_loss_of_a_bundle_once():
    # 2 w1 + w2 = 16 at (4, 8), bundles of two. A channel of a saves 2 and loses 1, 2, ...; a bundle of b saves 2 and
    # loses 1.5, then 1.8, then 9. Counted twice, once a channel, b's first would be 3, and a's second came before it.
    groups = [graphs.group("a", 4), graphs.group("b", 8, step=2, floor=2, bundle=2)]
    graph = graphs.graph(groups, (graphs.product(2, 0), graphs.product(1, 1)))
    scores = losing(graph, [1.0, 2, 8, 8], [1.5, 9, 1.8, 9])
    assert [allocate(graph, scores, macs(m), "greedy") for m in (14, 12, 10, 8)] == [(3, 8), (3, 6), (3, 4), (2, 4)]


@given(cases(), st.data(), st.sampled_from(METHODS))
def test_additive_scores_are_never_above_and_leave_nothing(case, data, method):
    graph, _, limits = case
    scores = losing(
        graph,
        *(
            data.draw(st.lists(st.floats(0, 10), min_size=n, max_size=n))
            for n in (len(g.bundles) for g in graph.groups)
        ),
    )
    widths = allocate(graph, scores, limits, method)
    costs = cost.costs(graph.cost, widths)
    assert all(getattr(costs, limit.count) <= limit.bound for limit in limits)
    for position, (group, width) in enumerate(zip(graph.groups, widths, strict=True)):
        legal = group.legal_widths()
        assert width in legal
        if width < group.full:
            wider = (*widths[:position], legal[legal.index(width) + 1], *widths[position + 1 :])
            more = cost.costs(graph.cost, wider)
            assert any(getattr(more, limit.count) > limit.bound for limit in limits)
