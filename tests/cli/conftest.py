"""Models of the kind that users have, as files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn


def small_cnn() -> nn.Sequential:
    """Two convolutions, a pool and a head, of torch's own classes, so that its pickle needs no code."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.a = nn.Conv2d(3, width, 3, padding=1)
        self.n = nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.b(self.n(self.a(x)).relu()).relu().mean((2, 3)))

class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 16, 3)
        self.right = nn.Linear(8, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, image, vector):
        return self.head(self.left(image).relu().mean((2, 3)) + self.right(vector).relu())

def make(): return Net()
def wide(): return Net(24)
def two(): return TwoInputs()
def broken(): raise RuntimeError("no licence\\nfor this")
def nothing(): return 42
def frozen():
    net = Net()
    return net.requires_grad_(False)
def half(): return Net().half()
def bfloat(): return Net().bfloat16()
def fixed():
    return nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    model = small_cnn()
    torch.save(model, folder / "model.pt")
    (folder / "net.py").write_text(FACTORY, "utf-8")
    namespace: dict = {}
    exec(FACTORY, namespace)
    torch.save(namespace["make"]().state_dict(), folder / "state.pt")
    return folder


@pytest.fixture
def models(_made: Path, tmp_path: Path) -> Path:
    """A folder of the test's own: model.pt (a pickled module), net.py (factories), state.pt (for net.py:make)."""
    shutil.copytree(_made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def files_in(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, to see that nothing changed."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "__pycache__" not in p.parts
    }
