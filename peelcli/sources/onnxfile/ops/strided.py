"""Other shapes, spelled as positions: torch's exporter writes a view by strides as all entries, picked one by one."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from peelcli.sources.onnxfile import layers
from peelcli.sources.onnxfile.builder import Builder
from peelcli.sources.onnxfile.ops.shapes import following
from peelcli.sources.onnxfile.values import Constant, Value, example_of

_MOST = 2**24  # entries that are compared


class _NotFixed(Exception):
    """Positions that depend on more than sizes."""


def as_reshape(builder: Builder, flat: fx.Node, positions: Value) -> fx.Node | None:
    """A layer that reshapes, where positions in a flattened tensor pick every entry once and in order.

    Args:
        builder: of the module.
        flat: what is picked from.
        positions: of any shape.

    Returns:
        None where they do anything else.
    """
    source = _flattened(builder, flat)
    if source is None:
        return None
    if isinstance(positions, Constant):
        found, times = positions.tensor, builder.batch // builder.fixed if builder.follow else 1
    elif isinstance(positions, fx.Node) and example_of(positions).numel() <= _MOST:
        try:
            found, times = _evaluated(builder, positions), 1
        except _NotFixed:
            return None
    else:
        return None
    entries = found.numel()
    if entries * times != example_of(source).numel() or not torch.equal(found.reshape(-1), torch.arange(entries)):
        return None
    sizes: list[Any] = list(found.shape)
    if builder.follow:
        sizes = following(builder, source, sizes)
    elif found.dim() and builder.holds_batch(found.shape[0]) and found.shape[0] == example_of(source).shape[0]:
        sizes[0] = builder.size(source, 0)
    elif any(builder.holds_batch(size) for size in found.shape):
        return None
    fixed, given = builder.parts(sizes)
    return builder.module(layers.Reshape(fixed), source, *given)


def _flattened(builder: Builder, node: fx.Node) -> fx.Node | None:
    """What a node flattens to one dimension."""
    if node.op != "call_module" or example_of(node).dim() != 1:
        return None
    layer = builder.root.get_submodule(str(node.target))
    source = node.args[0] if node.args else None
    return source if isinstance(layer, layers.Reshape) and isinstance(source, fx.Node) else None


def _evaluated(builder: Builder, node: fx.Node) -> Any:
    """The whole numbers that a node stands for with the example's sizes."""
    example = node.meta["val"]
    if isinstance(example, int):
        return example
    if node.op == "placeholder" or not isinstance(example, Tensor) or example.dtype is not torch.int64:
        raise _NotFixed
    if node.op == "get_attr":
        return operator.attrgetter(str(node.target))(builder.root).detach()
    args = fx.map_arg(node.args, lambda inner: _evaluated(builder, inner))
    kwargs = fx.map_arg(node.kwargs, lambda inner: _evaluated(builder, inner))
    if node.op == "call_module":
        return builder.root.get_submodule(str(node.target))(*args)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)
