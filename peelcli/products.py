"""Seeing a forward pass at the ops that are linear in one of the model's weights, in the words of the field: products.

Convolutions (plain, grouped, depthwise, transposed), linear layers, and matrix products with a weight; whoever calls
them, a layer or a function of torch's own such as multi-head attention. No product here is a call without a batch, one
whose weight is computed (weight_norm, a slice of a parameter), or an op that is more than linear (bilinear, LSTM).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from peelcli.tensors import named_tensors

Kind = Literal["conv", "transposed", "linear"]
_PEELED = ("torch.nn.functional", "torch.functional", "torch._tensor")


@dataclass(frozen=True, slots=True)
class Product:
    """One call.

    Attributes:
        name: path of the weight.
        call: which convolution or matrix product with this weight in this forward pass, from 0.
        kind: what it computes.
        x: the input; channels are in dimension 1 for convolutions, else in the last one of two or more.
        weight: the parameter (or buffer) itself.
        bias: what is added, shape (outputs,): a parameter, another tensor, or None.
        stride, dilation: of a convolution, one number a dimension; not told of a transposed one.
        padding: zeros (before, after) for each dimension of a convolution; other paddings are in x already.
        groups: of a convolution.
        flipped: True for a matrix of shape (in, out), e.g. transformers' Conv1D, instead of (out, in).
    """

    name: str
    call: int
    kind: Kind
    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    flipped: bool = False

    @property
    def channel_dim(self) -> int:
        """Where the output has its channels."""
        return -1 if self.kind == "linear" else 1

    def matrix(self) -> torch.Tensor:
        """The weight as (groups, outputs of a group, inputs of a group, kernel positions); a view where it can be."""
        w: torch.Tensor = self.weight.detach()
        if self.kind == "linear":
            return (w.t() if self.flipped else w)[None, :, :, None]
        if self.kind == "transposed":
            w = w.unflatten(0, (self.groups, -1)).transpose(1, 2)
            return w.flatten(3)
        w = w.flatten(2)
        return w.view(self.groups, -1, *w.shape[1:])


Run = Callable[[], torch.Tensor]
Handler = Callable[[Product, Run], torch.Tensor]
"""(what is computed, how to compute it) -> the output."""
Seen = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]
"""(function, args, kwargs, output) of every other call."""


class Watch(TorchFunctionMode):
    """Hands every product of a forward pass to a handler, which must compute it.

    Attributes:
        names: of the module's weights, by id.
        calls: with each weight, so far.
    """

    def __init__(self, module: nn.Module, handler: Handler, others: Seen | None = None) -> None:
        super().__init__()
        self.handler = handler
        self.others = others
        self._weights = tuple(tensor for _, tensor in named_tensors(module))  # alive, so that no other takes an id
        self.names = {id(tensor): name for name, tensor in named_tensors(module)}
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = _FORMS.get(func)
        product = found(self, args, kwargs) if found else None
        if product is not None:
            return self.handler(product, lambda: func(*args, **kwargs))
        out = func(*args, **kwargs)
        if self.others is not None:
            self.others(func, args, kwargs, out)
        return out

    def numbered(self, weight: Any) -> tuple[str, int] | None:
        """Name and call of a weight; None for a tensor that the model does not own, e.g. a computed weight."""
        name = self.names.get(id(weight))
        if name is None:
            return None
        self.calls[name] += 1
        return name, self.calls[name] - 1


@contextmanager
def watching(module: nn.Module, handler: Handler, others: Seen | None = None) -> Iterator[Watch]:
    """Every product of the module's forward inside goes to the handler; gradients are left as they are."""
    mode = Watch(module, handler, others)
    with python_functions_open(), mode:
        yield mode


@contextmanager
def python_functions_open() -> Iterator[None]:
    """Let functions that torch writes in Python run through, so that what they call is seen rather than they.

    For the whole process: threads that watch have to run inside one such context.
    """
    before = []
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for path in _PEELED:
        namespace = __import__(path, fromlist=["*"]).__dict__
        for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
            if name in namespace:
                before.append((namespace, name, namespace[name]))
                namespace[name] = lambda *_args: False
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for namespace, name, function in before:
            namespace[name] = function


# --- the forms in which torch is asked for a product


def _bind(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(names, args, strict=False)) | kwargs


def _each(value: Any, count: int) -> tuple[int, ...]:
    numbers = tuple(int(v) for v in value) if isinstance(value, (tuple, list)) else (int(value),)
    return numbers * count if len(numbers) == 1 else numbers


def _conv(mode: Watch, args: Any, kwargs: Any) -> Product | None:
    given = _bind(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, kwargs)
    x: Any = given.get("input")
    weight: Any = given.get("weight")
    known = mode.numbered(weight)
    if known is None or x is None or x.dim() != weight.dim():  # without a batch: nothing to average over
        return None
    rank = weight.dim() - 2
    dilation = _each(given.get("dilation", 1), rank)
    padding = _padding(given.get("padding", 0), weight.shape[2:], dilation)
    stride = _each(given.get("stride", 1), rank)
    groups = given.get("groups", 1)
    return Product(*known, "conv", x, weight, given.get("bias"), stride, padding, dilation, groups)


def _padding(value: Any, kernel: Any, dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if isinstance(value, str):
        totals = [d * (k - 1) if value == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in _each(value, len(dilation)))


def _transposed(mode: Watch, args: Any, kwargs: Any) -> Product | None:
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    given = _bind(names, args, kwargs)
    x: Any = given.get("input")
    weight: Any = given.get("weight")
    known = mode.numbered(weight)
    if known is None or x is None or x.dim() != weight.dim():
        return None
    return Product(*known, "transposed", x, weight, given.get("bias"), groups=given.get("groups", 1))


def _linear(mode: Watch, args: Any, kwargs: Any) -> Product | None:
    given = _bind(("input", "weight", "bias"), args, kwargs)
    return _rows_times(mode, given.get("input"), given.get("weight"), given.get("bias"))


def _addmm(mode: Watch, args: Any, kwargs: Any) -> Product | None:
    given = _bind(("input", "mat1", "mat2"), args, kwargs)
    plain = given.get("beta", 1) == given.get("alpha", 1) == 1
    found = _rows_times(mode, given.get("mat1"), given.get("mat2"), given.get("input"), flipped=True)
    return found if plain else None


def _matmul(mode: Watch, args: Any, kwargs: Any) -> Product | None:
    given = _bind(("input", "other"), args, kwargs)
    return _rows_times(mode, given.get("input"), given.get("other", given.get("mat2")), None, flipped=True)


def _rows_times(mode: Watch, x: Any, weight: Any, bias: Any, flipped: bool = False) -> Product | None:
    known = mode.numbered(weight)
    if known is None or x is None or x.dim() < 2 or weight.dim() != 2:
        return None
    if bias is not None and bias.shape != (weight.shape[1 if flipped else 0],):  # not one number a channel
        return None
    return Product(*known, "linear", x, weight, bias, flipped=flipped)


_MATMULS = (
    torch.matmul, torch.mm, torch.linalg.matmul, torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.__matmul__,
)  # fmt: skip
_FORMS: dict[Any, Callable[[Watch, Any, Any], Product | None]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _conv),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _transposed),
    torch._C._nn.linear: _linear,
    **dict.fromkeys((torch.addmm, torch.Tensor.addmm), _addmm),
    **dict.fromkeys(_MATMULS, _matmul),
}
