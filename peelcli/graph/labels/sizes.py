"""Integers that remember where they came from: a module's attribute, or the size of a tensor.

Code such as `x.view(b, n, self.heads, self.width // self.heads)` bakes sizes into the model. While it runs on labels
its modules' integers are Tracked, and so is every labelled size that it reads: what arrives at the view says which
attribute must follow when channels go, and what would no longer fit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from peelcli.graph.labels.factors import Factor


@dataclass(frozen=True, slots=True)
class Attr:
    """An integer that a module keeps; `item` is its position in a tuple or list, else None."""

    module: str
    name: str
    item: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Dim:
    """The size of a labelled dimension of a tensor; a product of several where there are several."""

    factor: Factor
    dim: int


@dataclass(frozen=True, slots=True)
class Op:
    """A result of arithmetic."""

    apply: Callable[..., int]
    operands: tuple[Source | int, ...]


Source = Attr | Dim | Op
Leaf = Attr | Dim


def leaves(source: Source | int) -> Iterator[Leaf]:
    """All attributes and sizes in an expression."""
    if isinstance(source, Op):
        for operand in source.operands:
            yield from leaves(operand)
    elif not isinstance(source, int):
        yield source


def value_of(source: Source | int, known: Callable[[Leaf], int]) -> int:
    """The expression with other values of its leaves.

    Raises:
        ZeroDivisionError: as the arithmetic does.
    """
    if isinstance(source, Op):
        return int(source.apply(*(value_of(operand, known) for operand in source.operands)))
    return source if isinstance(source, int) else known(source)


class Tracked(int):
    """An int with its source."""

    source: Source
    leaks: list[tuple[int, Source]] = []  # noqa: RUF012  # sizes that became floats; the pass that runs empties it
    matches: list[tuple[Tracked, Tracked]] = []  # noqa: RUF012  # what was found equal; likewise

    def __new__(cls, value: int, source: Source) -> Tracked:
        """An int of this value."""
        made = super().__new__(cls, value)
        made.source = source
        return made

    def __deepcopy__(self, memo: Any) -> Tracked:
        return self

    def __reduce__(self) -> Any:
        return int, (int(self),)

    def __float__(self) -> float:
        Tracked.leaks.append((int(self), self.source))
        return float(int(self))

    def __truediv__(self, other: Any) -> Any:
        Tracked.leaks.append((int(self), self.source))
        return int(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        Tracked.leaks.append((int(self), self.source))
        return other / int(self)

    def __pow__(self, other: Any, *rest: Any) -> Any:
        Tracked.leaks.append((int(self), self.source))
        return int(self) ** other

    def __hash__(self) -> int:
        return hash(int(self))

    def __eq__(self, other: object) -> bool:
        same = int(self) == other
        if same and isinstance(other, Tracked):
            Tracked.matches.append((self, other))
        return same

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        return self._decided(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._decided(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return self._decided(operator.gt, other)

    def __ge__(self, other: Any) -> bool:
        return self._decided(operator.ge, other)

    def _decided(self, compare: Callable[[Any, Any], bool], other: Any) -> bool:
        """A comparison of a tensor's size; the code may go another way once it turns out otherwise."""
        decided = compare(int(self), other)
        if isinstance(other, int) and any(isinstance(leaf, Dim) for leaf in leaves(self.source)):
            Tracked.leaks.append((int(decided), Op(compare, (self.source, source_of(other)))))
        return decided

    def __repr__(self) -> str:
        return repr(int(self))


def source_of(value: int) -> Source | int:
    """Where an integer came from, or itself."""
    return value.source if isinstance(value, Tracked) else int(value)


def _arithmetic(apply: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    def forward(self: Tracked, other: Any) -> Any:
        if not isinstance(other, int):
            return apply(float(self), other) if isinstance(other, float) else NotImplemented
        return Tracked(apply(int(self), int(other)), Op(apply, (self.source, source_of(other))))

    def backward(self: Tracked, other: Any) -> Any:
        if not isinstance(other, int):
            return apply(other, float(self)) if isinstance(other, float) else NotImplemented
        return Tracked(apply(int(other), int(self)), Op(apply, (source_of(other), self.source)))

    return forward, backward


for _name, _apply in (
    ("add", operator.add),
    ("sub", operator.sub),
    ("mul", operator.mul),
    ("floordiv", operator.floordiv),
    ("mod", operator.mod),
):
    _forward, _backward = _arithmetic(_apply)
    setattr(Tracked, f"__{_name}__", _forward)
    setattr(Tracked, f"__r{_name}__", _backward)


def _negated(self: Tracked) -> Tracked:
    return Tracked(-int(self), Op(operator.neg, (self.source,)))


setattr(Tracked, "__neg__", _negated)  # noqa: B010  # as the others above


def track_attributes(module: nn.Module) -> dict[Attr, int]:
    """Make the integers that modules keep remember where they are kept; the module is changed.

    Returns:
        All of them.
    """
    found: dict[Attr, int] = {}
    for path, child in module.named_modules():
        for name, value in list(vars(child).items()):
            if name in ("training", "_version"):
                continue
            made = _tracked(value, path, name)
            if made is not value:
                child.__dict__[name] = made
                for item in made if isinstance(made, (tuple, list)) else (made,):
                    found[item.source] = int(item)
    return found


def _tracked(value: Any, path: str, name: str) -> Any:
    if type(value) is int:
        return Tracked(value, Attr(path, name, None))
    if type(value) in (tuple, list) and value and all(type(item) is int for item in value):
        return type(value)(Tracked(item, Attr(path, name, k)) for k, item in enumerate(value))
    return value
