"""A run of every kind of entry, and reports of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peelcli.footprint import Footprint, LayerCost
from peelcli.gate import check_settings, judge
from peelcli.records import Run
from peelcli.report.overview import Report, sides
from tests.report.test_report import JUDGED

NASTY = '<script>alert("x")</script> & `tick` | pipe\n## 100% größe\x07'


@pytest.fixture
def run() -> Run:
    layers = [(LayerCost("stem", "Conv2d", 600, 60, 64), LayerCost("stem", "Conv2d", 150, 15, 16)),
              (LayerCost("bn", "BatchNorm2d", 0, 4), LayerCost("bn", "BatchNorm2d", 0, 1)),
              (LayerCost("head", "Linear", 400, 40, 10), LayerCost("head", "Linear", 100, 10, 10))]  # fmt: skip
    before, after = (
        Footprint("net", kind, costs.macs, costs.params, costs.thop_macs, peak_bytes=peak, layers=tuple(side))
        for kind, costs, peak, side in zip(
            ("original", "slim"), (JUDGED.plan.before, JUDGED.after), (900, 500), zip(*layers, strict=True), strict=True
        )
    )
    return replace(JUDGED, sides=(before, after), backbone=(16.0, 48.5, 10.0), command="peel prune model.pt --flops 1G")


@pytest.fixture
def report(run) -> Report:
    """One bound holds, one does not."""
    bounds = check_settings({"max_flops": "1G", "max_params": "1M"})
    models = sides(run)
    return Report(models, run, None, judge(bounds, models, None), path="runs/run.json")


@pytest.fixture
def nasty(run) -> Report:
    """Names as nobody would give them."""
    plan = replace(run.plan, model=replace(run.plan.model, name=NASTY))
    cut = plan.cuts[1]
    plan = replace(plan, cuts=(replace(cut, group=replace(cut.group, name=NASTY, layers=(NASTY,))),), notes=(NASTY,))
    before, after = run.sides
    layers = (LayerCost(NASTY, NASTY, 10, 1, 4),)
    odd = replace(
        run, plan=plan, sides=(replace(before, layers=layers), replace(after, layers=layers)), notes=(NASTY,),
        command=f"peel prune '{NASTY}'", backbone=(16.0,),
    )  # fmt: skip
    models = sides(odd)
    return Report(models, odd, None, judge(check_settings({"max_params": "1"}), models, None), path=NASTY)
