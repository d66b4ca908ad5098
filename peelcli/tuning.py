"""Training composed: samples are split, the two models put side by side, the loop run, the best state kept."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from peelcli.errors import UsageError
from peelcli.fidelity import Judge
from peelcli.pools import Pool
from peelcli.records import Subject
from peelcli.regimen import Training
from peelcli.results import Distance, Tuning
from peelcli.sources import digest
from peelcli.surgery.batchnorm import has_statistics, reestimated
from peelcli.teaching import Judging, Pupil, lesson, prepare, trainable
from peelcli.tensors import full_copy
from peelcli.training import log, recipe
from peelcli.training.checkpoint import Tensors
from peelcli.training.feed import InMemory, Reader
from peelcli.training.loop import Job, Loop, Result, steps_of
from peelcli.training.norms import synchronise
from peelcli.training.order import Order
from peelcli.training.ranks import Ranks

_WORKERS = 8  # processes that read ahead, at most
_REESTIMATED = 512  # samples that BatchNorm's statistics are taken from at the end
_GENTLE = "a third of the usual rate: with BatchNorm statistics of batches the model would be worse than it came"

Progress = Callable[[int, int, str], None]


def tune(
    pupil: Pupil, pool: Pool, judging: Judging, training: Training, device: str | None, seed: int, tell: Progress
) -> tuple[nn.Module, Tuning]:
    """Train a copy of a slim model, and keep its best state.

    Args:
        pupil: the models.
        pool: the samples.
        judging: the user's own functions.
        training: the settings.
        device: as the user wrote it; None for a GPU where there is one.
        seed: of everything random.
        tell: given (steps done, steps in all, figures in words).

    Returns:
        The model with its classes, mode and types as they were, on the CPU, and the record. As it came where training
        brought it no nearer.

    Raises:
        UsageError: the settings don't fit the models, the samples or this machine.
        InputError: the models don't fit each other, or a function of the user's fails.
        Diverged: the loss is not finite any more.
        Interrupted: the process was asked to end.
    """
    log.require(training.log)
    teaching = prepare(pupil, pool, judging, training)
    ranks = Ranks(training, device, teaching.unused)
    order = _order(pool, training, ranks, seed)
    student = trainable(pupil.slim).to(ranks.device)
    if training.batchnorm == "sync":
        student = synchronise(student, ranks.device)
    bench = _Bench(pupil, pool, judging, ranks)
    name = recipe.optimizer_name(student, training)
    gentle = _is_gentle(name, training, pupil, pool, bench)
    asked, training = training, training.model_copy(update={"rate": recipe.peak_rate(name, training, gentle)})
    job = Job(
        student=student,
        lesson=lesson(teaching, pupil, student, pool, training, ranks, seed),
        reader=_reader(pool, training, ranks, seed),
        order=order,
        judge=bench.distance,
        merit=merit,
        start=bench.start,
        training=training,
        identity=_identity(pupil, pool, judging, asked, order, seed) | _rate_of_its_own(asked, training),
        folder=training.checkpoints,
        seed=seed,
    )
    result = Loop(job, ranks, tell).run()
    kept = _finished(pool, bench, result)
    record = Tuning(
        trained=len(pool.fit),
        held=bench.judge.held,
        steps=order.steps,
        batch=order.batch,
        optimizer=name,
        peak=recipe.peak_rate(name, training),
        objective=teaching.in_words(training.match == "features"),
        before=bench.start,
        after=kept.distance,
        kept=kept.step,
        metric=bench.judge.metric_name,
        original=bench.judge.original if pupil.teacher is not None else None,
        curve=result.curve,
        rate=result.rate,
        hardware=ranks.name(),
        notes=(*pool.notes, *bench.judge.notes, *([_GENTLE] if gentle else []), *result.notes, *kept.notes),
    )
    return bench.filled(kept.state), record


class _Bench:
    """Where states of the student are judged: in a copy of the slim model, by its original or, without, by itself."""

    def __init__(self, pupil: Pupil, pool: Pool, judging: Judging, ranks: Ranks) -> None:
        self._slim = pupil.slim
        original = pupil.teacher if pupil.teacher is not None else pupil.slim
        self.judge = Judge(original, pool.held, judging.metric, judging.name, ranks.device, ranks.shared)
        self._copy = full_copy(pupil.slim).to(ranks.device)
        self.start = self.judge.distance(self._copy)
        self.has_statistics = has_statistics(self._copy)

    def distance(self, state: Tensors) -> Distance:
        """How near the model is with this state."""
        self._copy.load_state_dict(state, strict=False)
        return self.judge.distance(self._copy)

    def filled(self, state: Tensors | None) -> nn.Module:
        """The slim model with this state; as it came where there is none."""
        if state is None:
            return self._slim
        tuned = full_copy(self._slim)
        tuned.load_state_dict(state, strict=False)
        return tuned

    def renormed(self, state: Tensors, pool: Pool) -> Tensors:
        """The same state with BatchNorm's statistics taken anew from samples that are learned from."""
        self._copy.load_state_dict(state, strict=False)
        return reestimated(self._copy, pool.some(_REESTIMATED)).state_dict()


def _is_gentle(name: str, training: Training, pupil: Pupil, pool: Pool, bench: _Bench) -> bool:
    """Whether the model would lose by the statistics that batches give its norms: as it is it is worth small steps.

    So it is after repair, which fits the statistics too; a model that was only cut gains by them.
    """
    if name != "sgd" or training.rate is not None or training.batchnorm == "frozen" or not bench.has_statistics:
        return False
    return merit(bench.distance(bench.renormed(pupil.slim.state_dict(), pool))) < merit(bench.start)


def merit(distance: Distance) -> tuple[float, float]:
    """What decides between states, more is better: the metric where there is one, then nearness to the original."""
    near = -(distance.relative if distance.kl is None else distance.kl)
    figures = (near if distance.metric is None else distance.metric, near)
    return (-math.inf, -math.inf) if any(map(math.isnan, figures)) else figures


def _order(pool: Pool, training: Training, ranks: Ranks, seed: int) -> Order:
    count = len(pool.fit)
    if count < ranks.count:
        raise UsageError(
            f"{ranks.count} processes share {count} samples: some would have none",
            hint="start fewer processes, or give more samples",
        )
    batch = min(training.batch, count)
    if batch < ranks.count * training.accumulate:
        raise UsageError(
            f"a batch of {batch} can't be shared by {ranks.count} processes in {training.accumulate} parts each",
            hint="raise --batch, which counts the samples of all processes, or lower --accumulate",
        )
    return Order(count, batch, steps_of(training, count // batch), seed)


def _reader(pool: Pool, training: Training, ranks: Ranks, seed: int) -> Reader:
    """Samples in memory need no workers; others get some, of which the processes of a machine share the cores."""
    workers = training.workers
    if workers is None:
        cores = (os.cpu_count() or 1) // ranks.on_this_machine
        workers = 0 if isinstance(pool.fit, InMemory) else min(_WORKERS, max(0, cores - 1))
    return Reader(pool.fit, pool.single, workers, ranks.device.type == "cuda", seed)


@dataclass(frozen=True)
class _Outcome:
    """What is kept of a run: a state, None for the model as it came; the step that it is of, and what to say of it."""

    state: Tensors | None
    distance: Distance
    step: int
    notes: tuple[str, ...] = ()


def _finished(pool: Pool, bench: _Bench, result: Result) -> _Outcome:
    """The best state; the best and the last one also with BatchNorm's statistics anew, which lag in short runs."""
    best = max(result.curve, key=lambda point: (merit(point.distance), -point.step))
    tried = [_Outcome(result.best, best.distance, best.step)]
    if bench.has_statistics:
        states = {result.curve[-1].step: result.last} | ({best.step: result.best} if result.best is not None else {})
        for step, state in states.items():
            fresh = bench.renormed(state, pool)
            note = "BatchNorm statistics taken anew at the end"
            tried.append(_Outcome(fresh, bench.distance(fresh), step, (note,)))
    kept = max(tried, key=lambda outcome: merit(outcome.distance))
    if kept.state is None:
        note = "training brought the model no nearer on held-out samples: it is as it came"
        return replace(kept, notes=(note,))
    return kept


_NO_PART = ("checkpoints", "resume", "log", "workers", "save_every", "compile")
_NOT_GIVEN = "not given"


def _identity(pupil: Pupil, pool: Pool, judging: Judging, asked: Training, order: Order, seed: int) -> dict[str, str]:
    """Everything that decides the numbers of a run, by the name that a user knows it under.

    The metric is part of it: it decides which state is best, and those of two metrics can't be compared. So are the
    parts of a batch: each is normed by statistics of its own.
    """
    given = {name: value for name, value in asked.model_dump().items() if name not in _NO_PART}
    found = {f"--{k.replace('_', '-')}": _NOT_GIVEN if v is None else str(v) for k, v in given.items()}
    found |= {"--metric": judging.name if judging.metric is not None else _NOT_GIVEN}
    found |= {"--seed": str(seed), "the samples": pool.digest, "steps": str(order.steps)}
    found |= {"the slim model": _weights(pupil.slim)}
    return found | ({} if pupil.teacher is None else {"the original": _weights(pupil.teacher)})


def _rate_of_its_own(asked: Training, training: Training) -> dict[str, str]:
    """The rate that was chosen for the user, under a name that is no flag's; nothing where --rate was given."""
    return {} if asked.rate is not None else {"the rate chosen": f"{training.rate:g}"}


def _weights(module: nn.Module) -> str:
    return digest.model_id(Subject(module, (), "")).weights
