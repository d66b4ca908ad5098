"""Which samples a step sees: the same ones whatever number of processes share them, and wherever a run is resumed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

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
        """What one process sees of a step, in as many pieces as gradients are added up over.

        The pieces are as large as each other, to a sample: norms over the batch suffer by small ones.
        """
        mine = self.positions(step)[rank::ranks]
        pieces = min(pieces, len(mine))
        edges = [piece * len(mine) // pieces for piece in range(pieces + 1)] if mine else []
        return [mine[start:end] for start, end in pairwise(edges)]


def smallest_piece(batch: int, ranks: int, pieces: int) -> int:
    """The least samples that one forward call of any process gets, at least 1."""
    return max(1, batch // ranks // pieces)


@lru_cache(maxsize=2)
def _permutation(samples: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = torch.randperm(samples, generator=generator(seed, "epoch", epoch)).tolist()
    return order
