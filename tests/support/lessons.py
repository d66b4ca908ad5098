"""A small network that has something to teach, its slim version, and samples: what tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import peelcli as peel

SIDE = 8
CLASSES = 4


def network(norm: bool = True) -> nn.Sequential:
    """Convolutions on 1x8x8 images, four classes; smooth, so that float errors stay small."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh()]
    layers += [nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Tanh()]
    if not norm:
        layers = [layer for layer in layers if not isinstance(layer, nn.BatchNorm2d)]
    made = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, CLASSES))
    nn.init.normal_(made[-1].weight)
    with torch.no_grad():
        made.train()(images(256, seed=9))
    return made.eval()


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Shape (count, 1, 8, 8)."""
    return torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def pruned(model: nn.Module, out: Any = ()) -> Any:
    """Half of it, without repair: there is much to learn."""
    return peel.prune(model, images(1), flops="50%", align=4, score="l2", allocate="uniform", out=out)


def lay_out(folder: Path, norm: bool = True) -> None:
    """model.pt, slim.safetensors, slim.pt, x.npy and xy.pt (with labels), in a folder."""
    import numpy as np

    model = network(norm)
    torch.save(model, folder / "model.pt")
    pruned(model, [folder / "slim.safetensors", folder / "slim.pt"])
    x = images(120)
    np.save(folder / "x.npy", x.numpy())
    with torch.no_grad():
        torch.save({"x": x, "labels": model(x).argmax(1)}, folder / "xy.pt")
