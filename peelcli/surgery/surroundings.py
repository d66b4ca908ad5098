"""What becomes of the output of each product: the norm behind it, and what it is added to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peelcli.products import Product, Run, watching
from peelcli.tensors import beside, named_tensors

_PASSING = (torch.dropout, torch.feature_dropout, nn.functional.dropout)
_ADDING = (torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__)


@dataclass
class Around:
    """One product.

    Attributes:
        calls: how often its weight is used in one forward pass.
        norm: running mean of the BatchNorm that takes the output and nothing else, by path.
        scale: by how much that norm multiplies each output; None without one.
        other: number of the function call that makes what the output is added to, where that comes before the
            product; -1 where there is no such thing.
        elements: numbers in its input and output together.
    """

    calls: int = 0
    norm: str | None = None
    scale: torch.Tensor | None = None
    other: int = -1
    elements: int = 0


class Counted:
    """Numbers the function calls of a pass, and keeps the outputs of some."""

    def __init__(self, wanted: frozenset[int] = frozenset()) -> None:
        self.wanted = wanted
        self.count = 0
        self.kept: dict[int, torch.Tensor] = {}

    def __call__(self, _func: Any, _args: Any, _kwargs: Any, out: Any) -> None:
        """One more call."""
        if self.count in self.wanted and isinstance(out, torch.Tensor):
            self.kept[self.count] = out
        self.count += 1


def look(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Around]:
    """Run a model once and see what stands around its products, by weight, in the order of the calls."""
    seen = _Seen(module)
    inputs = beside(module, inputs)
    with torch.no_grad(), watching(module, seen.product, seen.function):
        module(*inputs)
    return seen.found_alone()


class _Seen:
    """One pass; all tensors are held, so that their ids stay theirs."""

    def __init__(self, module: nn.Module) -> None:
        self.found: dict[str, Around] = {}
        self.names = {id(tensor): name for name, tensor in named_tensors(module)}
        self.count = 0
        self.held: list[torch.Tensor] = []
        self.maker: dict[int, int] = {}  # tensor -> number of the call that made or last changed it
        self.origin: dict[int, str] = {}  # tensor -> product whose output it is, through a norm or as it came
        self.started: dict[str, int] = {}  # product -> number of the call before it
        self.outputs: dict[str, list[int]] = {}  # product -> its output, and that of its norm
        self.uses: Counter[int] = Counter()  # tensor -> calls that took it

    def product(self, product: Product, run: Run) -> torch.Tensor:
        out = run()
        around = self.found.setdefault(product.name, Around())
        around.calls += 1
        around.elements = max(around.elements, product.x.numel() + out.numel())
        self._used((product.x,))
        self._made(out, product.name)
        self.outputs[product.name] = [id(out)]
        self.started[product.name] = self.count
        return out

    def function(self, func: Any, args: Any, _kwargs: Any, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            self._used(args)
        origin = self.origin.get(id(args[0])) if args and isinstance(args[0], torch.Tensor) else None
        if func in _ADDING and len(args) > 1 and isinstance(args[1], torch.Tensor):
            self._added(args[0], args[1])
            origin = None
        elif func is torch.batch_norm and origin is not None:
            self._normed(origin, args)
        elif func not in _PASSING:
            origin = None
        if isinstance(out, torch.Tensor):
            self._made(out, origin)
            if origin is not None:
                self.outputs[origin].append(id(out))
            self.maker[id(out)] = self.count
        self.count += 1

    def found_alone(self) -> dict[str, Around]:
        """What was found; an output that something else reads too is not what a sum alone decides."""
        for name, around in self.found.items():
            if any(self.uses[output] > 1 for output in self.outputs[name]):
                around.other = -1
        return self.found

    def _used(self, args: Any) -> None:
        self.uses.update(id(value) for value in args if isinstance(value, torch.Tensor))

    def _made(self, out: torch.Tensor, origin: str | None) -> None:
        self.held.append(out)
        self.origin.pop(id(out), None)
        self.maker.pop(id(out), None)
        if origin is not None:
            self.origin[id(out)] = origin

    def _normed(self, origin: str, args: Any) -> None:
        weight, mean, variance, epsilon = args[1], args[3], args[4], args[7]
        around = self.found[origin]
        if mean is None or id(mean) not in self.names or around.norm is not None:
            return
        around.norm = self.names[id(mean)]
        around.scale = (torch.ones_like(mean) if weight is None else weight.detach()) / (variance + epsilon).sqrt()

    def _added(self, one: torch.Tensor, two: torch.Tensor) -> None:
        for mine, other in ((one, two), (two, one)):
            origin, made = self.origin.get(id(mine)), self.maker.get(id(other), -1)
            if origin is not None and mine.shape == other.shape and 0 <= made < self.started[origin]:
                self.found[origin].other = made
