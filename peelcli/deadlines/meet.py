"""Plan for a budget of latency, measure the result, and plan again where prediction and measurement are apart."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from peelcli.config import Budget, Options
from peelcli.deadlines.calls import calls_of
from peelcli.deadlines.predict import latency_of
from peelcli.errors import BudgetOutOfReach
from peelcli.evidence import Evidence
from peelcli.export import onnx
from peelcli.export.inputs import Example, shapes_to_say
from peelcli.export.modules import evaluated
from peelcli.graph import cost
from peelcli.inputtext import InputSpec
from peelcli.latency.cache import Cache
from peelcli.latency.session import Session
from peelcli.latency.table import Measurements
from peelcli.latency.turns import Load, take_turns
from peelcli.planning import Clock, Prepared, Settled, settle
from peelcli.records import Check, Limit, Subject
from peelcli.timings import Conditions, Latency, Pace, Try

MOST_TRIES = 3  # plans that are measured
SECONDS = 6.0  # of each measurement
_USED = 0.93  # of the allowed time: a plan that takes less is made wider, where a try is left
_ASIDE = 0.97  # how near the next plan aims at what is allowed
_FIRST = 0.98  # the same of the first one: a little room, so that its interval may lie below


@dataclass(frozen=True)
class _Tried:
    """A plan, what it was measured at, and both latencies."""

    settled: Settled
    record: Try
    before: Latency
    after: Latency


def settle_in_time(
    subject: Subject,
    prepared: Prepared,
    budget: Budget,
    options: Options,
    clock: Clock,
    evidence: Evidence | None = None,
) -> Settled:
    """Settle on the widest plan whose measured latency is within the budget.

    Args:
        subject: the original.
        prepared: its groups and scores.
        budget: with a bound of latency, and perhaps others.
        options: how to plan.
        clock: told of the stages.
        evidence: samples.

    Returns:
        The plan with its proofs, among them `latency`: the upper end of the measured ratio's interval against what is
        allowed. Where no plan is within, that check has failed.

    Raises:
        BudgetOutOfReach: the least legal widths are predicted to take longer.
        PeelError: the original can't be exported, or does not run in onnxruntime.
    """
    assert budget.latency is not None, "there is no bound of latency"
    where = Conditions("cpu", budget.threads or 1)
    with tempfile.TemporaryDirectory(prefix="peel-") as folder:
        paths = Path(folder, "original.onnx"), Path(folder, "slim.onnx")
        with clock.stage("export"):
            dynamic = _export(subject, subject.module, paths[0])
        example = Example.of(subject.inputs)
        fed = _Fed(where, example.resized(1) if dynamic else example, subject.module)
        original = partial(Session, paths[0], where, fed.given, name="the original")
        with clock.stage("bench") as tell:
            alone = take_turns([original], SECONDS / 3, progress=tell)[0][0].median
        allowed = budget.latency.share_of(alone)
        prepared, layers = _with_latency(subject, prepared, paths[0], fed, alone, clock)
        tried: list[_Tried] = []
        aim = _FIRST * allowed
        while True:
            try:
                settled = settle(subject, prepared, budget, options, clock, evidence, more=_limits(prepared, aim))
            except BudgetOutOfReach:
                if not tried:
                    raise
                break
            if settled.failed:
                return settled
            if any(_widths(settled) == _widths(each.settled) for each in tried):
                break  # other budgets, or whole steps, leave nothing in between
            tried.append(_measured(subject, settled, prepared, original, paths[1], fed, clock))
            last = tried[-1].record
            use = last.measured.high / allowed
            if len(tried) == MOST_TRIES or _USED <= use <= 1:
                break
            aim = last.predicted * _ASIDE / use
            options = _as_chosen(options, settled)
    return _result(tried, str(budget.latency), allowed, where, layers)


@dataclass(frozen=True)
class _Fed:
    """How files are run: the conditions, and the example that goes in."""

    where: Conditions
    example: Example
    module: nn.Module

    @property
    def given(self) -> tuple[InputSpec, ...]:
        """Shapes that the files leave open."""
        return shapes_to_say(self.module, self.example)


def _with_latency(
    subject: Subject, prepared: Prepared, original: Path, fed: _Fed, whole: float, clock: Clock
) -> tuple[Prepared, int]:
    """The graph with one more cost, and how many layers had to be timed for it."""
    seen = calls_of(evaluated(subject.module), fed.example.arguments, prepared.graph)
    taken = Measurements(fed.where, Cache(fed.where))
    with clock.stage("latency") as tell:
        layers = taken.take([each.call for each in seen], tell)
        latency = latency_of(original, fed.given, seen, taken, whole)
    graph = prepared.graph
    return replace(prepared, graph=replace(graph, cost=replace(graph.cost, latency=latency))), layers


def _limits(prepared: Prepared, share: float) -> Sequence[Limit]:
    """A share of what the original is predicted to take."""
    graph = prepared.graph
    return (Limit("latency", round(share * cost.evaluate(graph.cost.latency, graph.full))),)


def _measured(
    subject: Subject,
    settled: Settled,
    prepared: Prepared,
    original: Load,
    path: Path,
    fed: _Fed,
    clock: Clock,
) -> _Tried:
    with clock.stage("export"):
        _export(subject, settled.slim, path)
    with clock.stage("bench") as tell:
        slim = partial(Session, path, fed.where, fed.given, name="the slim model")
        (before, after), (_, ratio) = take_turns([original, slim], SECONDS, progress=tell)
    assert ratio is not None, "only the first has none"
    graph = prepared.graph
    predicted = cost.evaluate(graph.cost.latency, _widths(settled)) / cost.evaluate(graph.cost.latency, graph.full)
    return _Tried(settled, Try(predicted, ratio), before, after)


def _widths(settled: Settled) -> list[int]:
    return [cut.width for cut in settled.plan.cuts]


def _export(subject: Subject, module: nn.Module, path: Path) -> bool:
    """Write a module for timing; returns whether its batch is free."""
    checks = onnx.write(replace(subject, module=module), {}, path, path.name)
    return any(check.name == "dynamic_batch" and check.ok for check in checks)


def _as_chosen(options: Options, settled: Settled) -> Options:
    """The allocation that samples chose stays; only how far it goes changes."""
    chosen = dict(settled.plan.settings)
    return options.model_copy(update={"allocate": chosen["allocate"], "tau": float(chosen["tau"])})


def _result(tried: Sequence[_Tried], asked: str, allowed: float, where: Conditions, layers: int) -> Settled:
    """The slowest plan that is within the budget, else the fastest one with a failed check."""
    highs = [each.record.measured.high for each in tried]
    met = [position for position, high in enumerate(highs) if high <= allowed]
    kept = max(met, key=lambda k: highs[k]) if met else min(range(len(tried)), key=lambda k: highs[k])
    best = tried[kept]
    check = Check("latency", bool(met), highs[kept], allowed, "" if met else f"after {len(tried)} plans")
    records = tuple(each.record for each in tried)
    pace = Pace(asked, where, allowed, best.before, best.after, records, kept, layers)
    return replace(
        best.settled,
        checks=(*best.settled.checks, check),
        candidates=tried[0].settled.candidates or best.settled.candidates,
        pace=pace,
    )
