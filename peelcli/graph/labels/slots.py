"""Where code gives sizes to torch functions: each must still count the right entries after a cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.run import Extent, LabelRun, Slot
from peelcli.graph.labels.sizes import Source, Tracked, source_of

_MAKERS = ("zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full", "new_empty")
_ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "true_divide", "pow", "__rdiv__", "__rsub__", "__rpow__", "addcmul",
               "floor_divide", "remainder", "clamp", "clamp_min", "clamp_max", "maximum", "minimum")  # fmt: skip
_SPLITS = ("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")


def before(run: LabelRun, name: str, args: Any, kwargs: Any) -> None:
    """What must be noted before a function runs."""
    if name == "scaled_dot_product_attention" and kwargs.get("scale") is None and len(args) < 7:
        for tensor in args[:2]:
            for factor in run.of(tensor).factors:
                run.off(factor, [tensor.dim() - 1], "attention scales by the width of a head")
    if name in _ARITHMETIC:
        Tracked.leaks.extend((int(value), value.source) for value in args if isinstance(value, Tracked))
    if name in ("__getitem__", "__setitem__"):
        _slice_bounds(run, args[0], args[1])
    if name == "narrow":
        dim, start, length = ((*args[1:], *kwargs.values()))[:3]
        _bounds(run, args[0], dim % args[0].dim(), start, start + length, None)


def after(run: LabelRun, name: str, args: Any, kwargs: Any, out: Any) -> None:
    """Sizes that a function was given, against the labels of what it made."""
    follow = _FOLLOW.get(name)
    if follow is not None:
        follow(run, args, kwargs, out)


def _add(run: LabelRun, size: Any, extent: Extent | None, what: str) -> None:
    """One size that must count one extent; what is fixed on both sides needs no note."""
    if isinstance(size, bool) or not isinstance(size, int):
        return
    source: Source | int = source_of(size)
    labelled = extent is not None and extent.factor is not None
    if not labelled and isinstance(source, int):
        return
    how = "fixed in the code" if isinstance(source, int) else "computed in the code"
    obstacle = run.obstacle(f"a size of {int(size)} is {how} ({what})", "export it to .pt2 and prune that")
    run.found.slots.append(Slot(source, extent if labelled else None, obstacle, int(size)))


def _sizes_of(values: Sequence[Any]) -> list[Any]:
    flat: list[Any] = []
    for value in values:
        flat.extend(value if isinstance(value, (tuple, list)) else [value])
    return flat


def _reshape(run: LabelRun, args: Any, kwargs: Any, out: Any) -> None:
    sizes = _sizes_of([*args[1:], *kwargs.values()])
    if not all(isinstance(size, int) for size in sizes):
        return
    _against(run, sizes, out, "view")


def _against(run: LabelRun, sizes: Sequence[Any], out: torch.Tensor, what: str) -> None:
    shift = out.dim() - len(sizes)
    for k, size in enumerate(sizes):
        if size != -1 and 0 <= k + shift < out.dim() and int(size) == out.shape[k + shift]:
            _add(run, size, run.extent(out, k + shift), what)


def _unflatten(run: LabelRun, args: Any, kwargs: Any, out: Any) -> None:
    dim = args[1] if len(args) > 1 else kwargs["dim"]
    sizes = args[2] if len(args) > 2 else kwargs["sizes"]
    start = dim % args[0].dim()
    for k, size in enumerate(sizes):
        if size != -1:
            _add(run, size, run.extent(out, start + k), "unflatten")


def _repeat(run: LabelRun, args: Any, kwargs: Any, out: Any) -> None:
    times = _sizes_of([*args[1:], *kwargs.values()])
    shift = out.dim() - len(times)
    lead = out.dim() - args[0].dim()
    for k, size in enumerate(times):
        dim = k + shift
        if isinstance(size, int) and size > 1 and (dim < lead or args[0].shape[dim - lead] == 1):
            _add(run, size, run.extent(out, dim), "repeat")


def _made(run: LabelRun, args: Any, kwargs: Any, out: Any) -> None:
    own = args[1:] if args and isinstance(args[0], torch.Tensor) else args
    given = kwargs.get("size", own)
    first = given[0] if len(given) == 1 or (given and isinstance(given[0], (tuple, list))) else given
    sizes = list(first) if isinstance(first, (tuple, list)) else [first]
    sizes = [size for size in sizes if isinstance(size, int)]
    if len(sizes) == out.dim():
        _against(run, sizes, out, "a new tensor")


def _split(run: LabelRun, args: Any, kwargs: Any, out: Any) -> None:
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    sizes = args[1] if len(args) > 1 else next(iter(v for k, v in kwargs.items() if k != "dim"))
    each = sizes if isinstance(sizes, (tuple, list)) else [sizes] * len(out)
    for part, size in zip(out, each, strict=False):
        if int(size) == part.shape[dim]:
            _add(run, size, run.extent(part, dim), "split")
        else:
            run.lock(run.of(part).factors, "it is what remains of a split")


def _slice_bounds(run: LabelRun, tensor: torch.Tensor, index: Any) -> None:
    items = index if isinstance(index, tuple) else (index,)
    taken = sum(_width(item) for item in items)
    dim = 0
    for item in items:
        if item is Ellipsis:
            dim += tensor.dim() - taken
        elif isinstance(item, slice):
            if dim < tensor.dim():
                _bounds(run, tensor, dim, item.start, item.stop, item.step)
            dim += 1
        else:
            dim += _width(item)


def _width(item: Any) -> int:
    """Dimensions that one item of an index uses up."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, torch.Tensor) and item.dtype is torch.bool:
        return item.dim()
    return 1


def _bounds(run: LabelRun, tensor: torch.Tensor, dim: int, start: Any, stop: Any, step: Any) -> None:
    extent = run.extent(tensor, dim)
    if extent.factor is None or step not in (None, 1):
        return
    if len(fac.varying(extent.factor)) > 1:
        return  # the slice's own rule ties it
    for bound in (start, stop):  # the entries before it, or behind it where it counts from the end
        if not isinstance(bound, int) or bound == 0 or abs(bound) >= extent.size:
            continue
        from_end = bound < 0
        place = bound % extent.size
        first = place if from_end else 0
        kept = fac.narrow(extent.factor, dim, first, extent.size - place if from_end else place)
        size = -bound if from_end else bound
        _add(run, size, Extent(abs(int(bound)), kept, dim), "a slice")


def _groups(run: LabelRun, args: Any, kwargs: Any, _out: Any) -> None:
    groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
    if run.groups_of_conv is not None:
        _add(run, groups, run.groups_of_conv, "groups")


def _normalized(run: LabelRun, args: Any, kwargs: Any, out: Any) -> None:
    shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
    for k, size in enumerate(reversed(list(shape))):
        _add(run, size, run.extent(out, out.dim() - 1 - k), "normalized_shape")


def _group_norm(run: LabelRun, args: Any, kwargs: Any, _out: Any) -> None:
    if run.groups_of_conv is not None:
        _add(run, kwargs.get("num_groups", args[1] if len(args) > 1 else 0), run.groups_of_conv, "norm groups")


_FOLLOW: dict[str, Callable[[LabelRun, Any, Any, Any], None]] = {
    **dict.fromkeys(("view", "reshape", "expand", "broadcast_to", "_unsafe_view"), _reshape),
    **dict.fromkeys(_MAKERS, _made),
    **dict.fromkeys(_SPLITS, _split),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _groups),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _groups),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalized),
    "unflatten": _unflatten,
    "repeat": _repeat,
    "tile": _repeat,
    "group_norm": _group_norm,
}
