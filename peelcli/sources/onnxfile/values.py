"""What a name in an ONNX graph can stand for while the graph is rebuilt.

A tensor that the module computes is an fx.Node, with an empty example of it in `meta["val"]`. What the file fixes is a
Constant. Sizes, and what is computed from them, are arrays of whole numbers, of which each is a Python int or a Number
that the module takes from a tensor's shape when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, fx

from peelcli.errors import SourceError

SMALL = 4096  # entries up to which whole numbers are computed one by one


class Unsupported(SourceError):
    """An op, or a way to use one, that no layer here stands for."""


class NotFolded(Unsupported):
    """A constant that the reference can't compute; the module can."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that the file fixes.

    Attributes:
        tensor: its value, on the CPU.
        name: the initializer that it is, or "" where it was computed.
        flipped: whether it is that initializer with its two dimensions swapped.
        origin: the initializer that it was computed from, for names only.
    """

    tensor: Tensor
    name: str = ""
    flipped: bool = False
    origin: str = ""

    def transposed(self) -> Constant:
        """The matrix with its dimensions swapped; it stays the same initializer."""
        return Constant(self.tensor.t().contiguous(), self.name, not self.flipped, self.origin)


Emit = Callable[[str, "Number", "Number | int"], "Number"]


class Number:
    """A whole number that is known when the module runs; arithmetic on it becomes part of the module.

    Attributes:
        node: what computes it.
        example: its value for the example input.
    """

    __slots__ = ("_emit", "example", "node")

    def __init__(self, node: fx.Node, example: int, emit: Emit) -> None:
        self.node = node
        self.example = example
        self._emit = emit

    def _with(self, op: str, other: Any) -> Any:
        if isinstance(other, (bool, np.bool_)) or not isinstance(other, (int, np.integer, Number)):
            return NotImplemented
        if (op, other) in (("add", 0), ("sub", 0), ("mul", 1), ("floordiv", 1)):
            return self
        return self._emit(op, self, other if isinstance(other, Number) else int(other))

    def __add__(self, other: Any) -> Any:
        return self._with("add", other)

    def __sub__(self, other: Any) -> Any:
        return self._with("sub", other)

    def __mul__(self, other: Any) -> Any:
        return self._with("mul", other)

    def __floordiv__(self, other: Any) -> Any:
        return self._with("floordiv", other)

    def __mod__(self, other: Any) -> Any:
        return self._with("mod", other)

    def __radd__(self, other: Any) -> Any:
        return self._with("add", other)

    def __rmul__(self, other: Any) -> Any:
        return self._with("mul", other)

    def __rsub__(self, other: Any) -> Any:
        return self._with("rsub", other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._with("rfloordiv", other)

    def __neg__(self) -> Any:
        return self._with("mul", -1)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


Sizes: TypeAlias = "np.ndarray[Any, np.dtype[np.object_]]"  # of int and Number, rank 0, 1 or 2
Value: TypeAlias = "fx.Node | Constant | np.ndarray[Any, np.dtype[np.object_]]"


def example_of(node: fx.Node) -> Tensor:
    """The empty tensor that has a node's shape and type."""
    value: Tensor = node.meta["val"]
    return value


def example_int(entry: Any) -> int:
    """The value that one entry of sizes has for the example input."""
    return entry.example if isinstance(entry, Number) else int(entry)


def as_array(entries: Any) -> Sizes:
    """Nested lists of ints and Numbers as an array of objects."""
    return np.array(entries, dtype=object)


def settled(sizes: Sizes) -> Value:
    """Sizes in which nothing is left to run time are a constant."""
    flat = list(sizes.flat)
    if any(isinstance(entry, Number) for entry in flat):
        return sizes
    if any(isinstance(entry, (float, np.floating)) for entry in flat):
        return Constant(torch.tensor(sizes.tolist(), dtype=torch.float32).reshape(sizes.shape))
    if flat and all(isinstance(entry, (bool, np.bool_)) for entry in flat):
        return Constant(torch.tensor(sizes.tolist(), dtype=torch.bool).reshape(sizes.shape))
    return Constant(torch.tensor(sizes.tolist(), dtype=torch.int64).reshape(sizes.shape))


def as_sizes(value: Value) -> Sizes | None:
    """Whole numbers entry by entry, or None where a value is something else."""
    if isinstance(value, fx.Node):
        return None
    if isinstance(value, Constant):
        tensor = value.tensor
        if tensor.numel() > SMALL or tensor.dtype is torch.bool:
            return None
        entries = np.empty(tuple(tensor.shape), dtype=object)
        entries[...] = np.array(tensor.tolist(), dtype=object).reshape(tuple(tensor.shape))
        return entries
    return value
