"""Small models that export in a second, and a plan to go with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peelcli.records import Attribute, Costs, Cut, Group, Limit, ModelId, Plan, Slice, Subject


class ConvNet(nn.Module):
    """Ordinary and depthwise convolutions, norms, dropout, a residual."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.point(torch.relu(self.depthwise(x)))
        return self.head(nn.functional.dropout(x.mean((2, 3)), training=self.training))


class TwoInputs(nn.Module):
    """Two tensors and a switch in; a nest of tensors out."""

    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(3, 4, 3)
        self.extra = nn.Linear(6, 4)

    def forward(self, image, extra, is_scaled=False):
        a = self.image(image).mean((2, 3))
        b = self.extra(extra)
        return {"sum": a + b, "parts": (a * 2 if is_scaled else a, b)}


GROUP = Group(
    name="stem",
    layers=("stem", "norm"),
    full=16,
    step=8,
    floor=8,
    bundles=tuple((c,) for c in range(16)),
    slices=(Slice("stem.weight", 0, "out", tuple((c,) for c in range(16))),),
    attributes=(Attribute("stem", "out_channels", None, 1),),
)


@pytest.fixture
def plan():
    return Plan(
        model=ModelId("größe", "a" * 64, "b" * 64),
        inputs=("1x3x8x8",),
        settings=(("flops", "50%"),),
        budget=(Limit("macs", 1000), Limit("thop_macs", 1100)),
        before=Costs(2000, 200, 2100),
        predicted=Costs(990, 90, 1050),
        cuts=(Cut(GROUP, 8, tuple(range(0, 16, 2)), 0.5),),
    )


@pytest.fixture
def costs():
    return Costs(990, 90, 1050)


def subject_of(module, *inputs):
    return Subject(module, inputs or (torch.randn(1, 3, 8, 8),), "tiny")


@pytest.fixture
def conv_net():
    torch.manual_seed(0)
    return subject_of(ConvNet())


@pytest.fixture
def two_inputs():
    torch.manual_seed(0)
    return subject_of(TwoInputs(), torch.randn(2, 3, 8, 8), torch.randn(2, 6), True)
