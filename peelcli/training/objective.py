"""What is learned: to answer as the original does, to name the right class, or whatever the user's own loss says."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from peelcli.errors import InputError, UsageError
from peelcli.outputs import Kind, class_label, main_output
from peelcli.tensors import tensors_in

Place = tuple[Hashable, ...]
_SHOWN = 60  # characters of a label in a message
UserLoss = Callable[[Any, Any], Tensor]
"""(outputs, targets) -> one number; targets are stacked where they can be, or None where the data has none."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a forward call is judged by.

    Attributes:
        teacher: the original's output tensors, see `answers_of`; None where it is not asked.
        labels: class numbers, shape (samples,), or None.
        targets: the same as the user's loss gets them.
    """

    teacher: tuple[Tensor, ...] | None = None
    labels: Tensor | None = None
    targets: Any = None


@dataclass(frozen=True, slots=True)
class Mix:
    """Samples that others were blended into: what those are judged by counts 1 - share."""

    share: float
    others: Answers


def answers_of(outputs: Any, kind: Kind, places: Sequence[Place] = ()) -> tuple[Tensor, ...]:
    """The tensors that a student learns: the main one of a classifier, all floating ones of anything else.

    Args:
        outputs: whatever the forward call returned.
        kind: what the main one is.
        places: where the only ones lie that count of anything else; none for all.
    """
    main = main_output(outputs)
    if kind != "values":
        return (main,)
    if places:
        found = dict(_placed(outputs))
        return tuple(found[place] for place in places)
    return tuple(t for t in tensors_in(outputs) if t.is_floating_point() and t.numel())


def places_in_both(one: Any, other: Any) -> tuple[Place, ...]:
    """Where two outputs both have a floating tensor; empty where that is nowhere, or where they don't differ.

    Auxiliary heads of many segmenters speak in train mode only: {"out": z} becomes {"out": z, "aux": y}.
    """
    first, second = dict(_placed(one)), dict(_placed(other))
    return () if first.keys() == second.keys() else tuple(place for place in first if place in second)


def _placed(value: Any, place: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    """Floating tensors by the keys and positions that lead to them; one alone is as the first of a tuple."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield place or (0,), value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _placed(entry, (*place, key))
    elif isinstance(value, (list, tuple)):
        for number, entry in enumerate(value):
            yield from _placed(entry, (*place, number))
    elif is_dataclass(value):
        for field in fields(value):
            yield from _placed(getattr(value, field.name), (*place, field.name))


def check_shapes(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> None:
    """Refuse a teacher whose answers can't be compared with the student's.

    Raises:
        InputError: their shapes differ.
    """
    if [t.shape for t in teacher] == [s.shape for s in student]:
        return
    raise InputError(
        f"the original puts out {_told(teacher)}, and the slim model {_told(student)} for the same samples",
        hint="give as --teacher the model that the slim one was cut from",
    )


def class_numbers(targets: Sequence[Any], scores: Tensor) -> Tensor:
    """Labels as cross entropy takes them, shape (samples,).

    Args:
        targets: what the data says of each sample.
        scores: the model's main output, shape (any number of samples, classes).

    Raises:
        UsageError: the model has no scores for whole samples, or a target is none of its classes.
    """
    numbers = [class_label(target, scores) for target in targets]
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers):
        return torch.tensor(known)
    if scores.dim() != 2:
        raise UsageError(
            "labels are learned by models that put out one row of class scores for each sample",
            hint="leave --distill away, or give --loss file.py:function",
        )
    odd = " ".join(repr(targets[numbers.index(None)]).split())[:_SHOWN]
    raise UsageError(
        f"a sample has the label {odd}, which is no class number",
        hint="give a whole number from 0 on with each sample; or leave --distill away, or give --loss file.py:function",
    )


def _told(tensors: Sequence[Tensor]) -> str:
    return " and ".join("x".join(map(str, t.shape)) or "a number" for t in tensors) or "nothing"


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses over the samples of one call, each a mean over them.

    Attributes:
        kind: what the teacher's main output is.
        distill: weight of the teacher, 0 to 1; what is left is that of labels or of the user's loss.
        temperature: by which logits are divided before they are compared.
        scales: for each of the teacher's tensors the mean square of its deviation from its mean.
        smoothing: share of a label that is spread over all classes.
        own: the user's loss, in place of cross entropy on labels.
        places: of the outputs that are learned from the teacher; empty for all, see `answers_of`.
    """

    kind: Kind
    distill: float
    temperature: float = 1.0
    scales: tuple[float, ...] = ()
    smoothing: float = 0.0
    own: UserLoss | None = None
    places: tuple[Place, ...] = ()

    def learned(self, outputs: Any) -> tuple[Tensor, ...]:
        """The tensors of an output that the teacher is asked for."""
        return answers_of(outputs, self.kind, self.places)

    @property
    def on_labels(self) -> bool:
        """Whether class numbers have a part in it."""
        return self.distill < 1 and self.own is None

    def __call__(self, outputs: Any, answers: Answers, mix: Mix | None = None) -> Tensor:
        """One number to differentiate, in float32 or wider."""
        loss = torch.zeros(())
        if answers.teacher is not None and self.distill > 0:
            loss = self.distill * self.from_teacher(outputs, answers.teacher)
        if self.distill < 1:
            told = self.from_targets(outputs, answers.labels, answers.targets)
            if mix is not None:
                other = self.from_targets(outputs, mix.others.labels, mix.others.targets)
                told = mix.share * told + (1 - mix.share) * other
            loss = (1 - self.distill) * told + loss.to(told.device)
        return loss

    def from_teacher(self, outputs: Any, wanted: Sequence[Tensor]) -> Tensor:
        """Distance from the teacher's answers.

        Logits z: T^2 * KL(softmax(z_teacher / T), softmax(z / T)), in nats, mean over rows and positions; the factor
        keeps gradients of one size at every temperature. Probabilities: the same KL of them at temperature 1.
        Anything else: mean squared difference over `scales`, so that 1 is as far as a constant; mean over the tensors.

        Source: Hinton, Vinyals and Dean, arXiv:1503.02531, section 2.
        """
        found = self.learned(outputs)
        if self.kind == "values":
            terms = [
                functional.mse_loss(_wide(f), _wide(w)) / s for f, w, s in zip(found, wanted, self.scales, strict=True)
            ]
            return torch.stack(terms).mean()
        tau = self.temperature if self.kind == "logits" else 1.0
        p, q = (_logarithms(_wide(t).flatten(0, -2), self.kind, tau) for t in (wanted[0], found[0]))
        return tau**2 * functional.kl_div(q, p, reduction="batchmean", log_target=True)

    def from_targets(self, outputs: Any, labels: Tensor | None, targets: Any) -> Tensor:
        """Cross entropy on labels, in nats, or what the user's loss says."""
        if self.own is not None:
            return self.own(outputs, targets)
        assert labels is not None, "a loss on labels without labels"
        rows = _wide(main_output(outputs))
        if self.kind == "probabilities":
            rows = _logarithms(rows, self.kind, 1.0)
        return functional.cross_entropy(rows, labels, label_smoothing=self.smoothing)


def _wide(tensor: Tensor) -> Tensor:
    """Losses in half precision are too coarse to sum."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _logarithms(rows: Tensor, kind: Kind, temperature: float) -> Tensor:
    if kind == "logits":
        return (rows / temperature).log_softmax(1)
    return rows.clamp(min=torch.finfo(torch.float32).tiny).log()


def mean_squares(answers: Sequence[tuple[Tensor, ...]]) -> tuple[float, ...]:
    """For each tensor of the answers to several calls the mean squared deviation from its mean over all numbers.

    1 where an output does not vary at all: there is no unit to take from it.
    """
    scales = []
    for tensors in zip(*answers, strict=True):
        flat = torch.cat([t.detach().double().flatten() for t in tensors])
        spread = float(flat.var(correction=0)) if flat.numel() else 0.0
        scales.append(spread if spread > 0 else 1.0)
    return tuple(scales)
