"""One operator call of an exported program, with its arguments by name; and how a module is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

ENDLESS = 2**63 - 1  # how an export writes "to the end"


def operator_name(node: fx.Node) -> str:
    """Such as aten.conv2d.default for a call of that operator; empty for everything else."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return str(node.target)


def bound(node: fx.Node) -> dict[str, Any]:
    """The arguments of an operator call by the names in its schema, defaults included."""
    assert isinstance(node.target, torch._ops.OpOverload)
    arguments: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            arguments[argument.name] = node.args[position]
        else:
            arguments[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return arguments


def ints(value: Any) -> tuple[int, ...] | None:
    """A list of plain integers as a tuple; None where one is computed at run time."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values if all(type(entry) is int for entry in values) else None


def shape_of(node: Any) -> tuple[Any, ...] | None:
    """The shape that the export wrote down for a tensor: plain integers where they are fixed."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


@dataclass(frozen=True)
class Recipe:
    """How a module is made.

    Attributes:
        kind: its class.
        args: positional arguments of the constructor.
        kwargs: the others.
    """

    kind: type[nn.Module]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> nn.Module:
        """A module without weights: its tensors are on the meta device."""
        with torch.device("meta"):
            return self.kind(*self.args, **self.kwargs)

    def code(self) -> str:
        """The constructor's call as Python, torch.nn as `nn`."""
        known = getattr(nn, self.kind.__name__, None) is self.kind
        texts = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{'nn.' if known else ''}{self.kind.__name__}({', '.join(texts)})"
