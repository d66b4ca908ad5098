"""A budget of latency and how it was met, as text and as JSON."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console, Group

from peelcli.report import bench, pace
from peelcli.timings import Conditions, Latency, Pace, Ratio, Timed, Try

BEFORE, AFTER = Latency(0.008, 0.0075, 0.009, 0.007, 50), Latency(0.004, 0.0039, 0.0045, 0.0038, 50)
SLOW, FAST = Ratio(0.6, 0.55, 0.65, 0.95, 20), Ratio(0.5, 0.45, 0.55, 0.95, 20)
MET = Pace("50%", Conditions(), 0.5, BEFORE, AFTER, (Try(0.52, SLOW), Try(0.48, FAST)), 1, 7)


def told(met: Pace) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=160, highlight=False).print(Group(*pace.text(met)))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_the_plans_that_were_timed_and_the_one_that_was_kept():
    lines = told(MET)
    assert any(line.startswith("plan 1 52.0 % 60.0 %") and "kept" not in line for line in lines)
    assert any(line.startswith("plan 2 48.0 % 50.0 %") and line.endswith("kept") for line in lines)
    assert any("8.00 ms before, 4.00 ms after (medians); 7 layers timed alone" in line for line in lines)


def test_one_plan_and_layers_that_were_known():
    lines = told(replace(MET, tries=MET.tries[1:], kept=0, layers=0))
    assert not any("kept" in line for line in lines)
    assert any(line.endswith("layers known on this machine") for line in lines)


def test_nothing_where_no_latency_was_asked_for():
    assert pace.text(None) == []


def test_as_json():
    document = pace.document(MET)
    assert (document["asked"], document["allowed"], document["kept"], document["layers"]) == ("50%", 0.5, 1, 7)
    assert [each["predicted"] for each in document["tries"]] == [0.52, 0.48]


def test_a_verdict_in_words():
    first = Timed("a.onnx", BEFORE)
    said = {
        None: [],
        Ratio(0.5, 0.45, 0.55, 0.95, 20): ["b.onnx: 2.00 times as fast as a.onnx"],
        Ratio(2.0, 1.9, 2.1, 0.95, 20): ["b.onnx: no speed-up: it takes 2.00 times as long as a.onnx"],
    }
    for ratio, sentences in said.items():
        assert bench.sentences(Timed("b.onnx", AFTER, ratio), first) == sentences
    (same,) = bench.sentences(Timed("b.onnx", AFTER, Ratio(1.0, 0.98, 1.02, 0.95, 20)), first)
    assert same.startswith("b.onnx: no speed-up over a.onnx: 100.0 % of its time, ")
