"""Labels of one tensor, and how they move when its shape changes.

A factor says for every element of a tensor which label it carries: an int64 array of the same rank, of size 1 along
the dimensions in which the label does not change. A convolution's weight (out, in, 3, 3) has one factor of shape
(out, 1, 1, 1) and one of shape (1, in, 1, 1): an element goes when either of its labels does. After a view that splits
768 channels into 12 heads of 64, the one factor has shape (1, 1, 12, 64): it is joint, and what is removed has to stay
rectangular, whole heads or the same positions of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peelcli.graph.labels.classes import Classes, Ids, Obstacle

Factor = Ids  # of the rank of its tensor
PLAIN, COMPUTED = 1, 2


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of one tensor.

    Attributes:
        factors: no two of them vary along the same dimension.
        weight: whether the tensor is made of parameters and constants alone, without the model's input: 0 if not,
            PLAIN where its elements are those of parameters, COMPUTED where arithmetic made them.
    """

    factors: tuple[Factor, ...] = ()
    weight: int = 0

    def along(self, dim: int) -> Factor | None:
        """The factor that varies along a dimension."""
        return next((f for f in self.factors if f.shape[dim] > 1), None)


def varying(factor: Factor) -> tuple[int, ...]:
    """The dimensions along which the label changes."""
    return tuple(dim for dim, size in enumerate(factor.shape) if size > 1)


def narrow(factor: Factor, dim: int, start: int, size: int) -> Factor:
    """A part along one dimension."""
    return factor[(slice(None),) * dim + (slice(start, start + size),)]


def line(factor: Factor) -> Ids:
    """The labels of a factor that varies along one dimension, in order."""
    return factor.ravel()


def along_dim(factor: Factor, dim: int) -> Factor:
    """The factor as one line along `dim`, of what else it varies along the first index."""
    for other in varying(factor):
        if other != dim:
            factor = narrow(factor, other, 0, 1)
    return factor


def compact(factor: Factor) -> Factor:
    """Size 1 along every dimension in which nothing changes."""
    for dim in varying(factor):
        first = narrow(factor, dim, 0, 1)
        if (factor == first).all():
            factor = first
    return factor


def settled(factor: Factor, classes: Classes) -> Factor:
    """The factor without the dimensions along which its labels have become one class."""
    if factor.size == 1:
        return factor
    roots = classes.find(factor)
    for dim in varying(factor):
        first = narrow(roots, dim, 0, 1)
        if (roots == first).all():
            factor, roots = narrow(factor, dim, 0, 1), first
    return factor


def collapse(factor: Factor, keep: Sequence[int], classes: Classes, obstacle: Obstacle) -> Factor:
    """Make one class of all labels that differ only outside `keep`; the factor then varies along `keep` alone."""
    first = factor
    for dim in varying(factor):
        if dim not in keep:
            first = narrow(first, dim, 0, 1)
    if first.shape != factor.shape:
        classes.unite(factor, first, obstacle)
    return first


def aligned(factor: Factor, rank: int) -> Factor:
    """The factor with dimensions of size 1 in front, as broadcasting puts them."""
    return factor.reshape((1,) * (rank - factor.ndim) + factor.shape)


def reshaped(factor: Factor, old: Sequence[int], new: Sequence[int]) -> Factor:
    """The factor of a tensor of shape `old` after a view as `new`.

    Dimensions are matched in blocks of equal size, and labels are written out only in the blocks where they change.
    """
    pieces: list[int] = []
    expanded = list(factor.shape)
    for olds, news in _blocks(old, new):
        if any(factor.shape[d] > 1 for d in olds):
            for d in olds:
                expanded[d] = old[d]
            pieces.extend(new[d] for d in news)
        else:
            pieces.extend(1 for _ in news)
    return compact(np.broadcast_to(factor, expanded).reshape(pieces))


def written_out(factor: Factor, old: Sequence[int], new: Sequence[int]) -> int:
    """How many labels `reshaped` has to write out for such a view."""
    sizes = [math.prod(old[d] for d in olds) for olds, _ in _blocks(old, new) if any(factor.shape[d] > 1 for d in olds)]
    return math.prod(sizes)


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of dimensions on both sides whose products agree, as short as possible."""
    blocks = []
    i = j = 0
    while i < len(old) or j < len(new):
        olds, news = [], []
        a = b = 1
        if i < len(old):
            a, olds = old[i], [i]
            i += 1
        if j < len(new):
            b, news = new[j], [j]
            j += 1
        while a != b:
            if (a < b and i < len(old)) or j >= len(new):
                a *= old[i]
                olds.append(i)
                i += 1
            else:
                b *= new[j]
                news.append(j)
                j += 1
        blocks.append((olds, news))
    return blocks
