"""Intervals worked out by hand, and the promise that they keep."""

from __future__ import annotations

import random
import statistics as reference

import pytest

from peelcli.latency import statistics
from peelcli.timings import SAME, Ratio


def test_the_interval_of_nine_ratios_worked_by_hand():
    # P(Bin(9, 1/2) <= 1) = 10/512, so the second and the eighth value are the ends of 96 %
    pairs = [(2.0, 2.0 * value) for value in (5, 1, 9, 3, 7, 2, 8, 4, 6)]
    found = statistics.ratio(pairs, 0.95)
    assert (found.value, found.low, found.high, found.rounds) == (5, 2, 8, 9)


def test_a_wider_interval_for_more_confidence():
    pairs = [(1.0, float(value)) for value in range(1, 10)]
    found = statistics.ratio(pairs, 0.99)  # 2 P(Bin <= 1) = 3.9 % is too much, 2 P(Bin <= 0) = 0.4 % is not
    assert (found.low, found.high) == (1, 9)


def test_the_interval_holds_the_median_as_often_as_it_says():
    source = random.Random(0)
    inside = 0
    for _ in range(400):
        found = statistics.ratio([(1.0, source.lognormvariate(0, 0.3)) for _ in range(25)], 0.9)
        inside += found.low <= 1.0 <= found.high
    assert 0.88 <= inside / 400 <= 0.97


def test_quartiles_are_those_of_the_calls():
    calls = [5.0, 1.0, 3.0, 2.0, 4.0]
    found = statistics.latency(calls)
    assert (found.least, found.low, found.median, found.high, found.calls) == (1, 2, 3, 4, 5)
    assert found.median == reference.median(calls)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.4, 0.6, "faster"), (0.9, 1 - SAME / 2, "no difference"), (0.9, 1.1, "no difference"), (1.1, 1.2, "slower")],
)
def test_what_may_be_said(low, high, verdict):
    assert Ratio((low + high) / 2, low, high, 0.95, 20).verdict == verdict
