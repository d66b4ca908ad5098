"""How labels move with their tensor: worked by hand, and against running the reshape on labels written out in full."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.classes import Classes, Obstacle
from peelcli.graph.labels.factors import Labels

WHY = Obstacle("for the test")


def along(size: int, dim: int, rank: int, start: int = 1) -> fac.Factor:
    """New labels along one dimension."""
    return np.arange(start, start + size).reshape([-1 if d == dim else 1 for d in range(rank)])


# --- reshapes


@pytest.mark.parametrize(
    ("factor", "old", "new", "wanted"),
    [
        # 2 x 6 channels x 4 positions flattened: each channel four times in a row
        (along(6, 1, 3), (2, 6, 4), (2, 24), np.repeat(np.arange(1, 7), 4)[None]),
        # six channels as two heads of three, positions untouched
        (along(6, 2, 3), (5, 7, 6), (5, 7, 2, 3), np.arange(1, 7).reshape(1, 1, 2, 3)),
        # batch and heads drawn together: the labels of the heads are repeated for every sample
        (along(2, 1, 4), (3, 2, 5, 4), (6, 5, 4), np.tile([1, 2], 3).reshape(6, 1, 1)),
        # dimensions of size 1 come and go
        (along(6, 0, 1), (6,), (1, 6, 1, 1), along(6, 1, 4)),
        (along(6, 1, 4), (1, 6, 1, 1), (6,), along(6, 0, 1)),
        # what does not change is not written out
        (along(6, 1, 4), (64, 6, 64, 64), (64, 6, 4096), along(6, 1, 3)),
    ],
)
def test_reshapes_worked_by_hand(factor, old, new, wanted):
    moved = fac.reshaped(factor, old, new)
    assert moved.shape == wanted.shape
    assert np.array_equal(moved, wanted)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes of equally many elements, with ones among them."""

    def split() -> tuple[int, ...]:
        sizes = [1] * draw(st.integers(1, 4))
        for prime in primes:
            sizes[draw(st.integers(0, len(sizes) - 1))] *= prime
        return tuple(sizes)

    primes = draw(st.lists(st.sampled_from([2, 2, 3, 5]), max_size=5))
    return split(), split()


@given(reshapes(), st.data())
def test_a_reshape_is_that_of_the_labels_written_out(shapes, data):
    old, new = shapes
    varies = data.draw(st.lists(st.booleans(), min_size=len(old), max_size=len(old)))
    shape = [size if v else 1 for size, v in zip(old, varies, strict=True)]
    ids = data.draw(st.lists(st.integers(0, 4), min_size=math.prod(shape), max_size=math.prod(shape)))
    factor = np.array(ids, dtype=np.int64).reshape(shape)
    moved = fac.reshaped(factor, old, new)
    assert moved.ndim == len(new)
    assert all(small in (1, size) for small, size in zip(moved.shape, new, strict=True))
    assert np.array_equal(np.broadcast_to(moved, new), np.broadcast_to(factor, old).reshape(new))
    back = fac.reshaped(moved, new, old)
    assert np.array_equal(np.broadcast_to(back, old), np.broadcast_to(factor, old))


# --- what a factor varies along


def test_compact_leaves_out_dimensions_in_which_nothing_changes():
    rows = np.broadcast_to(along(3, 0, 2), (3, 4))
    assert fac.compact(rows).shape == (3, 1)
    assert fac.compact(np.full((2, 3, 4), 7)).shape == (1, 1, 1)
    joint = np.arange(6).reshape(2, 3)
    assert fac.compact(joint) is joint


@given(st.lists(st.integers(0, 1), min_size=12, max_size=12))
def test_compact_changes_no_element(ids):
    factor = np.array(ids).reshape(2, 3, 2)
    small = fac.compact(factor)
    assert np.array_equal(np.broadcast_to(small, factor.shape), factor)
    assert all((small != fac.narrow(small, d, 0, 1)).any() for d in fac.varying(small))


def test_settled_leaves_out_dimensions_whose_labels_have_become_one_class():
    classes = Classes()
    heads = classes.fresh(6).reshape(2, 3)
    assert fac.settled(heads, classes) is heads
    classes.unite(heads, heads[:, :1], WHY)  # a head goes as a whole
    assert fac.settled(heads, classes).tolist() == [[1], [4]]
    classes.unite(heads[:1], heads[1:], WHY)
    assert fac.settled(heads, classes).shape == (1, 1)


def test_collapse_ties_what_differs_elsewhere():
    classes = Classes()
    heads = classes.fresh(6).reshape(2, 3)
    kept = fac.collapse(heads, [1], classes, WHY)
    assert kept.tolist() == [[1, 2, 3]]
    assert classes.find(heads).tolist() == [[1, 2, 3], [1, 2, 3]]
    assert fac.collapse(kept, [1], classes, WHY) is kept


def test_collapse_to_nothing_makes_one_class():
    classes = Classes()
    heads = classes.fresh(6).reshape(2, 3)
    assert fac.collapse(heads, [], classes, WHY).shape == (1, 1)
    assert set(classes.find(heads).ravel().tolist()) == {1}


def test_small_steps():
    joint = np.arange(6).reshape(2, 3)
    assert fac.varying(joint.reshape(2, 1, 3)) == (0, 2)
    assert fac.narrow(joint, 1, 1, 2).tolist() == [[1, 2], [4, 5]]
    assert fac.along_dim(joint, 1).tolist() == [[0, 1, 2]]
    assert fac.along_dim(joint, 0).tolist() == [[0], [3]]
    assert fac.line(along(3, 1, 3)).tolist() == [1, 2, 3]
    assert fac.aligned(along(3, 0, 1), 3).shape == (1, 1, 3)


def test_of_several_factors_the_one_that_varies_along_a_dimension():
    rows, columns = along(4, 0, 4), along(3, 1, 4, start=5)
    labels = Labels((rows, columns), weight=True)
    assert labels.along(0) is rows
    assert labels.along(1) is columns
    assert labels.along(2) is None
