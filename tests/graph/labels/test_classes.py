"""Union-find over arrays of labels: worked by hand, and against sets that are merged one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peelcli.graph.labels.classes import FIXED, Classes, Obstacle

WHY = Obstacle("for the test")


def made(count: int) -> Classes:
    """Labels 1 to count, each alone."""
    classes = Classes()
    classes.fresh(count)
    return classes


def partition(classes: Classes, count: int) -> set[frozenset[int]]:
    roots = classes.find(np.arange(1, count + 1)).tolist()
    return {frozenset(k + 1 for k, root in enumerate(roots) if root == each) for each in roots}


def test_fresh_labels_are_alone_and_begin_behind_the_fixed_one():
    classes = Classes()
    assert classes.fresh(3).tolist() == [1, 2, 3]
    assert classes.fresh(2).tolist() == [4, 5]
    assert classes.count == 6
    assert classes.find(np.arange(6)).tolist() == [0, 1, 2, 3, 4, 5]


def test_more_labels_than_were_made_room_for():
    classes = Classes()
    first, many = classes.fresh(3), classes.fresh(5000)
    classes.unite(first, many[-3:], WHY)
    assert many.tolist() == list(range(4, 5004))
    assert classes.find(many[-3:]).tolist() == [1, 2, 3]
    assert classes.find(many[:-3]).tolist() == many[:-3].tolist()


def test_equal_positions_fall_into_one_class_named_after_the_least_label():
    classes = made(6)
    assert classes.unite(np.array([4, 5]), np.array([2, 6]), WHY)
    assert classes.find(np.arange(1, 7)).tolist() == [1, 2, 3, 2, 5, 5]
    assert not classes.unite(np.array([2]), np.array([4]), WHY)


def test_shapes_are_broadcast():
    # two heads of three positions: position by position, then all heads of the first position
    classes = made(6)
    heads = np.arange(1, 7).reshape(2, 3)
    classes.unite(heads, heads[:1], WHY)
    assert partition(classes, 6) == {frozenset({1, 4}), frozenset({2, 5}), frozenset({3, 6})}


def test_a_chain_of_ties_in_one_call():
    classes = made(5)
    assert classes.unite(np.array([1, 2, 3, 4]), np.array([2, 3, 4, 5]), WHY)
    assert classes.find(np.arange(1, 6)).tolist() == [1] * 5


def test_what_meets_the_fixed_label_is_locked_and_not_drawn_into_its_class():
    classes = made(3)
    assert classes.unite(np.array([1, 2, FIXED]), np.array([FIXED, 3, FIXED]), WHY)  # 2 meets 3
    assert classes.find(np.arange(4)).tolist() == [0, 1, 2, 2]
    assert classes.obstacles() == {1: WHY}


def test_a_lock_holds_for_whoever_joins_the_class_later():
    classes = made(4)
    classes.lock(np.array([[4, FIXED]]), WHY)
    classes.unite(np.array([4]), np.array([2]), Obstacle("later"))
    assert classes.obstacles() == {2: WHY}


def test_the_first_reason_is_kept():
    classes = made(4)
    first, second = Obstacle("first", "net.py:3", "remedy"), Obstacle("second")
    classes.lock(np.array([3]), first)
    classes.lock(np.array([1, 3]), second)
    classes.unite(np.array([1]), np.array([2]), WHY)
    assert classes.obstacles() == {3: first, 1: second}


def test_no_labels_no_lock():
    classes = made(2)
    classes.lock(np.array([], dtype=np.int64), WHY)
    classes.lock(np.array([FIXED, FIXED]), WHY)
    assert classes.obstacles() == {}
    assert not classes.unite(np.array([], dtype=np.int64), np.array([], dtype=np.int64), WHY)


def test_flattening_changes_no_class():
    classes = made(8)
    for k in (7, 6, 5, 4):
        classes.unite(np.array([k]), np.array([k + 1]), WHY)
    before = partition(classes, 8)
    classes.flatten()
    assert partition(classes, 8) == before == {*map(frozenset, ([1], [2], [3], [4, 5, 6, 7, 8]))}


MOST = 12
labels = st.integers(0, MOST)
ties = st.lists(st.tuples(labels, labels), max_size=6)
steps = st.lists(st.one_of(ties, st.sets(labels, max_size=3)), max_size=6)


@given(steps)
def test_classes_and_locks_are_those_of_merging_sets_one_by_one(steps):
    classes, sets, locked = made(MOST), [{k} for k in range(1, MOST + 1)], set()
    for step in steps:
        if isinstance(step, set):
            classes.lock(np.array(sorted(step), dtype=np.int64), WHY)
            locked |= step - {FIXED}
            continue
        changed = False
        for a, b in step:
            if FIXED in (a, b):
                locked |= {a, b} - {FIXED}
                continue
            one, other = (next(s for s in sets if label in s) for label in (a, b))
            if one is not other:
                changed = True
                sets.remove(other)
                one |= other
        pairs = np.array(step, dtype=np.int64).reshape(-1, 2)
        assert classes.unite(pairs[:, 0], pairs[:, 1], WHY) is changed
    assert partition(classes, MOST) == {frozenset(s) for s in sets}
    assert set(classes.obstacles()) == {min(s) for s in sets if s & locked}
