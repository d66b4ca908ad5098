"""Small models that the data goes to, and files of the user's."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch
from torch import nn

from peelcli.records import Subject


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, ids, image, labels=None, scale=1.0):
        return self.fc(self.table(ids).mean(1)) * scale + image.mean()


@pytest.fixture
def pictures():
    """Takes 1x3x16x16, in train mode."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Subject(net.train(), (torch.randn(1, 3, 16, 16),), "pictures")


@pytest.fixture
def vectors():
    """Takes 2x7."""
    return Subject(nn.Linear(7, 3), (torch.randn(2, 7),), "vectors")


@pytest.fixture
def tokens():
    """Takes ids, 1x5, below 10."""
    net = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(20, 2))
    return Subject(net, (torch.zeros(1, 5, dtype=torch.int64),), "tokens")


@pytest.fixture
def two():
    """Takes ids and an image; labels, which the example lacks, and a scale, which it has."""
    example = (torch.zeros(1, 5, dtype=torch.int64), torch.randn(1, 3, 8, 8), None, 0.5)
    return Subject(TwoInputs(), example, "two")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a Python file into a folder of its own; what it adds to sys.modules goes away again."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)

    def write(text, name="own.py"):
        (tmp_path / name).write_text(textwrap.dedent(text))
        return f"{name}:give"

    yield write
    for name in set(sys.modules) - before:
        if name == "own" or name.startswith("peel_code"):
            del sys.modules[name]
