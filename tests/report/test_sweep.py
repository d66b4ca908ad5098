"""A sweep as text and as a picture, from records alone."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peelcli.errors import UsageError
from peelcli.points import Point, Sweep
from peelcli.records import Costs, ModelId
from peelcli.report import curve, sweep
from peelcli.results import Candidate, Distance, Fidelity
from peelcli.timings import Bench, Conditions, Latency, Ratio, Timed

BEFORE = Costs(1000, 200, 1000)
TIME = Latency(0.004, 0.0039, 0.0045, 0.0038, 50)
HALF = Ratio(0.5, 0.45, 0.55, 0.95, 20)
MODEL = ModelId("net", "", "")


def told(found: Sweep) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=160, highlight=False).print(sweep.text(found, "out"))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def fidelity(agreement: float) -> Fidelity:
    return Fidelity(10, 10, Distance(0.9, agreement=0.1), Distance(0.25, agreement=agreement))


def test_points_with_and_without_what_can_be_known():
    times = Bench(Conditions(), (), (Timed("net.onnx", TIME), Timed("out/a.onnx", TIME, HALF)))
    points = (
        Point("75%", Costs(700, 150, 700), fidelity=fidelity(0.95)),
        Point("50%", Costs(500, 100, 500), onnx="a.onnx", fidelity=fidelity(0.9)),
        Point("1%", failed="the least is 3 %"),
    )
    candidates = (Candidate("greedy", Distance(0.5), False), Candidate("peel", Distance(0.25), True))
    lines = told(Sweep("1", MODEL, (), "flops", BEFORE, points, None, 1, (times,), candidates, found=2))
    assert any(line.startswith("75% 700 70.0 % 150 75.0 % 95.0 % 0.25") for line in lines)
    assert any(line.startswith("50% 500 50.0 % 100 50.0 % 90.0 % 0.25") and line.endswith("knee") for line in lines)
    assert "1% not reached" in lines
    assert any("1%: the least is 3 %" in line for line in lines)
    assert any("out/a.onnx: 2.00 times as fast as net.onnx" in line for line in lines)
    assert any("the knee is at 50%" in line for line in lines)
    assert any("allocation: peel, chosen on samples" in line for line in lines)
    assert any("2 of 3 points were there from a run before" in line for line in lines)


def test_a_curve_without_a_knee_and_no_curve_at_all():
    judged = Point("50%", Costs(500, 0, 500), fidelity=fidelity(0.9))
    lines = told(Sweep("1", MODEL, (), "flops", Costs(1000, 0, 1000), (judged,)))
    assert any("no knee stands out" in line for line in lines)
    assert any(line.startswith("50% 500 50.0 % 0 90.0 %") for line in lines)  # no share of no parameters
    bare = told(Sweep("1", MODEL, (), "flops", BEFORE, (Point("50%", Costs(500, 100, 500)),)))
    assert any(sweep.NO_CURVE in line for line in bare)
    assert not any("written" in line and "knee" in line for line in bare)


def test_a_picture_of_the_times_and_none_of_nothing():
    times = Bench(Conditions(), (), (Timed("net.onnx", TIME), Timed("out/a.onnx", TIME, HALF)))
    point = Point("50%", Costs(500, 100, 500), onnx="a.onnx")
    plain, ringed = (
        curve.picture(Sweep("1", MODEL, (), "params", BEFORE, (point,), knee=knee, bench=(times,)), ".svg")
        for knee in (None, 0)
    )
    assert plain.startswith(b"<?xml")
    assert b"#1f6f8b" in plain
    assert b"#c1440e" not in plain  # the colour of the ring around the knee
    assert b"#c1440e" in ringed
    with pytest.raises(UsageError, match="no curve to draw"):
        curve.picture(Sweep("1", MODEL, (), "params", BEFORE, (point,)), ".svg")
