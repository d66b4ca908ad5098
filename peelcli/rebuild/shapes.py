"""Operator calls with sizes baked in: which small module of `ops` reads them at run time instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from peelcli.rebuild import ops
from peelcli.rebuild.calls import ENDLESS, Recipe, bound, operator_name, shape_of
from peelcli.rebuild.layers import Layer

Arguments = Mapping[str, Any]

RESHAPES = {"aten.view.default": "size", "aten.reshape.default": "shape", "aten._unsafe_view.default": "size"}
_FILLED = {"aten.zeros.default": 0.0, "aten.ones.default": 1.0, "aten.full.default": None}


def sized_of(node: fx.Node) -> Layer | None:
    """The module that computes what a call with sizes computes, or None where the call is of another kind."""
    finder = _FINDERS.get(operator_name(node))
    return finder(bound(node)) if finder is not None else None


def settle_sizes(node: fx.Node) -> None:
    """Write what is computed at run time, such as a dynamic batch, as -1 where one size of a view is enough for that.

    The arithmetic that computed it then has no reader left.
    """
    key = RESHAPES.get(operator_name(node))
    if key is None:
        return
    sizes = list(bound(node)[key])
    moving = [at for at, size in enumerate(sizes) if isinstance(size, fx.Node)]
    if len(moving) != 1:
        return
    known = shape_of(node)
    if -1 in sizes:
        free = sizes.index(-1)
        if known is None or type(known[free]) is not int:
            return
        sizes[free] = known[free]
    sizes[moving[0]] = -1
    set_sizes(node, sizes)


def set_sizes(node: fx.Node, sizes: Sequence[Any]) -> None:
    """Replace the list of sizes of a view, expand, repeat or filled tensor: its last positional list."""
    at = 0 if operator_name(node) in _FILLED else 2 if operator_name(node) == "aten.unflatten.int" else 1
    node.update_arg(at, list(sizes))


def _given(sizes: Sequence[Any]) -> tuple[tuple[int, ...], tuple[fx.Node, ...]] | None:
    """Fixed sizes with a zero for each that is computed, and the nodes that compute those."""
    if any(type(size) is int and size == ops.GIVEN for size in sizes):
        return None  # an empty tensor
    fixed = tuple(ops.GIVEN if isinstance(size, fx.Node) else size for size in sizes)
    return fixed, tuple(size for size in sizes if isinstance(size, fx.Node))


def _with_sizes(kind: type[torch.nn.Module], key: str) -> Callable[[Arguments], Layer | None]:
    def finder(a: Arguments) -> Layer | None:
        split = _given(a[key])
        return split and Layer(Recipe(kind, (split[0],)), (a["self"], *split[1]))

    return finder


def _unflatten(a: Arguments) -> Layer | None:
    split = _given(a["sizes"])
    return split and Layer(Recipe(ops.Unflatten, (a["dim"], split[0])), (a["self"], *split[1]))


def _slice(a: Arguments) -> Layer | None:
    start, stop = a["start"] or 0, a["end"]
    if not all(type(value) is int for value in (start, a["step"], *(() if stop is None else (stop,)))):
        return None
    stop = None if stop == ENDLESS else stop
    return Layer(Recipe(ops.Slice, (a["dim"], start, stop, *((a["step"],) if a["step"] != 1 else ()))), (a["self"],))


def _split(key: str) -> Callable[[Arguments], Layer | None]:
    def finder(a: Arguments) -> Layer | None:
        sizes = tuple(a[key]) if isinstance(a[key], (list, tuple)) else a[key]
        if any(isinstance(size, fx.Node) for size in (sizes if isinstance(sizes, tuple) else (sizes,))):
            return None
        return Layer(Recipe(ops.Split, (sizes, a["dim"])), (a["self"],))

    return finder


def _pad(a: Arguments) -> Layer | None:
    sizes = tuple(a["pad"])
    if any(isinstance(size, fx.Node) for size in sizes) or a.get("mode", "constant") != "constant":
        return None
    return Layer(Recipe(ops.Pad, (sizes, a["value"] or 0.0)), (a["self"],))


def _filled(value: float | None) -> Callable[[Arguments], Layer | None]:
    def finder(a: Arguments) -> Layer | None:
        split, kind = _given(a["size"]), a["dtype"] or torch.float32
        filling = a["fill_value"] if value is None else value
        if split is None or a["device"] not in (None, torch.device("cpu")) or isinstance(filling, fx.Node):
            return None
        return Layer(Recipe(ops.Filled, (split[0], filling, kind)), split[1])

    return finder


_FINDERS: dict[str, Callable[[Arguments], Layer | None]] = {
    **{name: _with_sizes(ops.Reshape, key) for name, key in RESHAPES.items()},
    "aten.expand.default": _with_sizes(ops.Expand, "size"),
    "aten.repeat.default": _with_sizes(ops.Repeat, "repeats"),
    "aten.unflatten.int": _unflatten,
    "aten.slice.Tensor": _slice,
    "aten.split.Tensor": _split("split_size"),
    "aten.split.sizes": _split("split_size"),
    "aten.split_with_sizes.default": _split("split_sizes"),
    "aten.pad.default": _pad,
    "aten.constant_pad_nd.default": _pad,
    **{name: _filled(value) for name, value in _FILLED.items()},
}
