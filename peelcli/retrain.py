"""Pruning and training together: a slim model trained, or cut and trained in one go."""

from __future__ import annotations

from dataclasses import dataclass, replace

from peelcli import pools, proving, rounds, tuning
from peelcli.config import Calibration
from peelcli.deadlines import settle_in_time
from peelcli.evidence import Evidence, gather, with_known_input
from peelcli.planning import Clock, Settled, failure, limits_of, mend, prepare, settle
from peelcli.pools import Pool
from peelcli.records import Plan, Subject
from peelcli.request import Lessons, Request
from peelcli.results import Tuning
from peelcli.sources import digest
from peelcli.sources.data import load_loss, load_metric, name_of
from peelcli.sources.inputs import texts
from peelcli.students import Student
from peelcli.teaching import Judging, Pupil
from peelcli.training.ranks import require


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        original: with the input that the samples showed.
        settled: the slim model after training, with its plan and checks.
        tunings: one record for each round.
    """

    original: Subject
    settled: Settled
    tunings: tuple[Tuning, ...]


def train(student: Student, wanted: Lessons, clock: Clock) -> Trained:
    """Train a slim model that is there.

    Args:
        student: it, and what it came from.
        wanted: the settings.
        clock: told of the stages.

    Raises:
        PeelError: see `tuning.tune`.
    """
    require()
    pool = _pool(student.original or student.slim, wanted, clock)
    original = with_known_input(student.original or student.slim, pool.some(1))
    settled = _as_it_came(student, original)
    settled, found = _trained(original, settled, pool, wanted, student.original is not None, clock)
    return Trained(original, settled, (found,))


def prune_and_train(subject: Subject, wanted: Request, clock: Clock) -> Trained:
    """Prune by some of the samples, then train on all; again until the budget is reached, where there are rounds.

    What training holds out, pruning does not see either. Every round learns from the original.

    Args:
        subject: the original.
        wanted: the settings.
        clock: told of the stages.

    Raises:
        PeelError: see `planning.settle` and `tuning.tune`.
    """
    assert wanted.lessons is not None
    require()
    pool = _pool(subject, wanted.lessons, clock)
    subject = with_known_input(subject, pool.some(1))
    own = pool.held if wanted.calibration.validation is not None else None
    few = wanted.calibration.model_copy(update={"data": pool.some(wanted.calibration.samples), "validation": own})
    before = proving.counted(subject, subject.module)
    final = limits_of(wanted.budget, before)
    current, settled, tunings = subject, None, []
    for number in range(1, wanted.rounds + 1):
        _, evidence = _gathered(current, few, wanted.options.seed, clock)
        bounds = rounds.limits_of(number, wanted.rounds, final, before)
        earlier = settled.plan.cuts if settled is not None else ()
        prepared = prepare(current, wanted.options, clock, evidence, earlier)
        if wanted.budget.latency is None:
            cut = settle(current, prepared, wanted.budget, wanted.options, clock, evidence, limits=bounds)
        else:
            cut = settle_in_time(current, prepared, wanted.budget, wanted.options, clock, evidence)
        cut = _after(settled, mend(cut, clock, evidence), number)
        if cut.failed or cut.after is None:
            raise failure(cut)
        lessons = replace(wanted.lessons, training=rounds.training_of(number, wanted.rounds, wanted.lessons.training))
        settled, found = _trained(subject, cut, pool, lessons, True, clock)
        tunings.append(found)
        current = replace(subject, module=settled.slim)
    assert settled is not None
    return Trained(subject, settled, tuple(tunings))


def _gathered(subject: Subject, wanted: Calibration, seed: int, clock: Clock) -> tuple[Subject, Evidence | None]:
    with clock.stage("samples") as tell:
        return gather(subject, wanted, seed, tell)


def _after(earlier: Settled | None, now: Settled, number: int) -> Settled:
    """What a round came to, as if the original had been cut once."""
    if earlier is None:
        return now
    settings = tuple(sorted({**dict(now.plan.settings), "rounds": str(number)}.items()))
    plan = replace(
        earlier.plan,
        cuts=rounds.joined(earlier.plan.cuts, now.plan.cuts),
        predicted=now.plan.predicted,
        budget=now.plan.budget,
        settings=settings,
    )
    return replace(now, plan=plan)


def _pool(subject: Subject, wanted: Lessons, clock: Clock) -> Pool:
    with clock.stage("samples") as tell:
        return pools.read(subject, wanted.calibration, wanted.most, wanted.seed, tell)


def _as_it_came(student: Student, original: Subject) -> Settled:
    """A slim model with its plan; where that is not known, one that cuts nothing."""
    after = proving.counted(original, student.slim.module)
    plan = student.plan
    if plan is None:
        before = proving.counted(original, original.module)
        plan = Plan(digest.model_id(student.slim), texts(original), (), (), before, after, (), student.slim.notes)
    return Settled(plan, student.slim.module, after, proving.prediction_checks(plan.predicted, after))


def _trained(
    original: Subject, settled: Settled, pool: Pool, wanted: Lessons, taught: bool, clock: Clock
) -> tuple[Settled, Tuning]:
    """The slim model trained, and its cost counted again."""
    asked, training = wanted.calibration, wanted.training
    metric = load_metric(asked.metric) if asked.metric else None
    own = load_loss(training.loss) if training.loss else None
    judging = Judging(metric, name_of(asked.metric) if asked.metric else "", own)
    pupil = Pupil(settled.slim, original.module if taught else None, settled.plan.cuts)
    with clock.stage("tune") as tell:
        slim, found = tuning.tune(pupil, pool, judging, training, wanted.device, wanted.seed, tell)
    after = proving.counted(original, slim)
    again = proving.prediction_checks(settled.plan.predicted, after)
    names = {check.name for check in again}
    checks = (*(check for check in settled.checks if check.name not in names), *again)
    return replace(settled, slim=slim, after=after, checks=checks), found
