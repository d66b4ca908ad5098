"""What one step learns from: inputs as they come or changed, the original's answers, targets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from peelcli.outputs import main_output
from peelcli.samples import Inputs, stacked
from peelcli.tensors import tensors_in
from peelcli.training.augment import Augment, Pairs, mixed
from peelcli.training.features import Matcher
from peelcli.training.feed import Chunk, moved
from peelcli.training.objective import Answers, Mix, Objective, class_numbers
from peelcli.training.trial import forward


class TeacherAnswers:
    """The original's answers to a call: remembered where the inputs are the same each time, else asked for."""

    def __init__(self, teacher: nn.Module, objective: Objective, known: Sequence[tuple[Tensor, ...]] | None) -> None:
        """Take what is known.

        Args:
            teacher: in eval mode, on the device of this process.
            objective: says which tensors of its output count.
            known: for each sample its answers, tensors of shape (1, ...), on the CPU; None to ask each time.
        """
        self._teacher, self._objective = teacher, objective
        self._columns = None if known is None else tuple(torch.cat(column) for column in zip(*known, strict=True))

    def __call__(self, inputs: Inputs, positions: Sequence[int], device: torch.device) -> tuple[Tensor, ...]:
        """Tensors of shape (samples, ...)."""
        if self._columns is not None:
            at = torch.tensor(positions)
            return tuple(column[at].to(device, non_blocking=True) for column in self._columns)
        with torch.no_grad():
            return self._objective.learned(self._teacher(*inputs))


class Lesson:
    """The loss of a forward call; see `loop.Lesson`."""

    def __init__(
        self,
        objective: Objective,
        teacher: TeacherAnswers | None,
        augment: Augment,
        mixup: float,
        seed: int,
        matcher: Matcher | None = None,
    ) -> None:
        """Put together what is learned.

        Args:
            objective: the loss.
            teacher: answers for inputs, or None.
            augment: how inputs are changed.
            mixup: 0, or how samples are blended.
            seed: of what is drawn.
            matcher: of layers inside, or None.
        """
        self._objective, self._teacher, self._augment = objective, teacher, augment
        self._mixup, self._seed, self._matcher = mixup, seed, matcher

    def __call__(self, module: nn.Module, chunk: Chunk, step: int, places: Sequence[int]) -> Tensor:
        """The mean over the samples of a chunk."""
        inputs, pairs = self._augment(chunk.inputs, step, places), None
        if self._mixup > 0:
            inputs, pairs = mixed(inputs, len(chunk.positions), self._mixup, self._seed, step)
        with self._matcher.watching() if self._matcher else nullcontext():
            told = self._teacher(inputs, chunk.positions, _device(inputs)) if self._teacher else None
            outputs = forward(module, inputs, len(chunk.positions))
        device = _device(inputs)
        answers = self._answers(told, outputs, chunk.targets, device)
        loss = self._objective(outputs, answers, self._mix(pairs, outputs, chunk, device))
        return loss + self._matcher.loss() if self._matcher else loss

    def _mix(self, pairs: Pairs | None, outputs: Any, chunk: Chunk, device: torch.device) -> Mix | None:
        """The partners' targets are exchanged one by one: once they are stacked, a nest of them has many shapes."""
        if pairs is None:
            return None
        others = None if chunk.targets is None else [chunk.targets[at] for at in pairs.partners.tolist()]
        return Mix(pairs.share, self._answers(None, outputs, others, device))

    def _answers(
        self, told: tuple[Tensor, ...] | None, outputs: Any, targets: list[Any] | None, device: torch.device
    ) -> Answers:
        if self._objective.distill == 1:
            return Answers(told)
        if not self._objective.on_labels:
            return Answers(told, targets=None if targets is None else moved(stacked(targets), device))
        assert targets is not None
        return Answers(told, labels=class_numbers(targets, main_output(outputs)).to(device))


def _device(inputs: Inputs) -> torch.device:
    return tensors_in(inputs)[0].device
