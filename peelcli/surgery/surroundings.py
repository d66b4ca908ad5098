"""What becomes of the output of each product: the norm behind it, and what it is added to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peelcli.products import Product, Run, watching
from peelcli.tensors import named_tensors, own, tensors_in

_PASSING = (
    torch.dropout, torch.dropout_, torch.feature_dropout, torch.feature_dropout_, torch.alpha_dropout,
    torch.alpha_dropout_, torch.feature_alpha_dropout, torch.feature_alpha_dropout_,
)  # fmt: skip
_RESHAPING = (torch.Tensor.view, torch.Tensor.reshape, torch.reshape, torch.Tensor.unflatten, torch.unflatten)
_ADDING = (torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__)
_FLAT_ENDS: dict[Any, tuple[float, float]] = {
    **dict.fromkeys((torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_), (0.0, math.inf)),
    torch._C._nn.relu6: (0.0, 6.0),
    **dict.fromkeys((torch._C._nn.hardswish, torch._C._nn.hardswish_), (-3.0, math.inf)),
    **dict.fromkeys((torch._C._nn.hardsigmoid, torch._C._nn.hardsigmoid_), (-3.0, 3.0)),
}  # beyond these ends nothing changes any more
_CLAMPING = (
    torch.clamp, torch.clamp_, torch.Tensor.clamp, torch.Tensor.clamp_, torch._C._nn.hardtanh, torch._C._nn.hardtanh_,
)  # fmt: skip


@dataclass
class Around:
    """One product.

    Attributes:
        calls: products with its weight in one forward pass.
        elsewhere: whether its weight is read by what is no product, e.g. an embedding, too.
        number: of its first call.
        norm: running mean of the BatchNorm that takes the output, where nothing else takes it and the norm takes
            nothing else, by path.
        scale, offset: the norm behind makes scale * output + offset of each output; None without one.
        ends: (low, high) where the output, behind the norm and added to the other, goes into a function that is flat
            below and above, and nothing else takes it; None where there is no such thing.
        other: number of the call that makes what the output is added to, where that comes before the product and
            nothing else takes the output; -1 where there is no such thing.
        elements: numbers in its input and output together.
    """

    calls: int = 0
    elsewhere: bool = False
    number: int = -1
    norm: str | None = None
    scale: torch.Tensor | None = None
    offset: torch.Tensor | None = None
    ends: tuple[float, float] | None = None
    other: int = -1
    elements: int = 0

    def normed(self, outputs: torch.Tensor) -> torch.Tensor:
        """What the norm makes of outputs of shape (rows, outputs)."""
        if self.scale is None or self.offset is None:
            return outputs
        return outputs * self.scale.float() + self.offset.float()


class Counted:
    """Numbers the calls of a pass, products among them, and keeps the outputs of some."""

    def __init__(self, wanted: Set[int] = frozenset()) -> None:
        self.wanted = wanted
        self.count = 0
        self.kept: dict[int, torch.Tensor] = {}

    def __call__(self, _func: Any, _args: Any, _kwargs: Any, out: Any) -> None:
        """One more call."""
        if self.count in self.wanted and isinstance(out, torch.Tensor):
            self.kept[self.count] = out
        self.count += 1

    def keep_only(self, wanted: Set[int]) -> None:
        """Want no others from now on, and let go of those that are kept."""
        self.wanted = wanted
        self.kept = {number: out for number, out in self.kept.items() if number in wanted}


def look(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Around]:
    """Run a model once and see what stands around its products, by weight, in the order of the calls."""
    seen = _Seen(module)
    inputs = own(module, inputs)
    with torch.no_grad(), watching(module, seen.product, seen.function):
        out = module(*inputs)
    return seen.found_alone(out)


@dataclass
class _Value:
    """What a tensor holds from one call that writes it to the next.

    Attributes:
        maker: number of the call that made it.
        origin: product whose output it is, through a norm or as it came.
        parts: products that aim at it, a sum.
        uses: calls that took it.
    """

    maker: int = -1
    origin: str | None = None
    parts: tuple[str, ...] = ()
    uses: int = 0


class _Seen:
    """One pass; all tensors are held, so that their ids stay theirs."""

    def __init__(self, module: nn.Module) -> None:
        self.found: dict[str, Around] = {}
        self.tensors = dict(named_tensors(module))
        self.names = {id(tensor): name for name, tensor in self.tensors.items()}
        self.count = 0
        self.held: list[torch.Tensor] = []
        self.values: dict[int, _Value] = {}  # tensor -> what it holds now
        self.kinds: dict[str, str] = {}  # product -> what it computes
        self.plain: dict[str, list[_Value]] = {}  # product -> its output as it came
        self.normed: dict[str, list[_Value]] = {}  # product -> its output behind a norm
        self.norms: Counter[str] = Counter()  # running mean -> norms that took it
        self.ended: dict[str, _Value] = {}  # product -> what a function with flat ends took

    def product(self, product: Product, run: Run) -> torch.Tensor:
        out = run()
        around = self.found.setdefault(product.name, Around(number=self.count))
        around.calls += 1
        around.elements = max(around.elements, product.x.numel() + out.numel())
        self._value(product.x).uses += 1
        self.kinds[product.name] = product.kind
        self.plain[product.name], self.normed[product.name] = [], []
        self._made([out], product.name, self.count)
        self.count += 1
        return out

    def function(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if func not in _PASSING or out is not first:  # dropout at rest hands on what it takes
            given = tensors_in(out)
            for tensor in tensors_in((args, kwargs)) if given else ():
                self._value(tensor).uses += 1
            origin = self._origin(func, args, kwargs, out)
            self._made(given, origin, self.count, self._parts(func, args))
        self.count += 1

    def found_alone(self, out: Any) -> dict[str, Around]:
        """What was found, without what holds only where nothing else takes the same tensor; `out` is the model's."""
        for tensor in tensors_in(out):
            self._value(tensor).uses += 1
        for name, around in self.found.items():
            around.elsewhere = self._value(self.tensors[name]).uses > 0
            shared = any(value.uses > 1 for value in self.plain[name])
            if shared or any(value.uses > 1 for value in self.normed[name]):
                around.other = -1
            if shared or (around.norm is not None and self.norms[around.norm] > 1):
                around.norm = None
            if shared or any(value.uses > 1 for value in (*self.normed[name], self.ended.get(name, _Value()))):
                around.ends = None
        return self.found

    def _value(self, tensor: torch.Tensor) -> _Value:
        return self.values.setdefault(id(tensor), _Value())

    def _made(
        self, tensors: Iterable[torch.Tensor], origin: str | None, maker: int, parts: tuple[str, ...] = ()
    ) -> None:
        for tensor in tensors:
            self.held.append(tensor)
            value = self.values[id(tensor)] = _Value(maker, origin, parts)
            if origin is not None:
                (self.plain if self.found[origin].scale is None else self.normed)[origin].append(value)

    def _origin(self, func: Any, args: Any, kwargs: Any, out: Any) -> str | None:
        """The product whose output a call hands on."""
        if not args or not isinstance(args[0], torch.Tensor):
            return None
        origin = self._value(args[0]).origin
        if func in _ADDING and len(args) == 2 and isinstance(args[1], torch.Tensor) and kwargs.get("alpha", 1) == 1:
            self._added(args[0], args[1])
            return None
        if (ends := _ends(func, args, kwargs)) is not None:
            self._ended(self._value(args[0]), ends)
            return None
        if func is torch.batch_norm:
            return self._normed(origin, args)
        if func in _RESHAPING and origin is not None and self.kinds[origin] == "linear":
            return origin if out.shape[-1:] == args[0].shape[-1:] else None
        return origin if func in _PASSING else None

    def _normed(self, origin: str | None, args: Any) -> str | None:
        x, weight, bias, mean, variance, training, _, epsilon, *_ = args
        name = self.names.get(id(mean), "")
        self.norms[name] += 1
        if origin is None or mean is None or training:
            return None
        around = self.found[origin]
        if around.scale is not None or (self.kinds[origin] == "linear" and x.dim() > 2):  # not by the channels
            return None
        around.norm = name or None
        around.scale = (torch.ones_like(mean) if weight is None else weight.detach()) / (variance + epsilon).sqrt()
        around.offset = (0.0 if bias is None else bias.detach()) - around.scale * mean
        return origin

    def _parts(self, func: Any, args: Any) -> tuple[str, ...]:
        """The products that aim at a sum, once it was added."""
        if func not in _ADDING or not all(isinstance(arg, torch.Tensor) for arg in args):
            return ()
        pairs = [(self._value(mine).origin, self._value(other).maker) for mine, other in (args[:2], args[1::-1])]
        return tuple(name for name, made in pairs if name is not None and 0 <= made == self.found[name].other)

    def _ended(self, value: _Value, ends: tuple[float, float]) -> None:
        for name in value.parts or ([value.origin] if value.origin is not None else []):
            self.found[name].ends = ends
            self.ended[name] = value

    def _added(self, one: torch.Tensor, two: torch.Tensor) -> None:
        for mine, other in ((one, two), (two, one)):
            origin, made = self._value(mine).origin, self._value(other).maker
            if origin is not None and mine.shape == other.shape and 0 <= made < self.found[origin].number:
                self.found[origin].other = made


def _ends(func: Any, args: Any, kwargs: Any) -> tuple[float, float] | None:
    """Beyond which values of its first argument a function does not change any more."""
    if func in _CLAMPING:
        names = (("min", "min_val"), ("max", "max_val"))
        given = [kwargs.get(old, kwargs.get(new)) for old, new in names]
        given = [args[k + 1] if len(args) > k + 1 else value for k, value in enumerate(given)]
        low, high = (end if value is None else value for end, value in zip((-math.inf, math.inf), given, strict=True))
        return (float(low), float(high)) if isinstance(low, int | float) and isinstance(high, int | float) else None
    return _FLAT_ENDS.get(func)
