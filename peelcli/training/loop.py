"""The training loop: step, average, look, save; the same numbers wherever it is cut in two."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from peelcli.errors import PeelError, UsageError
from peelcli.regimen import Training
from peelcli.results import Distance, Point
from peelcli.training import checkpoint, recipe
from peelcli.training.checkpoint import Checkpoint, Tensors
from peelcli.training.feed import Chunk, Reader, moved, reseed
from peelcli.training.log import Log
from peelcli.training.norms import set_training
from peelcli.training.order import Order
from peelcli.training.ranks import Ranks
from peelcli.training.signals import Interrupted, stopping

SYNC_EVERY = 10  # steps between looks at the losses: reading one from a GPU waits for all that was asked of it


class Diverged(PeelError):
    """A loss that is no number any more."""

    exit_code = 1


class Lesson(Protocol):
    """What a step learns from."""

    def __call__(self, module: nn.Module, chunk: Chunk, step: int, places: Sequence[int]) -> Tensor:
        """The loss of one forward call, a mean over its samples.

        Args:
            module: the student as it is called in training.
            chunk: on this process's device.
            step: of the run.
            places: of its samples within the step's whole batch.
        """


@dataclass(frozen=True)
class Job:
    """What a run is made of.

    Attributes:
        student: trained in place, on the device of its process.
        lesson: the loss.
        reader: gives the samples.
        order: who is seen when.
        judge: how near a state of the student is to what is wanted; the same on all processes.
        merit: of a distance; more is better.
        start: the distance before the first step.
        training: the settings.
        identity: what makes it this run.
        folder: for checkpoints and logs, or None.
        seed: of everything random.
    """

    student: nn.Module
    lesson: Lesson
    reader: Reader
    order: Order
    judge: Callable[[Tensors], Distance]
    merit: Callable[[Distance], tuple[float, float]]
    start: Distance
    training: Training
    identity: dict[str, str]
    folder: Path | None
    seed: int


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        best: the best state, None where none was better than the start.
        last: the state at the end.
        curve: the start, and a point for each look at held-out samples.
        rate: samples a second, over all processes; 0 where all was done before.
        notes: what went wrong on the way, one sentence each.
    """

    best: Tensors | None
    last: Tensors
    curve: tuple[Point, ...]
    rate: float
    notes: tuple[str, ...]


Progress = Callable[[int, int, str], None]


class Loop:
    """One run on one process."""

    def __init__(self, job: Job, ranks: Ranks, tell: Progress) -> None:
        """Put the student to work.

        Raises:
            UsageError: the folder's checkpoint is of another run.
            SourceError: it can't be read.
        """
        self._job, self._ranks, self._tell = job, ranks, tell
        self._name = recipe.optimizer_name(job.student, job.training)
        self._peak = recipe.peak_rate(self._name, job.training)
        module: Any = torch.compile(job.student) if job.training.compile else job.student
        made = recipe.make_optimizer(job.student, self._name, job.training)
        self._module, self._optimizer = ranks.prepare(module, made)
        self._average = recipe.Average(job.student, job.training.ema)
        self._trained = [p for p in job.student.parameters() if p.requires_grad]
        self._step = self._saved = 0
        self._curve = [Point(0, 0.0, None, job.start)]
        self._best: Tensors | None = None
        self._losses: list[Tensor] = []  # of the steps since the last look at them
        self._recent: list[float] = []  # of the steps since held-out samples were looked at
        self._loss, self._pace = math.nan, ""
        self._notes: dict[str, None] = {}
        if job.training.resume:
            self._resume()
        if job.folder is not None and ranks.main:
            checkpoint.make_folder(job.folder)
        self._log = Log(job.folder if ranks.main else None, job.training.log, self._step)

    def run(self) -> Result:
        """All steps that are left.

        Raises:
            Diverged: a loss is not finite; the last checkpoint is kept.
            Interrupted: the process was asked to end; a checkpoint was written.
        """
        job, order = self._job, self._job.order
        set_training(job.student, job.training.batchnorm)
        rank, count = self._ranks.rank, self._ranks.count
        part = partial(order.part, rank=rank, ranks=count, pieces=job.training.accumulate)
        started, first, paused = time.perf_counter(), self._step, 0.0
        with stopping() as asked, compiled(job.training.compile):
            for chunks in job.reader.steps(range(self._step, order.steps), part, rank):
                self._one(chunks)
                if self._is_due(SYNC_EVERY) or (self._ranks.count == 1 and asked):
                    self._look_at_losses()
                    self._report(first, time.perf_counter() - started - paused)
                pause = time.perf_counter()
                if self._is_due(job.training.evaluate_every or order.steps_per_epoch):
                    self._evaluate()
                if self._is_due(job.training.save_every):
                    self._save()
                if self._is_due(SYNC_EVERY) or (self._ranks.count == 1 and asked):
                    self._end_if(self._ranks.any(bool(asked)))
                paused += time.perf_counter() - pause
        self._log.close(self._step)
        seconds = time.perf_counter() - started - paused
        rate = (self._step - first) * order.batch / seconds if self._step > first else 0.0
        notes = (*self._notes, *self._log.notes)
        return Result(self._best, _on_cpu(self._average.state), tuple(self._curve), rate, notes)

    def _is_due(self, every: int) -> bool:
        return self._step % every == 0 or self._step == self._job.order.steps

    def _one(self, chunks: list[Chunk]) -> None:
        """One step: gradients of all chunks added up, weights moved, average updated."""
        job, ranks = self._job, self._ranks
        reseed(job.seed, self._step, ranks.rank)
        factor = recipe.rate_factor(self._step, job.order.steps, job.training.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = self._peak * factor
        losses = []
        place = 0
        for number, chunk in enumerate(chunks):
            size = len(chunk.positions)
            places = [ranks.rank + ranks.count * at for at in range(place, place + size)]
            place += size
            here = Chunk(moved(chunk.inputs, ranks.device), chunk.targets, chunk.positions)
            with ranks.alone(self._module, more=number < len(chunks) - 1):
                with ranks.autocast():
                    loss = job.lesson(self._module, here, self._step, places)
                # Processes average their gradients: each sample counts 1 / batch.
                share = loss * (size * ranks.count / job.order.batch)
                ranks.backward(share)
            losses.append(share.detach())
        if job.training.clip is not None:
            ranks.clip(self._trained, job.training.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average.update(self._step)
        self._losses.append(torch.stack(losses).sum())
        self._step += 1

    def _look_at_losses(self) -> None:
        """Write down the losses of the last steps.

        Raises:
            Diverged: one is not finite.
        """
        if not self._losses:
            return
        losses = self._ranks.mean(torch.stack(self._losses)).tolist()
        self._losses.clear()
        first = self._step - len(losses)
        for number, loss in enumerate(losses):
            if not math.isfinite(loss):
                self._log.close(self._step)
                self._give_up(first + number + 1)
            self._log.add(first + number + 1, {"loss": loss})
        self._recent += losses
        self._loss = sum(losses) / len(losses)

    def _give_up(self, step: int) -> None:
        kept = "there is no checkpoint"
        saved = self._ranks.from_main(self._saved)  # any process may be the one that is heard
        if saved and self._job.folder is not None:
            kept = f"the checkpoint of step {saved} is kept in {self._job.folder}"
        rate = self._peak
        raise Diverged(
            f"the loss is not finite at step {step} of {self._job.order.steps}; {kept}, nothing else was written",
            hint=f"start again with a lower --rate than {rate:.2g}, or with --clip 1",
        )

    def _report(self, first: int, seconds: float) -> None:
        steps = self._job.order.steps
        rate = (self._step - first) * self._job.order.batch / max(seconds, 1e-9)
        left = (steps - self._step) * self._job.order.batch / max(rate, 1e-9)
        self._pace = f", {clock(left)} left, {rate:.0f}/s"
        self._tell_of(self._curve[-1].distance)

    def _tell_of(self, distance: Distance) -> None:
        text = f"loss {self._loss:.3g}, {told(distance)}{self._pace}"
        self._tell(self._step, self._job.order.steps, text)

    def _evaluate(self) -> None:
        """Judge the average, and keep it if it is the best so far."""
        self._look_at_losses()
        state = self._average.state
        self._ranks.tensors_from_main(list(state.values()))
        distance = self._job.judge(state)
        set_training(self._job.student, self._job.training.batchnorm)
        merits = [self._job.merit(point.distance) for point in self._curve]
        if self._job.merit(distance) > max(merits):
            self._best = _on_cpu(state)
        loss = sum(self._recent) / len(self._recent)
        self._recent.clear()
        self._curve.append(Point(self._step, self._job.order.epoch(self._step), loss, distance))
        self._log.add(self._step, {f"held_{name}": value for name, value in figures_of(distance).items()})
        self._tell_of(distance)

    # --- going on later

    def _save(self) -> bool:
        """Write a checkpoint, unless the weights are broken; where that fails, the last one stays and it is said."""
        self._look_at_losses()
        job = self._job
        if job.folder is None or not self._ranks.main:
            return False
        finite = all(bool(torch.isfinite(p).all()) for p in self._trained)
        if not finite:
            return False  # the next loss says so
        self._log.flush(self._step)
        now = Checkpoint(
            identity=job.identity,
            step=self._step,
            weights=_plain(job.student.state_dict()),
            average=self._average.state,
            optimizer=self._optimizer.state_dict(),
            scaler=self._ranks.scaler_state(),
            curve=[point.as_dict() for point in self._curve],
            recent=self._recent,
            best=self._best,
        )
        try:
            checkpoint.write(job.folder, now)
        except PeelError as error:
            kept = f"that of step {self._saved} is kept" if self._saved else "there is none yet"
            note = f"no checkpoint at step {self._step}, {kept}: {error.message.replace(', nothing was written', '')}"
            self._notes[note] = None
            self._tell(self._step, job.order.steps, note)
            return False
        self._saved = self._step
        return True

    def _resume(self) -> None:
        job = self._job
        here = job.folder is not None and self._ranks.main  # other machines may not see the folder
        found = self._ranks.from_main(checkpoint.read(job.folder) if here and job.folder else None)
        if found is None:
            self._notes["there was no checkpoint to resume from: the run began at its start"] = None
            return
        assert job.folder is not None
        checkpoint.check_same(job.identity, found, job.folder)
        job.student.load_state_dict(found.weights, strict=False)
        self._average.load(found.average)
        self._optimizer.load_state_dict(found.optimizer)
        self._ranks.load_scaler(found.scaler)
        self._curve = [Point.from_dict(point) for point in found.curve]
        self._recent, self._best = found.recent, found.best
        self._step = self._saved = found.step
        self._notes[f"resumed after step {found.step}"] = None

    def _end_if(self, asked: bool) -> None:
        if not asked or self._step == self._job.order.steps:
            return
        self._save()
        self._log.close(self._step)
        said = f"interrupted after step {self._step} of {self._job.order.steps}"
        if self._job.folder is None:
            raise Interrupted(f"{said}; nothing was kept", hint="give --out or --checkpoints, for a run to go on later")
        if self._ranks.main and not self._saved:
            raise Interrupted(f"{said}; no checkpoint could be written", hint="free some space, and start again")
        step = self._saved if self._ranks.main else self._step
        raise Interrupted(
            f"{said}; the checkpoint of step {step} is in {self._job.folder}",
            hint="go on with the same command and --resume",
        )


@contextmanager
def compiled(wanted: bool) -> Iterator[None]:
    """What torch.compile raises inside becomes one line.

    Raises:
        UsageError: it can't compile the model on this machine.
    """
    try:
        yield
    except Exception as error:
        if not wanted or isinstance(error, PeelError) or not type(error).__module__.startswith("torch._"):
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise UsageError(f"torch.compile fails on the slim model: {what}", hint="leave --compile away") from error


def _on_cpu(state: Tensors) -> Tensors:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def _plain(state: dict[str, Any]) -> Tensors:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def figures_of(distance: Distance) -> dict[str, float | None]:
    """The figures of a distance by name."""
    return {
        "relative": distance.relative,
        "kl": distance.kl,
        "agreement": distance.agreement,
        "metric": distance.metric,
    }


def told(distance: Distance) -> str:
    """The figure that counts most, in a few words."""
    if distance.metric is not None:
        return f"metric {distance.metric:.4g}"
    if distance.agreement is not None:
        return f"agreement {distance.agreement:.1%}"
    return f"relative {distance.relative:.3g}"


def clock(seconds: float) -> str:
    """A time to wait: "0:07", "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def steps_of(training: Training, steps_per_epoch: int) -> int:
    """How many steps a run has."""
    if training.steps is not None:
        return training.steps
    assert training.epochs is not None
    return max(1, round(training.epochs * steps_per_epoch))
