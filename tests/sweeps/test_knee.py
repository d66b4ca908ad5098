"""Knees worked out by hand."""

from __future__ import annotations

import math

import pytest

from peelcli.points import Point
from peelcli.records import Costs
from peelcli.results import Distance, Fidelity
from peelcli.sweeps.knee import knee

BEFORE = Costs(100, 1000, 100)


def point(macs: int, **figures: float) -> Point:
    distance = Distance(figures.pop("relative", 0.5), None, **figures)
    return Point(f"{macs}%", Costs(macs, 10 * macs, macs), fidelity=Fidelity(8, 2, distance, None, "", 0.9))


def test_the_point_farthest_above_the_straight_line():
    # from (25, 0) over (50, 0.9) to (100, 1): at 50 the line is at 1/3
    points = [point(75, agreement=0.95), point(50, agreement=0.9), point(25, agreement=0.0)]
    assert knee(points, BEFORE, "macs") == 1
    assert knee(points[::-1], BEFORE, "params") == 1


def test_the_metric_goes_before_agreement_and_less_distance_is_better():
    figures = [(75, 0.88, 0.1), (50, 0.2, 0.2), (25, 0.0, 0.9)]
    assert knee([point(m, agreement=1.0, metric=v) for m, v, _ in figures], BEFORE, "macs") == 0
    assert knee([point(m, relative=v) for m, _, v in figures], BEFORE, "macs") == 1


@pytest.mark.parametrize(
    "points",
    [
        [],
        [point(75, agreement=0.9), point(50, agreement=0.1)],  # too few
        [point(m, agreement=m / 100) for m in (80, 60, 40, 20)],  # a straight line
        [point(m, agreement=1.0) for m in (80, 60, 40)],  # flat
        [point(80, agreement=0.2), point(60, agreement=0.15), point(20, agreement=0.1)],  # it only sags
        [Point("50%", Costs(50, 500, 50)), Point("1%", failed="out of reach"), point(20, agreement=0.5)],
        [point(m, relative=math.inf) for m in (80, 60, 40)],
    ],
)
def test_where_none_stands_out(points):
    assert knee(points, BEFORE, "macs") is None
