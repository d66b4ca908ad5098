"""Which samples a step sees: the same ones whatever number of processes share them, and wherever a run is resumed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from peelcli.patches import generator


@dataclass(frozen=True, slots=True)
class Order:
    """A run's batches.

    Attributes:
        samples: there are so many.
        batch: samples of one step, over all processes; at most `samples`.
        steps: of the whole run.
        seed: of the order within each epoch.
    """

    samples: int
    batch: int
    steps: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """What is left over at the end of an epoch is not seen in it."""
        return self.samples // self.batch

    def epoch(self, step: int) -> float:
        """Epochs that are done after so many steps."""
        return step / self.steps_per_epoch

    def positions(self, step: int) -> list[int]:
        """The samples of a step, from 0 on."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return _permutation(self.samples, self.seed, epoch)[within * self.batch : (within + 1) * self.batch]

    def part(self, step: int, rank: int, ranks: int, pieces: int) -> list[list[int]]:
        """What one process sees of a step, in as many pieces as gradients are added up over."""
        mine = self.positions(step)[rank::ranks]
        size = max(1, math.ceil(len(mine) / pieces))
        return [mine[start : start + size] for start in range(0, len(mine), size)]


@lru_cache(maxsize=2)
def _permutation(samples: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = torch.randperm(samples, generator=generator(seed, "epoch", epoch)).tolist()
    return order
