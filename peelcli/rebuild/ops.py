"""Operations whose integers follow the widths, each a module: the integers are attributes, read at run time.

A pruned channel changes the sizes that an export has baked into its views. Here they can be changed. The classes are
copied as they stand into the files that `source.text` writes, so each needs nothing but torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

GIVEN = 0  # in `sizes`: this one comes as an argument of the call, in order


class Reshape(nn.Module):
    """The same elements in another shape; a size of 0 is an argument of the call, -1 is what is left."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: torch.Tensor, *given: int) -> torch.Tensor:
        """Fill the zeros with what is given."""
        if not given:
            return x.reshape(self.sizes)
        rest = iter(given)
        return x.reshape([next(rest) if size == 0 else size for size in self.sizes])


class Expand(nn.Module):
    """Repeat along dimensions of size 1; -1 keeps a size, 0 is an argument of the call."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: torch.Tensor, *given: int) -> torch.Tensor:
        """Fill the zeros with what is given."""
        rest = iter(given)
        return x.expand([next(rest) if size == 0 else size for size in self.sizes])


class Repeat(nn.Module):
    """Copies along each dimension; 0 is an argument of the call."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: torch.Tensor, *given: int) -> torch.Tensor:
        """Fill the zeros with what is given."""
        rest = iter(given)
        return x.repeat([next(rest) if size == 0 else size for size in self.sizes])


class Unflatten(nn.Module):
    """One dimension as several."""

    def __init__(self, dim: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = dim
        self.sizes = sizes

    def forward(self, x: torch.Tensor, *given: int) -> torch.Tensor:
        """Fill the zeros with what is given."""
        rest = iter(given)
        split: torch.Tensor = x.unflatten(self.dim, [next(rest) if size == 0 else size for size in self.sizes])
        return split


class Slice(nn.Module):
    """Entries start, start + step, ... below stop of one dimension."""

    def __init__(self, dim: int, start: int, stop: int | None, step: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.start = start
        self.stop = stop
        self.step = step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All other dimensions stay whole."""
        index = [slice(None)] * x.dim()
        index[self.dim] = slice(self.start, self.stop, self.step)
        return x[tuple(index)]


class Split(nn.Module):
    """Pieces of one dimension: of one size each, or of these sizes."""

    def __init__(self, sizes: int | tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.dim = dim

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The last piece may be smaller where one size is given."""
        sizes = self.sizes if isinstance(self.sizes, int) else list(self.sizes)
        pieces: tuple[torch.Tensor, ...] = x.split(sizes, self.dim)
        return pieces


class Pad(nn.Module):
    """More entries with one value; sizes as torch.nn.functional.pad takes them."""

    def __init__(self, sizes: tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pairs of sizes, the last dimension first."""
        return nn.functional.pad(x, list(self.sizes), "constant", self.value)


class Filled(nn.Module):
    """A new tensor with one value in it; a size of 0 is an argument of the call."""

    def __init__(self, sizes: tuple[int, ...], value: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.sizes = sizes
        self.value = value
        self.dtype = dtype

    def forward(self, *given: int) -> torch.Tensor:
        """Fill the zeros with what is given."""
        rest = iter(given)
        return torch.full([next(rest) if size == 0 else size for size in self.sizes], self.value, dtype=self.dtype)


class Times(nn.Module):
    """A size times a number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, size: int) -> int:
        """Of integers."""
        return size * self.number


class Over(nn.Module):
    """A size divided by a number, rounded down."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, size: int) -> int:
        """Of integers."""
        return size // self.number


ALL: tuple[Any, ...] = (Reshape, Expand, Repeat, Unflatten, Slice, Split, Pad, Filled, Times, Over)
