"""All other operator calls as plain PyTorch: Python operators, methods of tensors, functions of torch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F  # noqa: N812

from peelcli.rebuild.calls import operator_name

Call = tuple[str, Any, tuple[Any, ...], dict[str, Any]]  # op, target, args, kwargs as fx.Graph.create_node takes them

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "neg": operator.neg,
    "matmul": operator.matmul, "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
_METHODS = {
    "sym_size": "size", "sym_numel": "numel", "permute": "permute", "transpose": "transpose", "softmax": "softmax",
    "to": "to", "_to_copy": "to", "type_as": "type_as", "mean": "mean", "sum": "sum", "select": "select",
    "unbind": "unbind", "chunk": "chunk", "squeeze": "squeeze", "unsqueeze": "unsqueeze", "flatten": "flatten",
    "contiguous": "contiguous", "clone": "clone", "masked_fill": "masked_fill", "pow": "pow", "roll": "roll",
    "lift_fresh_copy": "clone", "new_zeros": "new_zeros", "new_ones": "new_ones",
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "linear": F.linear, "conv1d": F.conv1d, "conv2d": F.conv2d, "conv3d": F.conv3d, "embedding": F.embedding,
    "scaled_dot_product_attention": F.scaled_dot_product_attention, "cat": torch.cat, "stack": torch.stack,
    "arange": torch.arange, "where": torch.where, "einsum": torch.einsum, "bmm": torch.bmm,
}  # fmt: skip
_DEVICE_WORDS = ("layout", "pin_memory", "device")


def plainly(node: fx.Node) -> Call | None:
    """What to write instead of an operator call; None where the operator itself is the best that there is."""
    library, _, rest = operator_name(node).partition(".")
    name, args, kwargs = rest.partition(".")[0], tuple(node.args), dict(node.kwargs)
    if library != "aten":
        return None
    kwargs = {key: value for key, value in kwargs.items() if key not in _DEVICE_WORDS or not _is_cpu(value)}
    if name in _ARITHMETIC and not kwargs and len(args) <= 2:
        return "call_function", _ARITHMETIC[name], args, {}
    if name == "embedding":
        return _embedding(args) if not kwargs else None
    if name in _METHODS and _fits(name, node):
        return "call_method", _METHODS[name], args, kwargs
    if name in FUNCTIONS and _fits(name, node):
        return "call_function", FUNCTIONS[name], args, kwargs
    if name.endswith("_") and not kwargs and callable(getattr(torch.Tensor, name, None)):
        return "call_method", name, args, {}  # it writes into its first argument
    return None


def _is_cpu(value: Any) -> bool:
    return value in (None, False, torch.strided) or value == torch.device("cpu")


def _embedding(args: tuple[Any, ...]) -> Call | None:
    weight, indices, *rest = args
    return None if any(rest[1:]) else ("call_function", F.embedding, (indices, weight), {})


def _fits(name: str, node: fx.Node) -> bool:
    """Whether method and function take the operator's arguments in the operator's order."""
    if name == "to":
        return str(node.target) in ("aten.to.dtype", "aten.to.other")
    if name == "einsum":
        return not node.kwargs and len(node.args) == 2
    if name in ("conv1d", "conv2d", "conv3d"):
        return not any(isinstance(argument, str) for argument in node.args)
    return True
