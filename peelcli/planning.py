"""From a subject and a budget to a plan that is proven on a copy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from torch import nn

from peelcli import calibration, plans, proving, rounds
from peelcli.allocation.allocate import allocate, backbone
from peelcli.allocation.select import keep_best
from peelcli.calibration import Choice
from peelcli.config import Budget, Options
from peelcli.errors import CheckFailed, PeelError, UsageError
from peelcli.evidence import Evidence
from peelcli.graph import cost, trace
from peelcli.graph.legal import Legality
from peelcli.records import (
    ChannelGraph,
    Check,
    Costs,
    Cut,
    GroupScore,
    Limit,
    Locked,
    ModelId,
    Plan,
    Scores,
    Subject,
    Widths,
)
from peelcli.results import Candidate, Fidelity
from peelcli.scoring import table
from peelcli.sources import digest
from peelcli.sources.inputs import texts
from peelcli.surgery import verify
from peelcli.surgery.prune import apply_cuts
from peelcli.timings import Pace


class Progress(Protocol):
    """What is told of the work: the stage, and how much of it is done where that is known."""

    def __call__(self, stage: str, done: int = 0, total: int = 0, text: str = "") -> None:
        """A stage has started, or went on; the text says how it stands."""


class Tell(Protocol):
    """What one stage tells of itself."""

    def __call__(self, done: int = 0, total: int = 0, text: str = "") -> None:
        """So much is done of so much."""


REPLANS = 5  # plans that are tried, each with the broken groups of the one before locked


class Clock:
    """Wall time by stage, and word to the caller when a stage starts."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._tell = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[Tell]:
        """Time what runs inside; it is given a function that takes (done, total, text)."""

        def tell(done: int = 0, total: int = 0, text: str = "") -> None:
            if self._tell:
                self._tell(name, done, total, text)

        tell()
        start = time.perf_counter()
        try:
            yield tell
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Settled:
    """A plan, the model that it makes, and the proofs so far.

    Attributes:
        after: what the slim model costs by independent counters; None where it does not run.
        candidates: the allocations that were compared, where that was asked for.
        fidelity: how the slim model compares with the original on samples.
        pace: how a budget of latency was met, where there is one.
        backbone: for each group the width before the pool was shared out; empty where no pool was.
    """

    plan: Plan
    slim: nn.Module
    after: Costs | None
    checks: tuple[Check, ...]
    uncounted: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    fidelity: Fidelity | None = None
    pace: Pace | None = None
    backbone: tuple[float, ...] = ()

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if check.ok is False)


def find_groups(subject: Subject, options: Options) -> ChannelGraph:
    """Trace the model under the options' wishes on widths."""
    return trace.trace(subject, Legality(options.align, options.min_keep), options.ignore, options.tracer)


@dataclass(frozen=True)
class Prepared:
    """What every plan of a model starts from, whatever the budget.

    Attributes:
        before: what the original costs.
    """

    owner: ModelId
    graph: ChannelGraph
    before: Costs
    scores: Scores


def prepare(
    subject: Subject,
    options: Options,
    clock: Clock,
    evidence: Evidence | None = None,
    earlier: Sequence[Cut] = (),
) -> Prepared:
    """Trace the model and score its channels.

    Args:
        subject: the original.
        options: how to plan.
        clock: told of the stages.
        evidence: samples, for the scores that need them.
        earlier: what was cut from the original before, where the subject is slim already.
    """
    with clock.stage("trace"):
        graph = rounds.legal_as(find_groups(subject, options), earlier)
        before = cost.costs(graph.cost, graph.full)
    with clock.stage("digest"):
        owner = digest.model_id(subject)
    with clock.stage("score") as tell:
        scores = _score(subject, graph, options, evidence, tell)
    return Prepared(owner, graph, before, scores)


def settle(
    subject: Subject,
    prepared: Prepared,
    budget: Budget,
    options: Options,
    clock: Clock,
    evidence: Evidence | None = None,
    *,
    more: Sequence[Limit] = (),
    limits: Sequence[Limit] | None = None,
    proven: bool = False,
) -> Settled:
    """Plan, cut a copy and prove it; where a group breaks the proof, lock it and plan again.

    Args:
        subject: the original.
        prepared: its groups and scores.
        budget: the limits.
        options: how to plan.
        clock: told of the stages.
        evidence: samples, for the choice among allocations.
        more: limits beside those of the budget, on costs that are only predicted.
        limits: in place of what the budget comes to for this subject.
        proven: the cut of every channel that may go was shown to be right before: only costs are checked.

    Returns:
        What came of the last try; its failed checks say whether that is right.

    Raises:
        NothingToPrune: no group has a choice.
        BudgetOutOfReach: the least legal widths cost more than the budget.
    """
    limits = limits_of(budget, prepared.before) if limits is None else tuple(limits)
    bounds = (*limits, *more)
    unproven: list[str] = []
    for tries_left in reversed(range(REPLANS)):
        try:
            chosen, candidates = decide(prepared, bounds, options, clock, evidence)
        except PeelError as error:
            if unproven:
                error.add(f"locked because cutting them breaks the proof: {', '.join(unproven)}")
            raise
        described = _described(budget, chosen.options, prepared.scores, evidence)
        made = plan_at(subject, prepared, chosen.widths, limits, described)
        settled = replace(
            carry_out(subject, made, clock, proven=proven),
            uncounted=prepared.graph.uncounted,
            candidates=candidates,
            backbone=_backbone(prepared.graph, bounds, chosen.options),
        )
        if not settled.failed or not tries_left:
            break
        if settled.after and all(check.name == "budget_thop_macs" for check in settled.failed):
            bounds = _tightened(bounds, settled.after)
            continue
        locked, broken = without_broken(subject, prepared, settled, options.seed, clock)
        if not broken:
            break
        prepared = locked
        unproven.extend(broken)
    return settled


def plan_at(
    subject: Subject,
    prepared: Prepared,
    widths: Widths,
    limits: Sequence[Limit] = (),
    settings: tuple[tuple[str, str], ...] = (),
) -> Plan:
    """The plan that keeps the best channels at the given widths."""
    graph, scores = prepared.graph, prepared.scores
    return Plan(
        model=prepared.owner,
        inputs=texts(subject),
        settings=settings,
        budget=tuple(limits),
        before=prepared.before,
        predicted=cost.costs(graph.cost, widths),
        cuts=_cuts(graph, scores, widths),
        notes=(*subject.notes, *graph.notes, *scores.notes, *_met(graph, widths)),
    )


def without_broken(
    subject: Subject, prepared: Prepared, settled: Settled, seed: int, clock: Clock
) -> tuple[Prepared, tuple[str, ...]]:
    """Lock the groups that break a proof; returns their names, none where the search finds none."""
    with clock.stage("verify"):
        cuts, predict = settled.plan.cuts, partial(_predict, prepared.graph)
        broken = proving.broken_groups(subject, cuts, predict, seed)
    reason = Locked(f"cutting it breaks the proof ({_told(settled.failed[0])})", "please report the model")
    return replace(prepared, graph=trace.lock(prepared.graph, broken, reason)), broken


def decide(
    prepared: Prepared, limits: Sequence[Limit], options: Options, clock: Clock, evidence: Evidence | None
) -> tuple[Choice, tuple[Candidate, ...]]:
    """The widths; where the choice of the allocation is left open and there are samples, the best of several."""
    graph, scores = prepared.graph, prepared.scores
    with clock.stage("allocate"):
        if options.allocate != "auto" or evidence is None:
            method = "peel" if options.allocate == "auto" else options.allocate
            its = options.model_copy(update={"allocate": method})
            widths = allocate(graph, scores, limits, method, options.pool, options.tau)
            return Choice(method, its, widths), ()
        tried = calibration.choices(graph, scores, limits, options)
    if len(tried) == 1:
        return tried[0], ()
    whole = cost.evaluate(graph.cost.macs, graph.full)
    with clock.stage("choose") as tell:
        return calibration.choose(evidence, tried, lambda widths: _cuts(graph, scores, widths), whole, tell)


def mend(settled: Settled, clock: Clock, evidence: Evidence | None) -> Settled:
    """Repair a slim model that is proven, and compare it with the original; as it is where there are no samples."""
    if evidence is None or settled.failed or settled.after is None:
        return settled
    with clock.stage("repair") as tell:
        slim, fidelity = calibration.mended(evidence, settled.slim, settled.plan.cuts, tell)
    return replace(settled, slim=slim, fidelity=fidelity)


def carry_out(subject: Subject, plan: Plan, clock: Clock, *, proven: bool = False) -> Settled:
    """Cut a copy as planned and make all proofs that need no file; `proven` as in `settle`."""
    with clock.stage("surgery"):
        slim = apply_cuts(subject.module, plan.cuts)
    with clock.stage("verify"):
        try:
            after = proving.counted(subject, slim)
        except Exception as error:  # whatever a forward raises when its shapes don't fit
            note = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return Settled(plan, slim, None, (Check("slim_model_runs", False, note=note),))
        checks = (
            *proving.prediction_checks(plan.predicted, after),
            *proving.budget_checks(after, plan.budget),
            *(() if proven else (verify.equivalence(subject, slim, plan.cuts),)),
        )
    return Settled(plan, slim, after, checks)


def failure(settled: Settled) -> CheckFailed:
    """The first check that did not hold, as an error."""
    first = settled.failed[0]
    hint = "lock layers with --ignore, see them with `peel inspect`, and report the model"
    if first.name == "latency":
        hint = "try again when the machine is less busy, or allow more with --latency"
    return CheckFailed(f"{_told(first)}; nothing was written", hint=hint)


def _told(check: Check) -> str:
    value = "" if check.value is None else f" is {check.value:.3g}, allowed is {check.tolerance:.3g}"
    return f"{check.name}{value or ' failed'}{': ' + check.note if check.note else ''}"


def _score(
    subject: Subject, graph: ChannelGraph, options: Options, evidence: Evidence | None, tell: Callable[[int, int], None]
) -> Scores:
    """Scores as they stand in a plan file, so that a plan read back is the plan that was made."""
    seen, samples, turns = (evidence.subject, evidence.fit, evidence.turns) if evidence else (subject, None, False)
    scores = table.score(seen, graph, options.score, options.seed, samples, tell, turns)
    groups = tuple(GroupScore(score.channels, plans.rounded(score.layer)) for score in scores.groups)
    return replace(scores, groups=groups)


def limits_of(budget: Budget, before: Costs) -> tuple[Limit, ...]:
    """The budget in absolute numbers: --flops holds under both counts, each against its own original.

    thop sees layers alone: where a model calls functions instead it counts nothing, and there is nothing to hold.

    Raises:
        UsageError: the model has none of what the budget bounds.
    """
    limits = []
    if budget.flops is not None:
        limits.append(Limit("macs", budget.flops.of(_some(before.macs, "multiply-adds"))))
    if budget.flops is not None and before.thop_macs:
        limits.append(Limit("thop_macs", budget.flops.of(before.thop_macs)))
    if budget.params is not None:
        limits.append(Limit("params", budget.params.of(_some(before.params, "parameters"))))
    return tuple(limits)


def _some(count: int, of: str) -> int:
    if not count:
        raise UsageError(f"the model has no {of}, so there is nothing to bound", hint="see `peel inspect MODEL`")
    return count


def _tightened(limits: Sequence[Limit], after: Costs) -> tuple[Limit, ...]:
    """Plan for less where thop counts what no formula here has, by as much as it was over."""
    return tuple(
        replace(limit, bound=limit.bound - max(0, getattr(after, limit.count, 0) - limit.bound)) for limit in limits
    )


def _cuts(graph: ChannelGraph, scores: Scores, widths: Sequence[int]) -> tuple[Cut, ...]:
    return tuple(
        Cut(group, width, keep_best(group, score.channels, width), score.layer)
        for group, score, width in zip(graph.groups, scores.groups, widths, strict=True)
    )


def _described(
    budget: Budget, options: Options, scores: Scores, evidence: Evidence | None
) -> tuple[tuple[str, str], ...]:
    """Every setting that decides the plan, as text; the score by the name that "auto" stood for."""
    values = {**budget.model_dump(exclude_none=True), **options.model_dump(), "score": scores.scorer}
    if evidence:
        values["samples"] = len(evidence.fit)
    return tuple(sorted((name, _text(value)) for name, value in values.items()))


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _backbone(graph: ChannelGraph, limits: Sequence[Limit], options: Options) -> tuple[float, ...]:
    method = "peel" if options.allocate == "auto" else options.allocate
    return backbone(graph, limits, method, options.pool)


def _predict(graph: ChannelGraph, cuts: Sequence[Cut]) -> Costs:
    """What the model costs when just these cuts are made."""
    widths = {cut.group.name: cut.width for cut in cuts}
    return cost.costs(graph.cost, tuple(widths.get(group.name, group.full) for group in graph.groups))


def _met(graph: ChannelGraph, widths: Sequence[int]) -> tuple[str, ...]:
    if tuple(widths) == graph.full:
        return ("the model already meets the budget: nothing was cut",)
    return ()
