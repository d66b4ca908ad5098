"""What a report says of training."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from peelcli.records import Costs, ModelId, Plan, Run
from peelcli.report.document import document
from peelcli.report.text import summary
from peelcli.results import Distance, Point, Tuning

COSTS = Costs(10, 10, 10)
BEFORE, AFTER = Distance(0.5, 0.2, 0.9, 0.8), Distance(0.1, 0.02, 0.99, 0.95)
TUNING = Tuning(
    trained=80,
    held=20,
    steps=40,
    batch=16,
    optimizer="sgd",
    peak=0.03,
    objective="the original's answers (KL at temperature 4)",
    before=BEFORE,
    after=AFTER,
    kept=40,
    metric="accuracy",
    original=0.97,
    curve=(Point(0, 0.0, None, BEFORE), *(Point(s, s / 5, 1.0 / s, AFTER) for s in range(1, 41))),
    rate=123.4,
    hardware="2 x cpu (gloo)",
    notes=("resumed after step 10",),
)
RUN = Run("0.1.0", Plan(ModelId("net", "a", "b"), (), (), (), COSTS, COSTS, ()), COSTS, (), tunings=(TUNING,))


def text_of(run):
    console = Console(file=io.StringIO(), width=140, no_color=True)
    console.print(summary(run))
    return console.file.getvalue()


def test_before_after_and_the_curve_are_shown():
    text = text_of(RUN)
    assert "accuracy            97.0 %   80.0 %   95.0 %" in text
    assert "40 steps of 16 samples, sgd at 0.03, on 2 x cpu (gloo), 123 samples/s; the weights of step 40" in text
    assert "resumed after step 10" in text
    lines = [line for line in text.splitlines() if line.endswith("%   kept")]
    assert len(lines) == 1
    assert lines[0].split()[:3] == ["40", "8.00", "0.0250"]
    assert text.count("99.0 %") < 20  # a long curve is thinned out


def test_rounds_are_numbered():
    text = text_of(replace(RUN, tunings=(TUNING, TUNING)))
    assert "training, round 1" in text
    assert "training, round 2" in text


def test_the_document_holds_every_point():
    (found,) = document(RUN)["training"]
    assert found["after"] == {"relative": 0.1, "kl": 0.02, "agreement": 0.99, "metric": 0.95}
    assert found["before"]["metric"] == 0.8
    assert (found["kept_step"], found["samples_per_second"], found["rate"]) == (40, 123.4, 0.03)
    assert len(found["curve"]) == 41
    assert found["curve"][0] == {"step": 0, "epoch": 0.0, "loss": None, **found["before"]}


def test_a_run_without_training_has_none():
    assert document(replace(RUN, tunings=()))["training"] == []
    assert "training" not in text_of(replace(RUN, tunings=()))
