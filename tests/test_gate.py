"""Bounds: what can be asked, what holds, and that nothing passes because nobody looked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peelcli.errors import UsageError
from peelcli.footprint import Footprint
from peelcli.gate import check_settings, judge

BEFORE = Footprint("before", "onnx", 1000, 200, bytes=5000, peak_bytes=64, latency_ms=8.0, metric="accuracy",
                   metric_value=0.9)  # fmt: skip
AFTER = Footprint("after", "onnx", 500, 100, bytes=2500, peak_bytes=40, latency_ms=3.0, agreement=0.97,
                  metric="accuracy", metric_value=0.896)  # fmt: skip


def verdicts(model=AFTER, first=BEFORE, baseline=None, **settings):
    bounds = check_settings(settings)
    models = [model] if first is None else [first, model]
    return {verdict.figure: verdict for verdict in judge(bounds, models, baseline)}


@pytest.mark.parametrize(
    ("settings", "figure", "limit", "ok"),
    [
        ({"max_flops": "500"}, "macs", 500, True),
        ({"max_flops": 499}, "macs", 499, False),
        ({"max_flops": "50%"}, "macs", 500, True),
        ({"max_flops": "49.9 %"}, "macs", 499, False),
        ({"max_params": "0.1k"}, "params", 100, True),
        ({"max_size": "2.5kB"}, "bytes", 2500, True),
        ({"max_size": "2.4 KiB"}, "bytes", 2457.6, False),
        ({"max_latency": "3ms"}, "latency_ms", 3, True),
        ({"max_latency": "2900us"}, "latency_ms", 2.9, False),
        ({"max_latency": "40%"}, "latency_ms", 3.2, True),
        ({"min_agreement": "97%"}, "agreement", 0.97, True),
        ({"min_agreement": 0.98}, "agreement", 0.98, False),
        ({"max_drop": ["accuracy=0.5"]}, "metric_value", 0.895, True),
        ({"max_drop": ["accuracy=0.3"]}, "metric_value", 0.897, False),
        ({"max_drop": {"metric": 0.5}}, "metric_value", 0.895, True),
    ],
)
def test_one_bound(settings, figure, limit, ok):
    (verdict,) = verdicts(**settings).values()
    assert (verdict.figure, verdict.limit, verdict.ok) == (figure, pytest.approx(limit), ok)
    assert verdict.told


def test_every_bound_is_judged():
    found = verdicts(max_flops="400", max_params="50", max_size="10MB")
    assert [verdict.ok for verdict in found.values()] == [False, False, True]
    assert found["macs"].told == "multiply-adds 500, at most 400"
    assert found["params"].bound == "--max-params 50"


def test_figures_that_look_equal_are_told_in_full():
    near = replace(AFTER, macs=1_000_000_001)
    told = verdicts(near, max_flops="1G")["macs"].told
    assert told == "multiply-adds 1,000,000,001, at most 1,000,000,000"


def test_a_metric_that_is_no_share_falls_in_its_own_unit():
    first, last = (
        replace(model, metric="miou", metric_value=value) for model, value in ((BEFORE, 71.0), (AFTER, 69.9))
    )
    assert verdicts(last, first, max_drop="miou=1")["metric_value"].ok is False
    assert verdicts(last, first, max_drop="miou=1.2")["metric_value"].ok is True


def test_no_worse_than_a_baseline():
    base = replace(AFTER, macs=495, params=101, bytes=None)
    found = verdicts(baseline=base, against="base.json", max_regress="1%")
    assert {name: verdict.ok for name, verdict in found.items()} == {
        "macs": False, "params": True, "peak_bytes": True, "agreement": True, "metric_value": True
    }  # fmt: skip
    assert "500 against 495 (+1.01%), at most +1 %" in found["macs"].told
    strict = verdicts(replace(AFTER, agreement=0.96), baseline=AFTER, against="base.json")
    assert [name for name, verdict in strict.items() if not verdict.ok] == ["agreement"]


def test_bounds_that_are_read_already_are_taken_as_they_are():
    first = check_settings({"max_params": "50%"})
    assert check_settings({"max_params": first.max_params}) == first


def test_figures_that_only_one_side_has_are_no_regression():
    base = replace(AFTER, metric="miou", agreement=None, params=0)
    found = verdicts(baseline=base, against="base.json")
    assert {"agreement", "metric_value"} & found.keys() == set()
    assert "against 0 (of 0)" in found["params"].told


def test_memory_of_a_file_is_not_held_against_that_of_a_module():
    base = replace(AFTER, kind="module", peak_bytes=1)
    assert "peak_bytes" not in verdicts(baseline=base, against="base.json")


def test_a_figure_that_nobody_knows_is_no_pass():
    bare = Footprint("bare", "onnx", 500, 100)
    with pytest.raises(UsageError) as caught:
        verdicts(bare, None, max_size="1MB", min_agreement="0.9", max_drop=["accuracy=1"], max_flops="50%")
    for word in ("file size of bare is not known", "not compared with its original", "holds no metric", "no original"):
        assert word in caught.value.message
    with pytest.raises(UsageError, match="after holds accuracy"):
        verdicts(max_drop=["miou=1"])


def test_a_lower_bound_of_multiply_adds_is_no_pass_but_may_be_a_violation():
    part = replace(AFTER, unknown=("Conv",))
    with pytest.raises(UsageError, match="the multiply-adds of Conv in after are not known"):
        verdicts(part, max_flops="1k")
    with pytest.raises(UsageError, match="of Conv in after are not known"):
        verdicts(baseline=part, against="base.json")
    assert verdicts(part, max_flops="499")["macs"].ok is False


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_flops": "fast"}, "--max-flops fast: 'fast' is not a number"),
        ({"max_flops": "0"}, "above zero"),
        ({"max_flops": "-1G"}, "not a number"),
        ({"max_flops": True}, "is no bound"),
        ({"max_size": "10 parsecs"}, "not a size such as 10MB"),
        ({"max_size": "1e400MB"}, "not a size"),
        ({"max_latency": "5"}, "not a time such as 5ms"),
        ({"min_agreement": "1.2"}, "less than or equal to 1"),
        ({"min_agreement": "most"}, "not a share"),
        ({"max_drop": ["accuracy"]}, "not a metric with a number"),
        ({"max_drop": ["accuracy=nan"]}, "not a metric with a number"),
        ({"max_drop": ["accuracy=-1"]}, "greater than or equal to 0"),
        ({"max_drop": ["accuracy=1", "accuracy=2"]}, "bounded twice"),
        ({"max_regress": "1%"}, "needs something to compare with"),
        ({"against": "a.json", "max_regress": "1"}, "not a percentage such as 1%"),
        ({"against": "a.json", "max_regress": "inf%"}, "--max-regress"),
        ({"max_flop": "1G"}, "there is no bound 'max_flop'"),
    ],
)
def test_bounds_that_make_no_sense(settings, says):
    with pytest.raises(UsageError) as caught:
        check_settings(settings)
    assert says in caught.value.message


def test_no_bounds_are_none():
    assert not check_settings({})
    assert check_settings({"max_drop": {"accuracy": 1}})


@pytest.mark.parametrize("value", [3, True, [1], 0.5])
def test_a_drop_of_another_type_is_refused(value):
    with pytest.raises(UsageError, match=r"accuracy=0\.5"):
        check_settings({"max_drop": value})
