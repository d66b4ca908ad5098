"""One step on a copy before anything else: what can't be learned is said at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peelcli.errors import InputError, PeelError, UsageError
from peelcli.outputs import main_output
from peelcli.samples import Inputs, stacked
from peelcli.training.feed import Chunk, moved
from peelcli.training.objective import Answers, Objective, check_shapes, class_numbers

_CPU = torch.device("cpu")
_FEW = "more than 1 value per channel"  # torch's words for a norm over the batch that sees one sample
_NORMS = "raise --batch or lower --accumulate, so that norms see more samples; or give --batchnorm frozen"
_LOSS = "a loss is a function of (outputs, targets) that returns one number to differentiate: a tensor of no dimension"


def run(student: nn.Module, teacher: nn.Module | None, objective: Objective, first: Chunk) -> bool:
    """Compute the loss of a few samples and differentiate it.

    Args:
        student: in train mode; its gradients are left clean.
        teacher: in eval mode, or None.
        objective: what is learned.
        first: some samples.

    Returns:
        Whether some parameters take no part in the loss.

    Raises:
        InputError: the outputs of the two differ in shape, or the user's loss is no loss.
        UsageError: a label is none of the model's, or the outputs can't be differentiated.
    """
    inputs = moved(first.inputs, _CPU)
    told = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = forward(student, inputs, len(first.positions))
        if teacher is not None:
            with torch.no_grad():
                told = objective.learned(teacher(*inputs))
            check_shapes(told, objective.learned(outputs))
        if objective.own is not None and objective.distill < 1:
            _check_own(objective.own(outputs, _targets(first)), student)
        loss = objective(outputs, _answers(told, outputs, objective, first))
    used = _differentiated(loss, student)
    return not all(used)


def outputs_for(student: nn.Module, piece: Chunk) -> Any:
    """What the student puts out in train mode for as few samples as it will ever see together. Raises as `forward`."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return forward(student, moved(piece.inputs, _CPU), len(piece.positions))


def forward(student: nn.Module, inputs: Inputs, count: int) -> Any:
    """Call the student in train mode.

    Args:
        student: or what wraps it in training.
        inputs: forward's arguments.
        count: how many samples they are, for the message.

    Raises:
        UsageError: it can't be trained on such a batch.
    """
    try:
        return student(*inputs)
    except (PeelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a forward raises in train mode
        if type(error).__module__.startswith("torch._"):  # torch.compile's own, see `loop.compiled`
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        samples = "a single sample" if count == 1 else f"{count} samples"
        raise UsageError(
            f"the slim model can't be run in train mode on {samples}: {what}",
            hint=_NORMS if _FEW in what else "see that model.train() and a call of it run without peel",
        ) from error


def _answers(told: tuple[Tensor, ...] | None, outputs: Any, objective: Objective, first: Chunk) -> Answers:
    if not objective.on_labels:
        return Answers(told, targets=_targets(first))
    assert first.targets is not None
    return Answers(told, labels=class_numbers(first.targets, main_output(outputs)))


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
    """Which of the trained parameters the loss depends on.

    Raises:
        UsageError: torch can't say.
    """
    trained = [p for p in student.parameters() if p.requires_grad]
    if not loss.requires_grad:
        return [False] * len(trained)
    try:
        found = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
    except (RuntimeError, NotImplementedError) as error:  # changed in place, singular, or an op without a derivative
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise UsageError(
            f"the slim model can't be differentiated: {type(error).__name__}: {' '.join(str(error).split())[:160]}",
            hint="see that loss.backward() runs on it without peel; or leave training away",
        ) from error
    return [gradient is not None for gradient in found]
