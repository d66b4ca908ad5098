"""What a slim model is taught: by the original, by labels, or by a loss of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peelcli import streams
from peelcli.errors import UsageError
from peelcli.fidelity import MOST_NUMBERS
from peelcli.outputs import Kind, common_kind, kind, main_output
from peelcli.pools import Pool
from peelcli.records import Cut
from peelcli.regimen import Training
from peelcli.sources.data.metric import Metric
from peelcli.tensors import wide_copy
from peelcli.training import features, norms, suited, trial
from peelcli.training.augment import Augment
from peelcli.training.feed import Chunk, InMemory, chunks, moved
from peelcli.training.lesson import Lesson, TeacherAnswers
from peelcli.training.objective import Objective, UserLoss, answers_of, class_numbers, mean_squares, places_in_both
from peelcli.training.order import smallest_piece
from peelcli.training.ranks import Ranks, launched

LOOKED_AT = 64  # samples that tell what outputs are and what their unit is


@dataclass(frozen=True)
class Pupil:
    """The slim model and what it may be compared with.

    Attributes:
        slim: not changed.
        teacher: the original, not changed; None to learn from targets alone.
        cuts: how the one came from the other; empty where that is not known.
    """

    slim: nn.Module
    teacher: nn.Module | None
    cuts: Sequence[Cut] = ()


@dataclass(frozen=True)
class Judging:
    """The user's own functions.

    Attributes:
        metric: judges outputs by targets; more is better.
        name: of the metric.
        loss: learned in place of cross entropy.
    """

    metric: Metric | None = None
    name: str = ""
    loss: UserLoss | None = None


@dataclass(frozen=True)
class Teaching:
    """What was decided before anything is trained.

    Attributes:
        teacher: a copy in eval mode on the CPU, or None.
        objective: the loss.
        first: some samples.
        unused: whether some parameters take no part in the loss.
    """

    teacher: nn.Module | None
    objective: Objective
    first: Chunk
    unused: bool

    def in_words(self, matched: bool) -> str:
        """What is learned: "the original's answers (KL at temperature 4)"."""
        objective, parts = self.objective, []
        if objective.distill > 0:
            how = {"logits": f"KL at temperature {objective.temperature:g}", "probabilities": "KL", "values": "L2"}
            parts.append(f"the original's answers ({how[objective.kind]})")
        if objective.distill < 1:
            parts.append("a loss of one's own" if objective.own is not None else "labels")
        weights = [objective.distill, 1 - objective.distill] if len(parts) == 2 else [1.0]
        text = " + ".join(part if w == 1 else f"{w:g} x {part}" for w, part in zip(weights, parts, strict=True))
        return f"{text}, layers inside" if matched else text


def prepare(pupil: Pupil, pool: Pool, judging: Judging, training: Training) -> Teaching:
    """Decide on the loss, and try it on a few samples.

    Raises:
        UsageError: the settings don't fit the models or the samples.
        InputError: the models don't fit each other, or the user's loss is none.
    """
    distill = _weight_of_teacher(pupil, pool, judging, training)
    teacher = _teacher(pupil.teacher) if pupil.teacher is not None else None
    first = _first(pool, LOOKED_AT)
    suited.check(first, pool.single, judging.loss is not None and distill < 1, training)
    student = trainable(pupil.slim)
    norms.set_training(student, training.batchnorm)
    outputs = trial.outputs_for(student, _first(pool, _least(pool, training)))
    objective = _objective(teacher or wide_copy(pupil.slim), first, outputs, distill, judging.loss, training)
    unused = trial.run(student, teacher, objective, first)
    if objective.on_labels and isinstance(pool.fit, InMemory):
        class_numbers([pool.fit.read(position)[1] for position in range(len(pool.fit))], main_output(outputs))
    return Teaching(teacher, objective, first, unused)


def _first(pool: Pool, count: int) -> Chunk:
    return next(chunks(pool.still, list(range(min(count, len(pool.fit)))), pool.single))


def _least(pool: Pool, training: Training) -> int:
    """How few samples norms see together at some time."""
    ranks = 1 if training.batchnorm == "sync" else launched()
    return smallest_piece(min(training.batch, len(pool.fit)), ranks, training.accumulate)


def lesson(
    teaching: Teaching, pupil: Pupil, student: nn.Module, pool: Pool, training: Training, ranks: Ranks, seed: int
) -> Lesson:
    """The loss of each step, with all that it needs on this process's device.

    Args:
        teaching: what was decided.
        pupil: the models.
        student: the one that is trained, on its device.
        pool: the samples.
        training: the settings.
        ranks: this process and the others.
        seed: of what is drawn.

    Raises:
        UsageError: layers are to be matched, and it is not known which ones.
    """
    teacher = teaching.teacher.to(ranks.device) if teaching.teacher is not None else None
    matcher = _matcher(pupil, teacher, student, training, teaching.first, ranks)
    asked = None
    if teacher is not None and teaching.objective.distill > 0:
        known = None if matcher else _remembered(teacher, teaching.objective, pool, training, ranks)
        asked = TeacherAnswers(teacher, teaching.objective, known)
    return Lesson(
        teaching.objective,
        asked,
        Augment(training.augment, seed),
        training.mixup,
        seed,
        matcher,
    )


def trainable(slim: nn.Module) -> nn.Module:
    """A copy in float32 whose parameters require gradients as they did, or all of them where none did.

    Raises:
        UsageError: there are no floating-point parameters.
    """
    copy = wide_copy(slim)
    flags = {name: p.requires_grad for name, p in slim.named_parameters()}
    if any(flags.values()):
        for name, parameter in copy.named_parameters():
            parameter.requires_grad_(flags[name])
    if not any(p.requires_grad for p in copy.parameters()):
        raise UsageError("the slim model has no parameter that could be trained")
    nn.Module.train(copy)
    return copy


def _teacher(module: nn.Module) -> nn.Module:
    copy = wide_copy(module)
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
    return copy


def _weight_of_teacher(pupil: Pupil, pool: Pool, judging: Judging, training: Training) -> float:
    """What `--distill` stands for.

    Raises:
        UsageError: there is nothing to learn from.
    """
    told = judging.loss is not None or pool.classes
    if training.distill is not None and training.distill < 1 and not told:
        raise UsageError(
            f"--distill {training.distill:g} leaves a weight to labels, and {pool.name} has no class numbers",
            hint="give samples with labels, or --loss file.py:function, or leave --distill away",
        )
    if pupil.teacher is None:
        if not told or training.distill:
            raise UsageError(
                "there is no original to learn from",
                hint="give it with --teacher MODEL; or labels, or --loss, and --distill 0",
            )
        if judging.metric is None and not pool.classes:
            raise UsageError("nothing says which state is best", hint="give --metric file.py:function, or --teacher")
        return 0.0
    if training.distill is not None:
        return training.distill
    return 0.5 if judging.loss is not None else 1.0


def _objective(
    module: nn.Module, first: Chunk, trained: Any, distill: float, own: UserLoss | None, training: Training
) -> Objective:
    """What is learned, with the kind and the units of the original's outputs.

    Args:
        module: the original, in eval mode; the slim model where there is none.
        first: some samples.
        trained: what the slim model puts out in train mode.
        distill: weight of the original's answers.
        own: the user's loss.
        training: the settings.
    """
    with torch.no_grad():
        outputs = module(*moved(first.inputs, torch.device("cpu")))
    found: Kind = common_kind([kind(outputs)])
    places = places_in_both(outputs, trained) if found == "values" else ()
    scales = mean_squares([answers_of(outputs, found, places)]) if found == "values" else ()
    return Objective(found, distill, training.temperature, scales, training.label_smoothing, own, places)


def _matcher(
    pupil: Pupil, teacher: nn.Module | None, student: nn.Module, training: Training, first: Chunk, ranks: Ranks
) -> features.Matcher | None:
    if training.match == "outputs":
        return None
    if teacher is None or not pupil.cuts:
        raise UsageError(
            "--match features needs the original, and the plan that says which channels were kept",
            hint="give --teacher, and the slim model as .safetensors, which carries its plan",
        )
    inputs = moved(first.inputs, ranks.device)
    turned = {stream.group.name for stream in streams.find(teacher, [cut.group for cut in pupil.cuts], inputs)}
    cuts = [cut for cut in pupil.cuts if cut.group.name not in turned]  # repair gives streams another basis
    made = features.Matcher(teacher, student, features.pairs(student, cuts), ranks.device)
    with made.watching(), torch.no_grad():
        teacher(*inputs)
    made.measure()
    return made


def _remembered(
    teacher: nn.Module, objective: Objective, pool: Pool, training: Training, ranks: Ranks
) -> list[tuple[Tensor, ...]] | None:
    """The original's answers to every sample, each process a part of them; None where that can't be, or is no use."""
    changing = training.augment or training.mixup > 0 or not pool.fit.steady
    if changing or objective.distill == 0 or pool.single:
        return None
    first = _answers_to(teacher, objective, pool, list(range(min(2, len(pool.fit)))), ranks.device)
    if first is None or sum(t.numel() for t in first[0]) * len(pool.fit) > MOST_NUMBERS:
        return None
    parts = [list(range(start, min(start + LOOKED_AT, len(pool.fit)))) for start in range(0, len(pool.fit), LOOKED_AT)]

    def work(at: list[int]) -> list[list[tuple[Tensor, ...]] | None]:
        return [_answers_to(teacher, objective, pool, parts[part], ranks.device) for part in at]

    found = ranks.shared(len(parts), work)
    rows = [row for part in found for row in part or ()]
    shapes = {tuple(t.shape for t in row) for row in rows}
    return rows if len(rows) == len(pool.fit) and len(shapes) == 1 else None


def _answers_to(
    teacher: nn.Module, objective: Objective, pool: Pool, positions: list[int], device: torch.device
) -> list[tuple[Tensor, ...]] | None:
    """For each sample its answers, on the CPU; None where the rows of an output are no samples."""
    rows: dict[int, tuple[Tensor, ...]] = {}
    for chunk in chunks(pool.fit, positions):
        with torch.no_grad():
            tensors = objective.learned(teacher(*moved(chunk.inputs, device)))
        if any(t.dim() == 0 or len(t) != len(chunk.positions) for t in tensors):
            return None
        columns = [t.cpu().split(1) for t in tensors]
        rows.update(zip(chunk.positions, zip(*columns, strict=True), strict=True))
    return [rows[position] for position in positions]
