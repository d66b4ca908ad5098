"""The next step of every group, kept up to date: by hand, and against counting anew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peelcli.allocation.meter import Meter
from peelcli.allocation.steps import Steps
from peelcli.records import Limit
from tests.support import graphs


def test_steps_up_by_hand():
    # 4 w1 w2 multiply-adds and 2 + w1 parameters, at (5, 4)
    meter = graphs.meter(graphs.TWO, macs=256, params=10)
    steps = Steps(meter, (5, 4), meter.next_up)
    assert steps.width == {0: 6, 1: 5}
    assert (steps.change(0), steps.change(1)) == ((4 * 4, 1), (4 * 5, 0))
    steps.take(0)
    assert steps.widths == [6, 4]
    assert steps.width == {0: 7, 1: 5}
    assert (steps.change(0), steps.change(1)) == ((4 * 4, 1), (4 * 6, 0))
    steps.take(1)
    assert steps.widths == [6, 5]
    assert (steps.change(0), steps.change(1)) == ((4 * 5, 1), (4 * 6, 0))


def test_steps_down_by_hand():
    meter = graphs.meter(graphs.TWO, macs=256, params=10)
    steps = Steps(meter, (8, 2), meter.next_down)
    assert (steps.change(0), steps.change(1)) == ((-4 * 2, -1), (-4 * 8, 0))
    steps.take(1)
    assert steps.widths == [8, 1]
    assert steps.width == {0: 7, 1: None}
    assert steps.change(0) == (-4, -1)
    steps.take(0)  # the other one, at its end, is left alone
    assert (steps.widths, steps.width) == ([7, 1], {0: 6, 1: None})


def test_the_widths_that_came_in_are_left_as_they_are():
    meter = graphs.meter(graphs.TWO, macs=256)
    widths = [5, 4]
    Steps(meter, widths, meter.next_up).take(0)
    assert widths == [5, 4]


def test_a_group_twice_in_one_term_and_a_last_step_that_is_shorter():
    # 2 w^2 and 3 w at the legal widths 4, 8, 10
    group = graphs.group("a", 10, step=4, floor=4, bundle=2)
    graph = graphs.graph([group], (graphs.product(2, 0, 0), graphs.product(3, 0)))
    meter = graphs.meter(graph, macs=1)
    steps = Steps(meter, (4,), meter.next_up)
    assert steps.change(0) == (2 * (64 - 16) + 3 * 4,)
    steps.take(0)
    assert steps.change(0) == (2 * (100 - 64) + 3 * 2,)
    steps.take(0)
    assert steps.width == {0: None}
    with pytest.raises(AssertionError):
        steps.take(0)


def test_only_groups_with_a_choice_have_steps_and_all_of_a_pair_are_told():
    # w1 w2 + 5 w2 w3 + 7 w3; the second is locked at 3, so that the others do not know each other
    groups = [graphs.group("a", 4), graphs.group("b", 3, locked=True), graphs.group("c", 4)]
    terms = (graphs.product(1, 0, 1), graphs.product(5, 1, 2), graphs.product(7, 2))
    meter = graphs.meter(graphs.graph(groups, terms), macs=1)
    steps = Steps(meter, (2, 3, 2), meter.next_up)
    assert steps.width == {0: 3, 2: 3}
    steps.take(0)
    assert (steps.change(0), steps.change(2)) == ((3,), (5 * 3 + 7,))


def test_two_terms_between_the_same_groups_are_both_kept():
    # w1 w2 + 10 w1 w2 at (1, 1)
    meter = graphs.meter(graphs.graph(graphs.TWO.groups, (graphs.product(1, 0, 1), graphs.product(10, 0, 1))), macs=1)
    steps = Steps(meter, (1, 1), meter.next_up)
    for width in (1, 2, 3):
        assert steps.change(1) == (11 * width,)
        steps.take(0)


def test_counts_that_share_a_term_are_all_kept():
    # w1 w2 multiply-adds; thop counts the very same term, and w1 beside it
    shared = graphs.product(1, 0, 1)
    graph = graphs.graph(graphs.TWO.groups, (shared,), thop=(shared, graphs.product(1, 0)))
    meter = Meter(graph, [Limit("macs", 1), Limit("thop_macs", 1)])
    steps = Steps(meter, (1, 1), meter.next_up)
    steps.take(0)
    assert steps.change(1) == (2, 2)
    steps.take(1)
    assert steps.change(0) == (2, 2 + 1)


@given(graphs.any_graph(), st.booleans(), st.data())
def test_kept_up_to_date_is_counted_anew(graph, up, data):
    meter = Meter(graph, [Limit("macs", 1), Limit("params", 1), Limit("thop_macs", 1)])
    widths = data.draw(st.tuples(*(st.sampled_from(legal) for legal in meter.legal)))
    move = meter.next_up if up else meter.next_down
    steps = Steps(meter, widths, move)
    for _ in range(6):
        counts = meter.counts(steps.widths)
        assert steps.width == {group: move(group, steps.widths[group]) for group in meter.free}
        going = {group: width for group, width in steps.width.items() if width is not None}
        for group, width in going.items():
            after = meter.counts((*steps.widths[:group], width, *steps.widths[group + 1 :]))
            assert steps.change(group) == tuple(b - a for a, b in zip(counts, after, strict=True))
        if not going:
            return
        steps.take(data.draw(st.sampled_from(sorted(going))))
