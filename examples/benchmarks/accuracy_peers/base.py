"""What a method is given, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from accuracy_tasks.base import Loss
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from peelcli.graph.count import count_macs, count_params

BATCH = 64


class Job(NamedTuple):
    """A network, samples without labels, and the budget.

    Attributes:
        module: trained, in eval mode; a method works on a copy.
        example: one sample, shape (1, ...).
        calibration: shape (samples, ...).
        share: of the module's multiply-adds, the most that the slim one may cost.
        seed: of everything random.
        loss: of outputs and classes, for methods that need gradients; classes are the module's own answers.
        outputs: modules beside the last linear layer whose outputs a tool must be told to leave alone.
        name: of the task and seed, for what a method keeps.
        batch: samples of a forward pass that is fastest.
        plain: makes the network of torch's own classes, for a tool that knows no others.
    """

    module: nn.Module
    example: torch.Tensor
    calibration: torch.Tensor
    share: float
    seed: int
    loss: Loss
    outputs: tuple[str, ...]
    name: str
    batch: int
    plain: Callable[[nn.Module], nn.Module]


Method = Callable[[Job], nn.Module]


class OutOfReach(Exception):
    """The method has no model of that cost; an answer, not a failure."""


def costs(module: nn.Module, example: torch.Tensor) -> tuple[int, int]:
    """Multiply-adds by torch's counter, on shapes alone, and parameters."""
    from copy import deepcopy

    shapes = deepcopy(module).to("meta")
    return count_macs(shapes, (example.to("meta"),)), count_params(module)


def batches(samples: torch.Tensor) -> Iterator[torch.Tensor]:
    """All samples, in their order, shape (up to 64, ...)."""
    yield from samples.split(BATCH)


@contextmanager
def _accumulating(norms: list[_BatchNorm]) -> Iterator[None]:
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    yield
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
        norm.eval()


def reestimate_norms(module: nn.Module, samples: torch.Tensor) -> nn.Module:
    """Give BatchNorm the means and variances that the slim network has on these samples; the module is changed."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    with torch.no_grad(), _accumulating(norms):
        for batch in batches(samples):
            module(batch)
    return module
