"""A small network as a file, and samples for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)).eval()
    torch.save(net, tmp_path / "net.pt")
    torch.save(torch.randn(20, 3, 8, 8), tmp_path / "samples.pt")
    return tmp_path / "net.pt"
