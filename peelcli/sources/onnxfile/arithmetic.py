"""Ops on sizes, done entry by entry in Python, so that each size that comes out still follows the tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from peelcli.sources.onnxfile.builder import MOST_SIZES, Builder
from peelcli.sources.onnxfile.ops.base import TABLE, Op, dtype_of
from peelcli.sources.onnxfile.values import Number, Sizes, Unsupported, Value, as_array, as_sizes, example_int, settled

_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}
_PICKED: dict[str, Callable[[int, int], bool]] = {"Max": lambda a, b: a >= b, "Min": lambda a, b: a <= b}

_MIXED = frozenset({"Add", "Sub", "Mul", "Div", "Mod"})


def apply(builder: Builder, op: Op) -> Value | None:
    """The outcome of an op on sizes, or None where it makes a tensor of them."""
    if op.kind in _COMPARED:
        one, other = (_examples(op, position) for position in range(2))
        return settled(as_array(_COMPARED[op.kind](one, other).astype(bool)))
    if op.kind in ("Max", "Min"):
        return settled(_extreme(op))
    if op.kind == "Cast":
        return settled(as_array(_cast(builder, op)))
    act = _OPS.get(op.kind)
    if act is None or any(as_sizes(value) is None for value in op.inputs if value is not None and op.kind != "Where"):
        return None
    if op.kind in _MIXED and any(np.size(as_array(as_sizes(v))) > MOST_SIZES for v in op.inputs if v is not None):
        return None
    try:
        return settled(as_array(act(op)))
    except Unsupported:
        if op.kind in TABLE:  # what depends on sizes in other ways may do as a tensor
            return None
        raise


def _entries(op: Op, position: int) -> Sizes:
    sizes = as_sizes(op.value(position))
    if sizes is None:
        raise Unsupported("mixes sizes with other values")
    return sizes


def _examples(op: Op, position: int) -> np.ndarray[Any, Any]:
    """The values for the example; a size is never what it is compared with by accident, the batch is odd."""
    sizes = _entries(op, position)
    return np.array([example_int(entry) for entry in sizes.reshape(-1)], dtype=np.int64).reshape(sizes.shape)


def _extreme(op: Op) -> Sizes:
    made = _entries(op, 0)
    for position in range(1, len(op.inputs)):
        one, other = np.broadcast_arrays(made, _entries(op, position))
        picked = [a if _PICKED[op.kind](example_int(a), example_int(b)) else b for a, b in zip(one.flat, other.flat)]  # noqa: B905
        made = as_array(picked).reshape(one.shape)
    return made


def _div(op: Op) -> Any:
    one, other = _entries(op, 0), _entries(op, 1)
    if any(example_int(entry) == 0 for entry in other.flat):
        raise Unsupported("divides by a size of zero")
    return one // other


def _cast(builder: Builder, op: Op) -> Any:
    """To whole numbers: nothing to do. To floating ones: the sizes that this file has, unless they hold the batch."""
    entries = _entries(op, 0)
    dtype = dtype_of(op.get("to", 7))
    if dtype.is_floating_point or dtype is torch.bool:
        plain = [builder.frozen(entry) for entry in entries.reshape(-1)]
        if any(isinstance(entry, Number) for entry in plain):
            raise Unsupported("computes with the batch as a floating number")
        kind: Any = float if dtype.is_floating_point else bool
        return as_array([kind(entry) for entry in plain]).reshape(entries.shape)
    return entries


def _gather(op: Op) -> Any:
    positions = _entries(op, 1)
    if any(isinstance(entry, Number) for entry in positions.flat):
        raise Unsupported("picks a size by a size")
    index = np.array(positions.tolist(), dtype=np.int64).reshape(positions.shape)
    taken = np.empty(index.shape, dtype=object) if _entries(op, 0).ndim == 1 else None
    if taken is None:
        return np.take(_entries(op, 0), index, axis=int(op.get("axis", 0)))
    taken[...] = np.take(_entries(op, 0), index)
    return taken


def _slice(op: Op) -> Any:
    entries = _entries(op, 0)
    starts, ends = op.ints("starts", 1) or [], op.ints("ends", 2) or []
    axes = op.ints("axes", 3) or list(range(len(starts)))
    steps = op.ints("steps", 4) or [1] * len(starts)
    cuts = [slice(None)] * entries.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        backwards = step < 0 and end < -entries.shape[axis]
        cuts[axis] = slice(start, None if backwards else end, step)
    return entries[tuple(cuts)]


def _where(op: Op) -> Any:
    condition = op.constant(0)
    if condition is None:
        raise Unsupported("lacks its condition")
    return np.where(condition.tensor.numpy(), _entries(op, 1), _entries(op, 2))


def _squeeze(op: Op) -> Any:
    axes = op.ints("axes", 1)
    return np.squeeze(_entries(op, 0), axis=None if axes is None else tuple(axes))


def _product(op: Op) -> Any:
    made: Any = 1
    for entry in _entries(op, 0).flat:
        made = entry * made
    return made if not op.get("keepdims", 1) else [made]


def _reshape(op: Op) -> Any:
    return _entries(op, 0).reshape([int(entry) for entry in op.ints("shape", 1) or []])


def _expand(op: Op) -> Any:
    shape = op.ints("shape", 1) or []
    return np.broadcast_to(_entries(op, 0), np.broadcast_shapes(_entries(op, 0).shape, tuple(shape)))


def _concat(op: Op) -> Any:
    return np.concatenate([_entries(op, at) for at in range(len(op.inputs))], axis=int(op.get("axis", 0)))


_OPS: dict[str, Callable[[Op], Any]] = {
    "Add": lambda op: _entries(op, 0) + _entries(op, 1),
    "Sub": lambda op: _entries(op, 0) - _entries(op, 1),
    "Mul": lambda op: _entries(op, 0) * _entries(op, 1),
    "Mod": lambda op: _entries(op, 0) % _entries(op, 1),
    "Neg": lambda op: -_entries(op, 0),
    "Div": _div,
    "Floor": lambda op: _entries(op, 0),
    "Ceil": lambda op: _entries(op, 0),
    "Identity": lambda op: _entries(op, 0),
    "Gather": _gather,
    "Slice": _slice,
    "Where": _where,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": lambda op: np.expand_dims(_entries(op, 0), tuple(op.ints("axes", 1) or [])),
    "Transpose": lambda op: np.transpose(_entries(op, 0), op.ints("perm")),
    "Reshape": _reshape,
    "Expand": _expand,
    "ReduceProd": _product,
    "Shape": lambda op: list(_entries(op, 0).shape),
    "Size": lambda op: _entries(op, 0).size,
}


def knows(kind: str) -> bool:
    """Whether an op can be done on sizes."""
    return kind in _OPS or kind in _COMPARED or kind == "Cast"
