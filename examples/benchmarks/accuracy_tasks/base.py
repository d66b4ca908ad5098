"""What a task is: a trained network, unlabelled samples to calibrate on, held-out ones to judge by."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

CACHE = Path(__file__).resolve().parents[1] / ".cache"
CALIBRATION = 512  # samples without labels
Figures = dict[str, float]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Data(NamedTuple):
    """The samples of one seed.

    Attributes:
        calibration: shape (up to 512, ...), without labels.
        test: shape (samples, ...); nothing of it is in `calibration`.
        truth: what is known of each test sample, shape (samples,), or None.
    """

    calibration: torch.Tensor
    test: torch.Tensor
    truth: torch.Tensor | None


@dataclass(frozen=True)
class Task:
    """A question with an answer in figures.

    Attributes:
        name: as on the command line.
        title: as in the page.
        shown: the figures of the page, the first is the one that decides; all are shares, or nats for "kl".
        build: the trained network of a seed, in eval mode.
        data: the samples of a seed.
        judge: (outputs, the unpruned network's outputs, truth) -> figures; outputs of shape (samples, classes).
        loss: of outputs and classes (batch,), for methods that need gradients.
        outputs: modules whose outputs may not shrink, beside the last linear layer; for tools that must be told.
        batch: samples of a forward pass; what fits the processor's caches is fastest.
        plain: the network made of torch's own classes, the same function, for tools that know no others.
    """

    name: str
    title: str
    shown: tuple[str, ...]
    build: Callable[[int], nn.Module]
    data: Callable[[int], Data]
    judge: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], Figures]
    loss: Loss = field(default=nn.functional.cross_entropy)
    outputs: tuple[str, ...] = ()
    batch: int = 64
    plain: Callable[[nn.Module], nn.Module] = field(default=deepcopy)


def forward(module: nn.Module, inputs: torch.Tensor, batch: int) -> torch.Tensor:
    """Outputs of all samples, a batch at a time, without gradients."""
    with torch.no_grad():
        return torch.cat([module(part) for part in inputs.split(batch)])


def agreement(outputs: torch.Tensor, dense: torch.Tensor) -> float:
    """Share of the samples for which both have the same largest output; shapes (samples, classes)."""
    return share(outputs.argmax(1) == dense.argmax(1))


def share(hits: torch.Tensor) -> float:
    """Share of true entries."""
    return float(hits.double().mean())


def digest(*parts: object) -> str:
    """Twelve hex digits that change when one of the parts does; parts must print all that they are."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:12]


def weights_digest(module: nn.Module) -> str:
    """Twelve hex digits of all parameters and buffers."""
    text = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        text.update(name.encode() + tensor.numpy().tobytes())
    return text.hexdigest()[:12]


def cached(name: str, make: Callable[[], Any]) -> Any:
    """What `make` returned the first time; tensors and plain containers of them. Written beside and renamed."""
    path = CACHE / f"{name}.pt"
    if path.exists():
        return torch.load(path)
    value = make()
    CACHE.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as file:
        torch.save(value, file)
    Path(file.name).replace(path)
    return value
