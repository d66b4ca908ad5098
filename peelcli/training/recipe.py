"""How weights are moved: which optimizer at which rate, with which weights decayed, and their running average."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from peelcli.regimen import Training

SGD_RATE, ADAMW_RATE = 0.03, 1e-3  # for a batch of 64
SGD_DECAY, ADAMW_DECAY = 1e-4, 0.01
GENTLE = 1 / 3  # of the rate, for a model that is good as it comes
_BATCH = 64
_MOMENTUM = 0.9


def optimizer_name(module: nn.Module, training: Training) -> str:
    """What "auto" stands for: SGD for networks that are normed over the batch in training, AdamW for all others.

    Convolutional networks with BatchNorm are trained with SGD and momentum nearly everywhere, transformers and networks
    without norms with AdamW: the choice is usual; that BatchNorm decides it is ours.
    """
    if training.optimizer != "auto":
        return training.optimizer
    kinds = [type(child) for child in module.modules()]
    normed = any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)
    layers = any(issubclass(kind, nn.LayerNorm) for kind in kinds)
    return "sgd" if normed and not layers and training.batchnorm != "frozen" else "adamw"


def peak_rate(name: str, training: Training, gentle: bool = False) -> float:
    """The learning rate after warm-up: as asked, else linear in the batch for SGD, with its square root for AdamW.

    Source: linear scaling, Goyal et al., arXiv:1706.02677; the square root for Adam, Malladi et al., arXiv:2205.10287.

    Args:
        name: of the optimizer.
        training: the settings.
        gentle: whether SGD starts from a model that is good as it comes: a third, which is ours.
    """
    if training.rate is not None:
        return training.rate
    scale = training.batch / _BATCH
    return SGD_RATE * scale * (GENTLE if gentle else 1.0) if name == "sgd" else ADAMW_RATE * math.sqrt(scale)


def make_optimizer(module: nn.Module, name: str, training: Training) -> torch.optim.Optimizer:
    """An optimizer of the parameters that require gradients; biases, norms and other vectors are not decayed."""
    trained = [p for p in module.parameters() if p.requires_grad]
    default = SGD_DECAY if name == "sgd" else ADAMW_DECAY
    decay = default if training.weight_decay is None else training.weight_decay
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = peak_rate(name, training)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=rate)


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """The share of the peak rate at a step, from 0 on: a line up during warm-up, then half a cosine down to 0.

    Source: Loshchilov and Hutter, arXiv:1608.03983, without restarts.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class Average:
    """A running average of weights and of the norms' statistics.

    After n steps the weight of the newest is 1 - min(decay, (1 + n) / (10 + n)): young averages forget their start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start from the module's own state; decay 0 follows it at once."""
        self._decay = decay
        self._live = dict(_state(module))
        self.state = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._floating = [name for name, tensor in self._live.items() if tensor.is_floating_point()]
        self._averages = [self.state[name] for name in self._floating]
        self._sources = [self._live[name].detach() for name in self._floating]
        self._others = [name for name, tensor in self._live.items() if not tensor.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the module's state after the step with this number, from 0 on."""
        decay = min(self._decay, (1 + step) / (10 + step))
        if self._averages:
            torch._foreach_lerp_(self._averages, self._sources, 1 - decay)
        for name in self._others:
            self.state[name].copy_(self._live[name])

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take an average that was saved."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])


def _state(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Entries of the state dict that are tensors, the same objects that the module uses."""
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor):
            yield name, value
