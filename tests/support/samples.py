"""What tests on calibration samples share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from peelcli.errors import InputError
from peelcli.samples import Samples
from peelcli.sources.data import load_samples
from peelcli.tensors import tensors_in


def refused(*arguments: Any) -> InputError:
    """What load_samples says of data that it does not take: one line, and a hint."""
    with pytest.raises(InputError) as caught:
        load_samples(*arguments)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def distance(one: nn.Module, two: nn.Module, samples: Samples) -> float:
    """Of the outputs, relative to the size of the first one's."""
    apart = size = 0.0
    with torch.no_grad():
        for inputs in samples.inputs:
            for a, b in zip(tensors_in(one(*inputs)), tensors_in(two(*inputs)), strict=True):
                apart += float((a - b).double().square().sum())
                size += float(a.double().square().sum())
    return (apart / max(size, 1e-30)) ** 0.5


class Detector(nn.Module):
    """Takes a list of images, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, images: list[torch.Tensor], targets: Any = None) -> list[torch.Tensor]:
        return [self.conv(image) for image in images]
