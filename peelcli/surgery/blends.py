"""Ops that mix channels without weights, computed over the kept channels only.

A norm, a mean or a softmax over channels, and a product of two activations: zeros in a consumer don't undo what they
saw of the removed channels. In the masked original each of them is run on the kept entries, as in the slim model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from peelcli.records import Blend, Cut

_LAYER_NORMS = ("native_layer_norm", "_fused_rms_norm", "layer_norm", "rms_norm")
_GROUP_NORMS = ("native_group_norm", "group_norm")


@dataclass
class _Site:
    """One call of one op, with the entries that go from it."""

    blend: Blend
    gone: set[int]


class KeptBlends(TorchDispatchMode):
    """Runs the mixing ops of one forward pass on kept entries; what was removed comes out as zero.

    Attributes:
        used: calls for which this made a difference, as (op, call).
    """

    def __init__(self, cuts: Sequence[Cut]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used: set[tuple[str, int]] = set()
        self._counts: dict[str, int] = defaultdict(int)
        self._sites = _sites(cuts)
        self._ops = {op for op, _ in self._sites}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        op = func._overloadpacket.__name__
        if op not in self._ops:
            return func(*args, **kwargs)
        call = self._counts[op]
        self._counts[op] += 1
        sites = self._sites.get((op, call))
        if not sites:
            return func(*args, **kwargs)
        self.used.add((op, call))
        return _on_kept(func, op, list(args), kwargs, sites)


def _sites(cuts: Sequence[Cut]) -> dict[tuple[str, int], list[_Site]]:
    """What goes at each call; several groups may meet in one tensor, e.g. behind a concat."""
    table: dict[tuple[str, int], list[_Site]] = defaultdict(list)
    for cut in cuts:
        removed = sorted(set(range(cut.group.full)) - set(cut.kept))
        for blend in cut.group.blends if removed else ():
            gone = {entry for channel in removed for entry in blend.indices[channel]}
            same = next((s for s in table[blend.op, blend.call] if s.blend.operands == blend.operands), None)
            if same is None:
                table[blend.op, blend.call].append(_Site(blend, gone))
            else:
                same.gone |= gone
    return table


def _on_kept(func: Any, op: str, args: list[Any], kwargs: Any, sites: Sequence[_Site]) -> Any:
    full: dict[int, tuple[int, torch.Tensor]] = {}
    for site in sites:
        kept: torch.Tensor | None = None
        for position, dim in site.blend.operands:
            tensor = args[position]
            if tensor is None:
                continue
            if kept is None:
                kept = _kept(tensor, dim, site.gone)
                full[site.blend.out] = (tensor.shape[dim], kept)
            args[position] = tensor.index_select(dim, kept)
        if kept is not None:
            _resize(op, args, len(kept))
    out = func(*args, **kwargs)
    for dim, (size, kept) in full.items():
        if dim >= 0:
            out = _widened(out, dim, size, kept)
    return out


def _kept(tensor: torch.Tensor, dim: int, gone: set[int]) -> torch.Tensor:
    return torch.tensor([k for k in range(tensor.shape[dim]) if k not in gone], device=tensor.device)


def _resize(op: str, args: list[Any], kept: int) -> None:
    """Sizes that a norm is told."""
    if op in _LAYER_NORMS:
        args[1] = [*args[1][:-1], kept]
    elif op == "native_group_norm":
        if args[6] == args[4]:
            args[6] = kept
        args[4] = kept


def _widened(out: Any, dim: int, size: int, kept: torch.Tensor) -> Any:
    first = out[0] if isinstance(out, (tuple, list)) else out
    shape = list(first.shape)
    shape[dim] = size
    wide = torch.zeros(shape, dtype=first.dtype, device=first.device).index_copy(dim, kept, first)
    return (wide, *out[1:]) if isinstance(out, (tuple, list)) else wide
