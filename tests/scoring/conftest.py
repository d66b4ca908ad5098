"""A model so small that every score can be worked out by hand, and its graph, written by hand as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from peelcli.records import ChannelGraph, CostModel, Group, Locked, Role, Slice, Subject
from peelcli.samples import Samples

NO_COST = CostModel(macs=(), params=(), thop=())


def one_each(count: int, start: int = 0) -> tuple[tuple[int, ...], ...]:
    """Channel i owns entry start + i."""
    return tuple((start + i,) for i in range(count))


def group_of(name: str, full: int, *slices: tuple[str, int, Role, tuple[tuple[int, ...], ...]]) -> Group:
    """A group with one channel a bundle."""
    return Group(
        name=name,
        layers=tuple(dict.fromkeys(tensor.rpartition(".")[0] for tensor, *_ in slices)),
        full=full,
        step=1,
        floor=1,
        bundles=one_each(full),
        slices=tuple(Slice(*piece) for piece in slices),
        attributes=(),
    )


def graph_of(*groups: Group) -> ChannelGraph:
    return ChannelGraph(groups, NO_COST)


class Tiny(nn.Sequential):
    """conv1 (1 -> 3, kernel 1x2), BatchNorm, conv2 (3 -> 2), linear (2 -> 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, (1, 2))
        self.bn1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(2, 1)
        with torch.no_grad():
            self.conv1.weight.copy_(torch.tensor([[3.0, 4], [0, 0], [-1, 1]]).view(3, 1, 1, 2))
            self.bn1.weight.copy_(torch.tensor([1.0, -2, 0.5]))
            self.conv2.weight.copy_(torch.tensor([[1.0, -2, 0], [3, 2, 0]]).view(2, 3, 1, 1))
            self.fc.weight.copy_(torch.tensor([[-4.0, 2]]))
            self.conv1.bias.copy_(torch.tensor([1.0, 0.5, -2]))
            self.conv2.bias.copy_(torch.tensor([0.25, -1]))
            self.fc.bias.fill_(3.0)


@pytest.fixture
def subject() -> Subject:
    return Subject(Tiny(), (torch.zeros(1, 1, 4, 4),), "tiny")


@pytest.fixture
def graph() -> ChannelGraph:
    first = group_of(
        "conv1",
        3,
        ("conv1.weight", 0, "out", one_each(3)),
        ("conv1.bias", 0, "out", one_each(3)),
        ("bn1.weight", 0, "out", one_each(3)),
        ("bn1.bias", 0, "out", one_each(3)),
        ("bn1.running_mean", 0, "out", one_each(3)),
        ("bn1.running_var", 0, "out", one_each(3)),
        ("conv2.weight", 1, "in", one_each(3)),
    )
    second = group_of("conv2", 2, ("conv2.weight", 0, "out", one_each(2)), ("fc.weight", 1, "in", one_each(2)))
    return graph_of(first, second)


@pytest.fixture
def samples_of() -> Callable[..., Samples]:
    """Random inputs of one sample each in the shape and dtype that a subject's own input has."""

    def draw(subject: Subject, count: int = 6, targets: tuple[int, ...] | None = None) -> Samples:
        generator = torch.Generator().manual_seed(11)
        dtype = next(subject.module.parameters()).dtype
        shape = (1, *subject.inputs[0].shape[1:])
        drawn = [torch.randint(-8, 9, shape, generator=generator).to(dtype) / 4 for _ in range(count)]
        return Samples(tuple((x,) for x in drawn), "drawn", targets)

    return draw


@pytest.fixture
def make_group() -> Callable[..., Group]:
    return group_of


@pytest.fixture
def lock_all() -> Callable[[ChannelGraph], ChannelGraph]:
    return lambda graph: replace(
        graph, groups=tuple(replace(group, locked=Locked("for the test")) for group in graph.groups)
    )
