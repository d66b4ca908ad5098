"""Budgets of latency: layers as calls, a prediction that is right at full width, and plans until one is within."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from peelcli import pipeline
from peelcli.config import Budget, Options
from peelcli.deadlines import calls, meet, predict
from peelcli.deadlines.calls import calls_of, knots_of
from peelcli.errors import BudgetOutOfReach, CheckFailed, UsageError
from peelcli.export import onnx
from peelcli.graph import cost
from peelcli.latency.cache import Cache
from peelcli.latency.table import Measurements
from peelcli.planning import Clock, find_groups, prepare
from peelcli.records import Share, Size
from peelcli.report import pace as report
from peelcli.timings import Conditions, Latency, Ratio, Try
from tests.support import graphs

INPUT = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(meet, "SECONDS", 0.1)
    monkeypatch.setattr(calls, "MOST_KNOTS", 2)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU()]
    layers += [nn.Conv2d(32, 64, 1, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers).eval()


def test_knots():
    groups = [graphs.group("few", 12, step=4, floor=4), graphs.group("many", 256, step=16, floor=32)]
    assert knots_of(Size(3), groups) == (3,)
    assert knots_of(Size(0, (Share(0, 1, 1),)), groups) == (4, 8, 12)
    assert knots_of(Size(1, (Share(0, 49, 1),)), groups) == (197, 393, 589)  # behind a flatten of 7 x 7
    assert knots_of(Size(0, (Share(1, 1, 1),)), groups) == (32, 256)
    both = knots_of(Size(0, (Share(0, 1, 1), Share(1, 1, 1))), groups)
    assert (both[0], both[-1]) == (36, 268)


def test_layers_as_calls(net):
    graph = find_groups(pipeline.load(net, INPUT), Options())
    first, depthwise, pointwise, head = (seen.call for seen in calls_of(net, (INPUT,), graph))
    assert (first.weight, first.layer.inputs, first.layer.outputs, first.layer.sizes) == (
        "0.weight",
        3,
        32,
        (1, 16, 16),
    )
    assert first.axes() == (0,)
    assert (depthwise.layer.groups, depthwise.axes()) == (32, (0,))
    assert (pointwise.layer.stride, pointwise.axes()) == ((2, 2), (0, 1))
    assert (head.layer.kind, head.layer.inputs, head.layer.outputs, head.axes()) == ("linear", 64, 10, (1,))


def test_the_prediction_is_the_original_s_time_at_its_own_widths(net, tmp_path):
    subject = pipeline.load(net, INPUT)
    graph = find_groups(subject, Options())
    onnx.write(subject, {}, tmp_path / "net.onnx", "net")
    seen = calls_of(net, (INPUT,), graph)
    taken = Measurements(Conditions(), Cache(Conditions()))
    assert taken.take([each.call for each in seen]) > 0
    latency = predict.latency_of(tmp_path / "net.onnx", (), seen, taken, 0.002)
    assert cost.evaluate(latency, graph.full) == pytest.approx(2e6, rel=1e-3)
    assert 0 < cost.evaluate(latency, graph.least) < 2e6


def scripted(monkeypatch, *highs):
    """Measurements that come out as told, and a prediction that goes with the multiply-adds."""
    left = list(highs)
    second = Latency(1.0, 1.0, 1.0, 1.0, 20)

    def with_latency(_subject, prepared, *_):
        costs = replace(prepared.graph.cost, latency=prepared.graph.cost.macs)
        return replace(prepared, graph=replace(prepared.graph, cost=costs)), 7

    def measured(subject, settled, prepared, *_):
        high = left.pop(0)
        widths = [cut.width for cut in settled.plan.cuts]
        share = cost.evaluate(prepared.graph.cost.latency, widths)
        predicted = share / cost.evaluate(prepared.graph.cost.latency, prepared.graph.full)
        ratio = Ratio(high - 0.02, high - 0.04, high, 0.95, 20)
        return meet._Tried(settled, Try(predicted, ratio), second, second)

    monkeypatch.setattr(meet, "_export", lambda *_: True)
    monkeypatch.setattr(meet, "take_turns", lambda *_, **__: ((second,), (None,)))
    monkeypatch.setattr(meet, "_with_latency", with_latency)
    monkeypatch.setattr(meet, "_measured", measured)


def settled_in_time(net, latency, **budget):
    subject, options, clock = pipeline.load(net, INPUT), Options(), Clock(None)
    prepared = prepare(subject, options, clock)
    return meet.settle_in_time(subject, prepared, Budget(latency=latency, **budget), options, clock)


def test_a_plan_within_the_budget_is_taken_at_once(net, monkeypatch):
    scripted(monkeypatch, 0.58)
    settled = settled_in_time(net, "60%")
    assert settled.failed == ()
    assert (len(settled.pace.tries), settled.pace.kept, settled.pace.allowed) == (1, 0, 0.6)
    assert (settled.checks[-1].name, settled.checks[-1].value, settled.checks[-1].tolerance) == ("latency", 0.58, 0.6)
    assert dict(settled.plan.settings)["latency"] == "60%"


def test_a_plan_that_is_too_slow_is_made_again_narrower(net, monkeypatch):
    scripted(monkeypatch, 0.75, 0.58)
    tries = settled_in_time(net, "60%").pace.tries
    assert tries[1].predicted < tries[0].predicted


def test_a_plan_that_is_faster_than_needed_is_made_again_wider_and_the_widest_that_holds_is_kept(net, monkeypatch):
    scripted(monkeypatch, 0.3, 0.5, 0.7)
    settled = settled_in_time(net, "60%")
    pace = settled.pace
    assert [each.measured.high for each in pace.tries] == [0.3, 0.5, 0.7]
    assert pace.tries[1].predicted > pace.tries[0].predicted
    assert (pace.kept, settled.failed) == (1, ())
    document = report.document(pace)
    assert [each["predicted"] for each in document["tries"]] == [each.predicted for each in pace.tries]


def test_where_no_plan_is_within_the_check_fails(net, monkeypatch):
    scripted(monkeypatch, 0.7, 0.66, 0.63)
    settled = settled_in_time(net, "60%")
    (failed,) = settled.failed
    assert (failed.name, failed.value, failed.note) == ("latency", 0.63, "after 3 plans")
    assert settled.pace.kept == 2


def test_a_plan_that_can_not_be_made_narrower_is_told_of_as_it_is(net, monkeypatch):
    scripted(monkeypatch, 30.0)
    assert settled_in_time(net, "60%").failed[0].note == "after 1 plans"


def test_another_budget_that_is_tighter_ends_the_search(net, monkeypatch):
    scripted(monkeypatch, 0.2)
    assert len(settled_in_time(net, "90%", flops="20%").pace.tries) == 1


def test_what_can_not_be_reached_is_refused(net, monkeypatch):
    scripted(monkeypatch)
    with pytest.raises(BudgetOutOfReach, match="the least latency that this model can reach"):
        settled_in_time(net, "1%")


def test_a_failed_budget_writes_nothing(net, monkeypatch, tmp_path):
    scripted(monkeypatch, 0.7, 0.66, 0.63)
    with pytest.raises(CheckFailed, match=r"latency is 0\.63, allowed is 0\.6") as caught:
        pipeline.prune(net, INPUT, latency="60%", out=tmp_path / "slim.onnx")
    assert "--latency" in caught.value.hint
    assert not (tmp_path / "slim.onnx").exists()


def test_training_after_a_budget_of_latency(net, monkeypatch):
    scripted(monkeypatch, 0.58)
    data = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    run = pipeline.prune(net, INPUT, latency="60%", data=data, finetune="2steps", batch=8).run
    assert (run.pace.kept, run.tunings[0].steps) == (0, 2)
    assert [check.ok for check in run.checks if check.name == "latency"] == [True]


def test_a_real_run_from_the_command(run_peel, tmp_path, net):
    torch.save(net, tmp_path / "net.pt")
    arguments = ("plan", "net.pt", "--input", "1,3,16,16", "--latency", "10s", "--output-format", "json")
    done = run_peel(*arguments, env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    (tried,) = json.loads(done.stdout)["latency"]["tries"]
    assert tried["predicted"] == 1.0
    assert tried["measured"]["rounds"] >= 9
    assert list((tmp_path / "cache" / "peel" / "latency").glob("*.json"))


def test_threads_without_a_budget_of_latency_are_refused(net):
    with pytest.raises(UsageError, match="--threads goes with --latency"):
        pipeline.prune(net, INPUT, flops="50%", threads=2)
