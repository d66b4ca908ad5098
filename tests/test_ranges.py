"""Integers as text: ranges, and the entries of each channel in the shortest of four ways."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peelcli import ranges


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), ""),
        ((7,), "7"),
        ((0, 1, 2, 3, 5, 8, 9, 10, 11), "0-3,5,8-11"),
        ((3, 2, 1), "3,2,1"),
        ((1, 1, 2), "1,1-2"),
    ],
)
def test_ranges_worked_by_hand(numbers, text):
    assert ranges.to_ranges(numbers) == text
    assert ranges.from_ranges(text) == numbers


@pytest.mark.parametrize(
    "text", ["a", "1-", "-1", "1--2", "3-1", "1,,2", " 1", "1 ,2", "0x1", "²", "1-2-3", "0-999999999999", "1" * 13]
)
def test_what_is_no_list_of_ranges(text):
    with pytest.raises(ValueError, match=r"range|number"):
        ranges.from_ranges(text)


def test_no_more_numbers_than_asked_for():
    assert ranges.from_ranges("0-3", most=4) == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="more than 4 numbers"):
        ranges.from_ranges("0-2,7-8", most=4)


@given(st.lists(st.integers(0, 60)))
def test_ranges_come_back_and_are_as_short_as_they_can_be(numbers):
    text = ranges.to_ranges(numbers)
    assert list(ranges.from_ranges(text)) == numbers
    breaks = sum(b != a + 1 for a, b in itertools.pairwise(numbers))
    assert text.count(",") == breaks


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (((0,), (1,), (2,)), {}),
        (((3,), (4,), (5,)), {"offset": 3}),
        (((0, 1), (2, 3)), {"repeat": 2}),
        (((6, 7), (8, 9)), {"offset": 6, "repeat": 2}),
        (((0, 4), (1, 5), (2, 6)), {"columns": "0-2;4-6"}),
        (((2,), (0,)), {"columns": "2,0"}),
        (((0, 1), (), (5,)), {"rows": "0-1;;5"}),
        (((), ()), {"rows": ";"}),
    ],
)
def test_the_entries_of_channels_worked_by_hand(rows, text):
    assert ranges.index_map(rows) == text


def test_blocks_worked_by_hand():
    assert ranges.blocks(3, 5, 2) == ((5, 6), (7, 8), (9, 10))
    assert ranges.blocks(0, 5, 2) == ()
