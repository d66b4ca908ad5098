"""One call of an aten op, its arguments by name, as the rules see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from peelcli.graph.labels.factors import PLAIN, Labels
from peelcli.graph.labels.run import LabelRun


@dataclass(frozen=True, slots=True)
class Call:
    """An op that has run.

    Attributes:
        op: name without overload and namespace, in-place ones without their underscore: "add".
        values: every argument by its name in the schema, defaults filled in.
        order: position of each argument.
        out: what the op returned.
        before: labels of each tensor argument as they were, by its name; lists for lists of tensors.
        shapes: the shape of each tensor argument as it was.
    """

    op: str
    values: dict[str, Any]
    order: dict[str, int]
    out: Any
    before: dict[str, Any]
    shapes: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that not every overload has."""
        return self.values.get(name, default)

    @property
    def first(self) -> str:
        """The name of the first tensor argument."""
        return next(name for name, labels in self.before.items() if isinstance(labels, Labels))


Rule = Callable[[LabelRun, Call], None]
RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register a rule for some ops."""

    def register(function: Rule) -> Rule:
        for op in ops:
            assert op not in RULES, f"two rules for {op}"
            RULES[op] = function
        return function

    return register


def tensors_of(call: Call) -> list[tuple[str, torch.Tensor, Labels, Sequence[int]]]:
    """Every tensor argument with its name, labels and shape before the op; those in lists too."""
    found = []
    for name, labels in call.before.items():
        value, shape = call.values[name], call.shapes[name]
        if isinstance(labels, Labels):
            found.append((name, value, labels, shape))
        else:
            found.extend(
                (name, item, own, size) for item, own, size in zip(value, labels, shape, strict=True) if own is not None
            )
    return found


def is_weight(call: Call) -> int:
    """What `Labels.weight` says of a result whose elements are those of its operands."""
    kinds = [labels.weight for _, _, labels, _ in tensors_of(call)]
    return max(kinds, default=PLAIN) if all(kinds) else 0


def outputs(call: Call) -> list[torch.Tensor]:
    """The tensors that the op returned."""
    out = call.out if isinstance(call.out, (tuple, list)) else [call.out]
    return [t for t in out if isinstance(t, torch.Tensor)]
