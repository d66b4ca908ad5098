"""Calibration samples: what the model sees in use, a few hundred of it, with or without labels."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch.utils import _pytree as pytree

from peelcli.tensors import is_list_of_samples

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class Samples:
    """Inputs of a model, one by one, on the CPU.

    Attributes:
        inputs: for each sample the positional arguments of one forward call, tensors of shape (1, ...).
        name: where they come from, for messages.
        targets: for each sample what the user's data set says of it, or None for data without labels.
        notes: what was guessed, skipped or changed while reading, one sentence each.
        single: True for a model that takes one sample at a time.
    """

    inputs: tuple[Inputs, ...]
    name: str
    targets: tuple[Any, ...] | None = None
    notes: tuple[str, ...] = ()
    single: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    def some(self, positions: Sequence[int]) -> Samples:
        """The samples at these positions, in this order."""
        targets = None if self.targets is None else tuple(self.targets[p] for p in positions)
        return replace(self, inputs=tuple(self.inputs[p] for p in positions), targets=targets)

    def split(self, every: int) -> tuple[Samples, Samples]:
        """Those to fit on, and one of every so many, which is held out to judge what was fitted; at least one."""
        held = spread(len(self), max(1, len(self) // every))
        return self.some([p for p in range(len(self)) if p not in set(held)]), self.some(held)

    def batches(self, size: int) -> Iterator[Inputs]:
        """Forward arguments of up to `size` samples at a time; samples of another shape start a new batch.

        One at a time where the model takes no more.
        """
        return (inputs for inputs, _ in self.counted_batches(size))

    def counted_batches(self, size: int) -> Iterator[tuple[Inputs, int]]:
        """The same, each with the number of samples in it."""
        size = 1 if self.single else size
        start = 0
        while start < len(self):
            stop, shape = start + 1, shapes(self.inputs[start])
            while stop < min(len(self), start + size) and shapes(self.inputs[stop]) == shape:
                stop += 1
            yield together(self.inputs[start:stop]), stop - start
            start = stop


def spread(count: int, most: int) -> list[int]:
    """At most so many of `count` positions: one drawn from each of as many equal parts, the same ones every time.

    Spread, so that every class of a sorted list occurs; drawn, because every second or fifth of a list in which the
    classes take turns would be of a few classes only.
    """
    if count <= most:
        return list(range(count))
    source = random.Random(count)
    edges = [part * count // most for part in range(most + 1)]
    return [source.randrange(start, end) for start, end in pairwise(edges)]


def shapes(value: Any) -> Any:
    """Shape and dtype of every tensor, and every other leaf as it is: samples that are equal here make one batch."""
    leaves, spec = pytree.tree_flatten(value)
    return [(leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else repr(leaf) for leaf in leaves], str(spec)


def together(inputs: Sequence[Inputs]) -> Inputs:
    """One batch of several samples of the same shapes; what is no tensor is taken from the first."""
    if len(inputs) == 1:
        return inputs[0]
    joined = []
    for values in zip(*inputs, strict=True):
        if is_list_of_samples(values[0]):
            joined.append([image for images in values for image in images])
        else:
            joined.append(pytree.tree_map(_one_batch, *values))
    return tuple(joined)


def _one_batch(*leaves: Any) -> Any:
    return torch.cat(leaves) if isinstance(leaves[0], torch.Tensor) and leaves[0].dim() else leaves[0]


# --- results of several calls as one


def joined(outputs: list[Any]) -> Any:
    """Outputs of several calls as those of one, along the first dimension."""
    return _merged(outputs, lambda *parts: torch.cat(parts), least=1)


def stacked(targets: list[Any]) -> Any:
    """Targets of single samples as one tensor, with a first dimension for the samples."""
    if targets and all(isinstance(t, (bool, int, float)) for t in targets):
        return torch.tensor(targets)
    return _merged(targets, lambda *parts: torch.stack(parts), least=0)


def _merged(values: list[Any], merge: Callable[..., torch.Tensor], least: int) -> Any:
    """One nest of tensors in place of several of the same structure; the list where they are not."""
    flat = [pytree.tree_flatten(value) for value in values]
    if not flat or any(spec != flat[0][1] for _, spec in flat):
        return values
    columns = list(zip(*(leaves for leaves, _ in flat), strict=True))
    if not columns or not all(_mergeable(column, least) for column in columns):
        return values
    return pytree.tree_unflatten([merge(*column) for column in columns], flat[0][1])


def _mergeable(leaves: Sequence[Any], least: int) -> bool:
    """Whether all are tensors of one shape, the batch (if `least` is 1) excluded."""
    first = leaves[0]
    return all(
        isinstance(leaf, torch.Tensor)
        and leaf.dim() >= least
        and leaf.dim() == first.dim()
        and leaf.shape[least:] == first.shape[least:]
        and leaf.dtype == first.dtype
        for leaf in leaves
    )
