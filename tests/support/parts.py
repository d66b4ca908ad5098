"""What the test networks are made of, and the table that they enter themselves in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, tuple[Any, ...]]

NETS: dict[str, Callable[[], Made]] = {}


def net(maker: Callable[[], Made]) -> Callable[[], Made]:
    """Enter a maker of a network and its inputs in the table under its own name."""
    NETS[maker.__name__] = maker
    return maker


class Lambda(nn.Module):
    """A module from a function of itself and its inputs."""

    def __init__(self, function: Callable[..., Any], **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def image(batch: int = 1, channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.randn(batch, channels, size, size)


def conv_bn(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
    )


def head(channels: int, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
