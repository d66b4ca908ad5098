"""Functions of several tensors, entry by entry."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from peelcli.sources.onnxfile import layers
from peelcli.sources.onnxfile.builder import Builder, only_sizes
from peelcli.sources.onnxfile.ops.base import Op, rule
from peelcli.sources.onnxfile.values import Unsupported, Value, example_of

_BINARY: dict[str, Callable[..., Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul,
    "Equal": operator.eq, "Greater": operator.gt, "GreaterOrEqual": operator.ge,
    "Less": operator.lt, "LessOrEqual": operator.le,
    "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
    "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip
_PAIRWISE: dict[str, Callable[..., Tensor]] = {"Max": torch.maximum, "Min": torch.minimum}


def both(builder: Builder, op: Op) -> tuple[Any, Any]:
    """The two sides; a constant of one entry as a plain number."""
    one, other = op.value(0), op.value(1)
    if isinstance(one, fx.Node) or not isinstance(other, fx.Node):
        one = builder.tensor(one)
        return one, builder.operand(other, one)
    return builder.operand(one, other), other


def _types(*sides: Any) -> list[torch.dtype]:
    return [example_of(side).dtype for side in sides if isinstance(side, fx.Node)]


@rule(*(kind for kind in _BINARY if not kind.startswith(("And", "Or", "Xor", "Bit"))))
def arithmetic(builder: Builder, op: Op) -> fx.Node:
    """Sums, products and comparisons."""
    return builder.call(_BINARY[op.kind], *both(builder, op))


@rule(*(kind for kind in _BINARY if kind.startswith(("And", "Or", "Xor", "Bit"))))
def logic(builder: Builder, op: Op) -> fx.Node:
    """Of truth values, or bit by bit."""
    return builder.call(_BINARY[op.kind], builder.tensor(op.value(0)), builder.tensor(op.value(1)))


@rule("Div")
def div(builder: Builder, op: Op) -> fx.Node:
    """Whole numbers are cut towards zero."""
    one, other = both(builder, op)
    if any(dtype.is_floating_point for dtype in _types(one, other)):
        return builder.call(operator.truediv, one, other)
    return builder.call(torch.div, one, other, rounding_mode="trunc")


@rule("Mod")
def mod(builder: Builder, op: Op) -> fx.Node:
    """The sign of the divisor, or with fmod of the dividend."""
    one, other = builder.tensor(op.value(0)), builder.tensor(op.value(1))
    return builder.call(torch.fmod if op.get("fmod", 0) else torch.remainder, one, other)


@rule("Pow")
def power(builder: Builder, op: Op) -> fx.Node:
    """The result has the base's type."""
    one, other = both(builder, op)
    made = builder.call(operator.pow, one, other)
    if isinstance(one, fx.Node) and example_of(made).dtype is not example_of(one).dtype:
        return builder.method("type_as", made, one)
    return made


@rule("Max", "Min")
def extreme(builder: Builder, op: Op) -> fx.Node:
    """Of any number of tensors."""
    made, *rest = (builder.tensor(value) for value in op.inputs if value is not None)
    for other in rest:
        made = builder.call(_PAIRWISE[op.kind], made, other)
    return made


@rule("Sum", "Mean")
def total(builder: Builder, op: Op) -> fx.Node:
    """Of any number of tensors."""
    made, *rest = (builder.tensor(value) for value in op.inputs if value is not None)
    for other in rest:
        made = builder.call(operator.add, made, other)
    return made if op.kind == "Sum" else builder.call(operator.truediv, made, len(op.inputs))


@rule("Where")
def where(builder: Builder, op: Op) -> fx.Node:
    """One or the other; numbers stay tensors, whose type follows the model."""
    return builder.call(torch.where, *(builder.tensor(op.value(position)) for position in range(3)))


@rule("Expand")
def expand(builder: Builder, op: Op) -> Value:
    """Entries repeated where a size is 1."""
    sizes = list(only_sizes(op.value(1)).reshape(-1))
    value = op.value(0)
    x = builder.tensor(value)
    shape = example_of(x).shape
    sizes = [1] * (len(shape) - len(sizes)) + sizes
    new = len(sizes) - len(shape)
    wanted: list[Any] = [-1 if at >= new and entry == 1 else entry for at, entry in enumerate(sizes)]
    same = all(entry == -1 or (isinstance(entry, int) and entry == shape[at - new]) for at, entry in enumerate(wanted))
    if same and not new:
        return value
    fixed, given = builder.parts(wanted)
    return builder.module(layers.Expand(fixed), x, *given)


@rule("ConstantOfShape")
def full(builder: Builder, op: Op) -> fx.Node:
    """One value in every entry."""
    value = op.get("value", torch.zeros(1))
    fixed, given = builder.parts(only_sizes(op.value(0)).reshape(-1))
    return builder.module(layers.Full(fixed, value.reshape(-1)[0].item(), value.dtype), *given)


@rule("Range")
def arange(builder: Builder, op: Op) -> fx.Node:
    """Whole numbers up to a size."""
    start, limit, step = (only_sizes(op.value(position)).reshape(-1)[0] for position in range(3))
    fixed, given = builder.parts((start, step))
    if given:
        raise Unsupported("starts at a size")
    return builder.module(layers.Arange(*fixed), builder.argument(limit))
