"""Layers for what ONNX has as ops with sizes in them: each size is an attribute, read when the layer runs.

A size of GIVEN is not fixed: forward is handed it, in order.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

GIVEN = -(2**62)

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "rsub": lambda a, b: b - a,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "rfloordiv": lambda a, b: b // a,
    "mod": operator.mod,
}


def filled(sizes: Sequence[int], given: Sequence[int]) -> list[int]:
    """The sizes, with those that forward was handed in their places."""
    waiting = iter(given)
    return [next(waiting) if size == GIVEN else size for size in sizes]


class Arithmetic(nn.Module):
    """A size and a fixed number, or two sizes."""

    def __init__(self, op: str, number: int = 0) -> None:
        super().__init__()
        self.op, self.number = op, number

    def forward(self, size: int, *given: int) -> int:
        """Size OP number."""
        return _ARITHMETIC[self.op](size, given[0] if given else self.number)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"{self.op} {self.number}"


class Sized(nn.Module):
    """A layer that is its sizes."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)

    def extra_repr(self) -> str:
        """For print(model)."""
        return ", ".join("?" if size == GIVEN else str(size) for size in self.sizes)


class Reshape(Sized):
    """Other sizes for the same entries; -1 is what is left over."""

    def forward(self, x: Tensor, *given: int) -> Tensor:
        """Any shape -> sizes."""
        return x.reshape(filled(self.sizes, given))


class Expand(Sized):
    """Entries repeated along dimensions of size 1; -1 keeps a dimension."""

    def forward(self, x: Tensor, *given: int) -> Tensor:
        """A shape that broadcasts to sizes -> sizes."""
        return x.expand(filled(self.sizes, given))


class Tile(Sized):
    """The tensor repeated, sizes[d] times along dimension d."""

    def forward(self, x: Tensor, *given: int) -> Tensor:
        """(n, ...) -> (n * sizes[0], ...)."""
        return x.repeat(filled(self.sizes, given))


class Full(Sized):
    """One value in every entry, of the type of a buffer that follows the model."""

    like: Tensor

    def __init__(self, sizes: Sequence[int], value: float, dtype: torch.dtype) -> None:
        super().__init__(sizes)
        self.value = value
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)

    def forward(self, *given: int) -> Tensor:
        """Sizes."""
        return torch.full(filled(self.sizes, given), self.value, dtype=self.like.dtype, device=self.like.device)


class Arange(nn.Module):
    """start, start + step, ... below a limit that is given."""

    like: Tensor

    def __init__(self, start: int, step: int) -> None:
        super().__init__()
        self.start, self.step = start, step
        self.register_buffer("like", torch.empty(0), persistent=False)

    def forward(self, limit: int) -> Tensor:
        """(entries,)."""
        return torch.arange(self.start, limit, self.step, device=self.like.device)


class Numbers(Sized):
    """Sizes as a tensor of whole numbers."""

    like: Tensor

    def __init__(self, sizes: Sequence[int], shape: Sequence[int]) -> None:
        super().__init__(sizes)
        self.shape = tuple(shape)
        self.register_buffer("like", torch.empty(0), persistent=False)

    def forward(self, *given: int) -> Tensor:
        """Shape: as many entries as there are sizes."""
        ones = [
            torch.full((1,), size, dtype=torch.int64, device=self.like.device) for size in filled(self.sizes, given)
        ]
        return torch.cat(ones).reshape(self.shape)


class Slice(nn.Module):
    """Entries start, start + step, ... before end along one dimension."""

    def __init__(self, dim: int, start: int, end: int, step: int = 1) -> None:
        super().__init__()
        self.dim, self.start, self.end, self.step = dim, start, end, step

    def forward(self, x: Tensor, *given: int) -> Tensor:
        """The same shape, but for one dimension."""
        start, end = filled((self.start, self.end), given)
        return x[(slice(None),) * self.dim + (slice(start, end, self.step),)]

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"dim={self.dim}, start={self.start}, end={self.end}, step={self.step}"


class Reversed(nn.Module):
    """The entries of one dimension from its end, every step-th."""

    def __init__(self, dim: int, step: int = 1) -> None:
        super().__init__()
        self.dim, self.step = dim, step

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, but for one dimension."""
        return x.flip(self.dim)[(slice(None),) * self.dim + (slice(None, None, self.step),)]


class Split(Sized):
    """Parts along one dimension."""

    def __init__(self, sizes: Sequence[int], dim: int) -> None:
        super().__init__(sizes)
        self.dim = dim

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One tensor -> one a size."""
        return tuple(x.split(list(self.sizes), self.dim))


class Pad(nn.Module):
    """Entries added, or with negative sizes taken, at both ends; pads in torch's order, the last dimension first."""

    def __init__(self, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.mode, self.value = tuple(pads), mode, value

    def forward(self, x: Tensor, *given: int) -> Tensor:
        """The same rank."""
        value = self.value if self.mode == "constant" else None
        return functional.pad(x, filled(self.pads, given), self.mode, value)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"{self.pads}, {self.mode}"


class Select(nn.Module):
    """One entry along a dimension, which goes."""

    def __init__(self, dim: int, index: int) -> None:
        super().__init__()
        self.dim, self.index = dim, index

    def forward(self, x: Tensor) -> Tensor:
        """One dimension less."""
        return x.select(self.dim, self.index)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"dim={self.dim}, index={self.index}"


class Take(nn.Module):
    """Entries by their positions along one dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """The positions' shape stands in the place of the dimension."""
        taken = x.index_select(self.dim, positions.reshape(-1))
        if positions.dim() == 1:
            return taken
        return taken.reshape([*x.shape[: self.dim], *positions.shape, *x.shape[self.dim + 1 :]])


class Resize(Sized):
    """Interpolation to sizes, or by scales where there are no sizes."""

    def __init__(self, sizes: Sequence[int], scales: Sequence[float], mode: str, corners: bool | None) -> None:
        super().__init__(sizes)
        self.scales, self.mode, self.corners = tuple(scales), mode, corners

    def forward(self, x: Tensor, *given: int) -> Tensor:
        """(n, c, ...) -> (n, c, sizes)."""
        size = filled(self.sizes, given) if self.sizes else None
        scales = None if self.sizes else list(self.scales)
        return functional.interpolate(x, size, scales, self.mode, self.corners)


class ToType(nn.Module):
    """Another type; a floating one follows the model, so that it runs in other precisions too."""

    like: Tensor

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.to(self.like.dtype)


class Blocks(nn.Module):
    """Channels into space (depth to space), in either order of the channels."""

    def __init__(self, block: int, block_first: bool) -> None:
        super().__init__()
        self.block, self.block_first = block, block_first

    def forward(self, x: Tensor) -> Tensor:
        """(n, c * b * b, h, w) -> (n, c, h * b, w * b)."""
        n, c, h, w = x.shape
        b = self.block
        if self.block_first:
            return x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * b, w * b)
        return x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, -1, h * b, w * b)


class Unblocks(nn.Module):
    """Space into channels, the blocks first."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h * b, w * b) -> (n, b * b * c, h, w)."""
        n, c, h, w = x.shape
        b = self.block
        return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, -1, h // b, w // b)


class TakeNd(nn.Module):
    """Entries by positions in the first `depth` dimensions."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """(..., depth) positions -> (...) entries."""
        return x[positions.unbind(-1)]


class PutNd(nn.Module):
    """Entries replaced at positions in the first `depth` dimensions."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, x: Tensor, positions: Tensor, values: Tensor) -> Tensor:
        """The shape of x."""
        return x.index_put(positions.unbind(-1), values)
