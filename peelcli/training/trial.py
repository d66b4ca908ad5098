"""One step on a copy before anything else: what can't be learned is said at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peelcli.errors import InputError, UsageError
from peelcli.outputs import class_label, main_output
from peelcli.samples import stacked
from peelcli.training.feed import Chunk, moved
from peelcli.training.objective import Answers, Objective, answers_of, check_shapes

_CPU = torch.device("cpu")
_LOSS = "a loss is a function of (outputs, targets) that returns one number to differentiate: a tensor of no dimension"


def run(student: nn.Module, teacher: nn.Module | None, objective: Objective, first: Chunk, classes: bool) -> bool:
    """Compute the loss of a few samples and differentiate it.

    Args:
        student: in train mode; its gradients are left clean.
        teacher: in eval mode, or None.
        objective: what is learned.
        first: some samples.
        classes: whether targets are class numbers.

    Returns:
        Whether some parameters take no part in the loss.

    Raises:
        InputError: the outputs of the two differ in shape, or the user's loss is no loss.
        UsageError: the student can't be trained on such a batch, or its outputs can't be differentiated.
    """
    inputs = moved(first.inputs, _CPU)
    told = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = _forward(student, inputs)
        if teacher is not None:
            with torch.no_grad():
                told = answers_of(teacher(*inputs), objective.kind)
            check_shapes(told, answers_of(outputs, objective.kind))
        if objective.own is not None and objective.distill < 1:
            _check_own(objective.own(outputs, _targets(first)), student)
        loss = objective(outputs, _answers(told, outputs, objective, first, classes))
    used = _differentiated(loss, student)
    return not all(used)


def _forward(student: nn.Module, inputs: tuple[Any, ...]) -> Any:
    try:
        return student(*inputs)
    except Exception as error:  # whatever a forward raises in train mode
        raise UsageError(
            f"the slim model can't be run in train mode: {type(error).__name__}: {' '.join(str(error).split())[:160]}",
            hint="where norms see one sample at a time, give --batchnorm frozen; --batch says how many it sees",
        ) from error


def _answers(
    told: tuple[Tensor, ...] | None, outputs: Any, objective: Objective, first: Chunk, classes: bool
) -> Answers:
    if objective.distill == 1 or objective.own is not None:
        return Answers(told, targets=_targets(first))
    assert classes
    assert first.targets is not None
    main = main_output(outputs)
    numbers = [class_label(target, main) for target in first.targets]
    if any(number is None for number in numbers):
        raise UsageError(
            "labels are learned by models that put out one row of class scores for each sample",
            hint="leave --distill away, or give --loss file.py:function",
        )
    return Answers(told, labels=torch.tensor(numbers))


def _targets(first: Chunk) -> Any:
    return None if first.targets is None else stacked(first.targets)


def _check_own(value: Any, student: nn.Module) -> None:
    """The user's loss alone: one number that depends on the student."""
    if not isinstance(value, Tensor) or value.dim() > 0 or value.is_complex():
        shape = f"a tensor of shape {'x'.join(map(str, value.shape))}" if isinstance(value, Tensor) else type(value)
        raise InputError(f"the loss returned {getattr(shape, '__name__', shape)}, not one number", hint=_LOSS)
    if not any(_differentiated(value, student)):
        raise InputError(
            "the loss does not depend on the slim model: no gradient reaches its parameters",
            hint="compute it from `outputs` with torch, without .detach(), .item() or argmax",
        )


def _differentiated(loss: Tensor, student: nn.Module) -> list[bool]:
    """Which of the trained parameters the loss depends on."""
    trained = [p for p in student.parameters() if p.requires_grad]
    if not loss.requires_grad:
        return [False] * len(trained)
    found = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
    return [gradient is not None for gradient in found]
