"""Samples as batches: from memory, or read by worker processes while the last batch is learned from."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset

from peelcli.samples import Inputs, Samples, shapes, together

_OUTSIDE = -1  # in place of a process's number, where a sample is read for no step
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Samples of the same shapes, for one forward call.

    Attributes:
        inputs: forward's arguments, tensors of shape (samples, ...).
        targets: one for each sample, or None where there are none.
        positions: of the samples in the data.
    """

    inputs: Inputs
    targets: list[Any] | None
    positions: list[int]


class Readable(Protocol):
    """Samples that are read when they are wanted."""

    labelled: bool
    steady: bool  # whether a sample is the same each time

    def __len__(self) -> int:
        """How many there are."""

    def read(self, position: int) -> tuple[Inputs, Any]:
        """Forward's arguments for one sample, tensors of shape (1, ...), and its target."""


class InMemory:
    """Samples that are there already."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self.labelled, self.steady = samples.targets is not None, True

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, position: int) -> tuple[Inputs, Any]:
        """One sample."""
        targets = self._samples.targets
        return self._samples.inputs[position], None if targets is None else targets[position]


class Part:
    """Some of the samples of another source."""

    def __init__(self, source: Readable, positions: Sequence[int]) -> None:
        self._source, self._positions = source, positions
        self.labelled, self.steady = source.labelled, source.steady

    def __len__(self) -> int:
        return len(self._positions)

    def read(self, position: int) -> tuple[Inputs, Any]:
        """One sample."""
        return self._source.read(self._positions[position])


class Still:
    """Another source outside of the steps: what is drawn while a sample is read depends on its position alone."""

    def __init__(self, source: Readable, seed: int) -> None:
        self._source, self._seed = source, seed
        self.labelled, self.steady = source.labelled, True

    def __len__(self) -> int:
        return len(self._source)

    def read(self, position: int) -> tuple[Inputs, Any]:
        """One sample, the same each time and in every run with this seed."""
        if not self._source.steady:
            reseed(self._seed, position, _OUTSIDE)
        return self._source.read(position)

    def samples(self, positions: Sequence[int], name: str, progress: Callable[[int, int], None]) -> Samples:
        """Some of them, in memory.

        Args:
            positions: which ones, in this order.
            name: where they come from, for messages.
            progress: given (samples read, samples in all).
        """
        rows = []
        for number, position in enumerate(positions, 1):
            rows.append(self.read(position))
            progress(number, len(positions))
        targets = tuple(target for _, target in rows) if self.labelled else None
        return Samples(tuple(inputs for inputs, _ in rows), name, targets)


@dataclass(frozen=True, slots=True)
class Reader:
    """How a run reads.

    Attributes:
        source: the samples.
        single: whether a forward call takes one sample only.
        workers: processes that read ahead; 0 reads in this one.
        pinned: whether memory is prepared for a fast copy to a GPU.
        seed: what is drawn while a step's samples are read depends on it, on the step and on the process alone.
    """

    source: Readable
    single: bool
    workers: int = 0
    pinned: bool = False
    seed: int = 0

    def steps(self, steps: range, part: Callable[[int], list[list[int]]], rank: int) -> Iterator[list[Chunk]]:
        """The chunks of each step in turn.

        Args:
            steps: their numbers.
            part: the positions that this process sees in a step: a list for each forward call, which becomes several
                where shapes differ.
            rank: of this process.
        """
        found = _Steps(self, steps, part, rank)
        if self.workers == 0:
            yield from (found[at] for at in range(len(found)))
        else:
            yield from DataLoader(
                found, batch_size=None, num_workers=self.workers, pin_memory=self.pinned, prefetch_factor=4
            )


class _Steps(Dataset[list[Chunk]]):
    """What one process sees of each step, a step an item."""

    def __init__(self, reader: Reader, steps: range, part: Callable[[int], list[list[int]]], rank: int) -> None:
        self._reader, self._numbers, self._part, self._rank = reader, steps, part, rank

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> list[Chunk]:
        reader, step = self._reader, self._numbers[index]
        if not reader.source.steady:
            reseed(reader.seed, step, self._rank)
        return [chunk for piece in self._part(step) for chunk in chunks(reader.source, piece, reader.single)]


def reseed(seed: int, step: int, rank: int) -> None:
    """Everything random in a step depends on these three alone, so that no state of it has to be kept."""
    number = zlib.crc32(repr((seed, step, rank)).encode())
    if torch.accelerator.is_available():
        torch.manual_seed(number)
    else:  # torch.manual_seed notes the whole call stack for a GPU that may come later: a millisecond a step
        torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def chunks(source: Readable, positions: Sequence[int], single: bool = False) -> Iterator[Chunk]:
    """The samples at these positions, in as few calls as their shapes allow."""
    read = [(position, *source.read(position)) for position in positions]
    alike: dict[str, list[tuple[int, Inputs, Any]]] = {}
    ragged = single or len({tuple(_sizes(inputs)) for _, inputs, _ in read}) > 1
    for row in read:
        key = f"{len(alike)}" if single else repr(shapes(row[1])) if ragged else ""
        alike.setdefault(key, []).append(row)
    for rows in alike.values():
        targets = [target for _, _, target in rows] if source.labelled else None
        yield Chunk(together([inputs for _, inputs, _ in rows]), targets, [position for position, _, _ in rows])


def _sizes(inputs: Inputs) -> Iterator[object]:
    """A quick look at what may differ between samples; `shapes` looks at all of it."""
    for value in inputs:
        yield value.shape if isinstance(value, torch.Tensor) else repr(shapes(value))


def moved(value: Any, device: torch.device) -> Any:
    """The same nest on a device, half precision as float32."""

    def move(tensor: torch.Tensor) -> torch.Tensor:
        wide = torch.float32 if tensor.dtype in _HALF else tensor.dtype
        return tensor.to(device, wide, non_blocking=True)

    return pytree.tree_map_only(torch.Tensor, move, value)
