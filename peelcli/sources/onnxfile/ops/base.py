"""What a rule for an op gets, and the table that it goes into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from peelcli.sources.onnxfile.builder import Builder
from peelcli.sources.onnxfile.values import Constant, Unsupported, Value, as_sizes, example_of


@dataclass(frozen=True, slots=True)
class Op:
    """One node of an ONNX graph with its inputs at hand.

    Attributes:
        kind: the op's name.
        inputs: values, None where an optional one was left out.
        attributes: as Python values; tensors as torch tensors, text as str.
        opset: the version of ONNX's own ops.
        outputs: how many outputs the node names.
        bias: what the next node adds, where this one can do it as well.
    """

    kind: str
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1
    bias: Constant | None = None

    def value(self, position: int) -> Value:
        """A required input."""
        found = self.given(position)
        if found is None:
            raise Unsupported(f"lacks its input {position}")
        return found

    def given(self, position: int) -> Value | None:
        """An optional input."""
        return self.inputs[position] if position < len(self.inputs) else None

    def constant(self, position: int) -> Constant | None:
        """An optional input that only works where the file fixes it."""
        found = self.given(position)
        if found is None or isinstance(found, Constant):
            return found
        raise Unsupported(f"has an input {position} that is computed")

    def number(self, position: int, otherwise: float | None = None) -> float | None:
        """An optional scalar input that the file fixes."""
        found = self.constant(position)
        if found is None or not found.tensor.numel():
            return otherwise
        return float(found.tensor.reshape(-1)[0])

    def ints(self, name: str, position: int | None = None) -> list[int] | None:
        """A list of whole numbers: an attribute in older files, an input in newer ones, or left out."""
        if name in self.attributes:
            found = self.attributes[name]
            return [int(entry) for entry in (found if isinstance(found, (list, tuple)) else [found])]
        value = None if position is None else self.given(position)
        if value is None:
            return None
        sizes = as_sizes(value)
        if sizes is None or not isinstance(value, Constant):
            raise Unsupported(f"has {name} that are computed")
        return [int(entry) for entry in sizes.reshape(-1)]

    def get(self, name: str, otherwise: Any) -> Any:
        """An attribute, or what ONNX says it is where it is left out."""
        return self.attributes.get(name, otherwise)


Rule = Callable[[Builder, Op], "Value | tuple[Value, ...]"]
TABLE: dict[str, Rule] = {}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Put a function into the table, under the names of the ops that it rebuilds."""

    def register(function: Rule) -> Rule:
        for kind in kinds:
            assert kind not in TABLE, kind
            TABLE[kind] = function
        return function

    return register


def first(builder: Builder, op: Op) -> fx.Node:
    """The first input as a tensor."""
    return builder.tensor(op.value(0))


def rank(node: fx.Node) -> int:
    """Dimensions of a tensor."""
    return example_of(node).dim()


def dim_of(axis: int, dims: int) -> int:
    """An axis counted from the front.

    Raises:
        Unsupported: there is no such axis.
    """
    if not -dims <= axis < max(dims, 1):
        raise Unsupported(f"has axis {axis} of a tensor with {dims} dimensions")
    return axis % dims if dims else 0


def floats(tensor: Tensor) -> Tensor:
    """A constant for a layer's weight."""
    if not tensor.is_floating_point():
        raise Unsupported(f"has a weight of type {str(tensor.dtype).removeprefix('torch.')}")
    return tensor


DTYPES = {
    1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
    2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    4: torch.uint16, 12: torch.uint32, 13: torch.uint64,
}  # fmt: skip


def dtype_of(code: int) -> torch.dtype:
    """Torch's type for one of ONNX's codes.

    Raises:
        Unsupported: torch has none.
    """
    if code not in DTYPES:
        raise Unsupported(f"uses ONNX's type {code}, which torch does not have")
    return DTYPES[code]
