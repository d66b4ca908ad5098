"""What a step is judged by when its samples were blended."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peelcli.training import lesson
from peelcli.training.augment import Augment
from peelcli.training.feed import Chunk
from peelcli.training.lesson import Lesson
from peelcli.training.objective import Objective
from tests.support.lessons import images

COUNT = 6
TARGETS = {
    "tensors": lambda n: torch.tensor([float(n)]),
    "numbers": lambda n: n,
    "dicts": lambda n: {"map": torch.full((2, 2), float(n)), "more": {"rest": torch.tensor(n)}},
    "pairs": lambda n: (torch.full((3,), float(n)), torch.tensor(n)),
    "lists as long as the batch": lambda n: [torch.tensor(n)] * COUNT,
    "of many lengths": lambda n: {"boxes": torch.full((n, 4), float(n))},
    "names": lambda n: f"sample {n}",
}


def numbers(value):
    """Which samples a nest of targets is of, by what stands in it."""
    if isinstance(value, dict):
        return numbers(next(iter(value.values())))
    if isinstance(value, torch.Tensor) and value.dim():
        return [len(value)] if value.dim() == 2 and value.shape[1] == 4 else [int(row.flatten()[0]) for row in value]
    if isinstance(value, torch.Tensor):
        return [int(value)]
    if isinstance(value, str):
        return [int(value.split()[1])]
    if isinstance(value, tuple) or isinstance(value[0], torch.Tensor):
        return numbers(value[0])
    return [number for each in value for number in numbers(each)]


@pytest.mark.parametrize("kind", TARGETS, ids=[name.replace(" ", "-") for name in TARGETS])
def test_partners_bring_their_own_targets_whatever_these_are(kind):
    """Twice the loss: for the samples themselves, and for those that were blended in, each by its share."""
    seen = []

    def own(outputs, targets):
        seen.append(numbers(targets))
        return outputs.sum() * 0 + len(seen)

    x = torch.arange(1.0, COUNT + 1)[:, None]
    chunk = Chunk((x,), [TARGETS[kind](n) for n in range(1, COUNT + 1)], list(range(COUNT)))
    blended = []
    layer = nn.Linear(1, 1)
    layer.register_forward_pre_hook(lambda _, args: blended.append(args[0].flatten()))
    loss = Lesson(Objective("values", 0.0, own=own), None, Augment((), 0), 0.4, 0)(layer, chunk, 3, range(COUNT))
    themselves, partners = seen
    share = 2 - loss.item()
    assert themselves == list(range(1, COUNT + 1))
    assert sorted(partners) == themselves != partners
    mean = share * torch.tensor(themselves) + (1 - share) * torch.tensor(partners)
    assert blended[0].tolist() == pytest.approx(mean.tolist(), rel=1e-4)


def test_partners_bring_their_own_labels(monkeypatch):
    x = images(COUNT)
    labels = list(range(COUNT))

    def of(targets, _outputs):
        seen.append(list(targets))
        return torch.tensor(targets)

    seen = []
    monkeypatch.setattr(lesson, "class_numbers", of)
    chunk = Chunk((x,), labels, labels)
    head = nn.Sequential(nn.Flatten(), nn.Linear(64, COUNT))
    Lesson(Objective("logits", 0.0), None, Augment((), 0), 0.4, 0)(head, chunk, 3, labels)
    assert seen[0] == labels
    assert sorted(seen[1]) == labels != seen[1]


def test_what_can_not_be_blended_keeps_its_targets():
    """Token ids come as they are: their partners' targets have no part in the loss."""
    seen = []

    def own(outputs, targets):
        seen.append(targets.flatten().tolist())
        return outputs.sum()

    ids = torch.arange(COUNT)[:, None]
    chunk = Chunk((ids,), [torch.tensor([n]) for n in range(COUNT)], list(range(COUNT)))
    Lesson(Objective("values", 0.0, own=own), None, Augment((), 0), 0.4, 0)(nn.Embedding(6, 2), chunk, 3, range(COUNT))
    assert seen == [list(range(COUNT))]
