"""Rules for tables and for what is picked by number."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peelcli.graph.labels.call import Call, is_weight, outputs, rule, tensors_of
from peelcli.graph.labels.factors import Factor, Labels
from peelcli.graph.labels.pointwise_rules import Operand, agree, merged
from peelcli.graph.labels.run import LabelRun

_REMEDY = "take slices or views in place of indices, where the model allows it"


@rule("embedding")
def _embedding(run: LabelRun, call: Call) -> None:
    """Rows of a table: its columns are channels that it makes."""
    column = call.before["weight"].along(1)
    factors: list[Factor] = []
    if column is not None:
        column = run.collapse(column, [1], "a table is looked up in it")
        run.makes(column)
        factors.append(column.reshape((1,) * (call.out.dim() - 1) + (-1,)))
    row = call.before["weight"].along(0)
    if row is not None:
        run.lock([row], "its rows are looked up by number")
    run.put(call.out, Labels(tuple(factors), call.before["indices"].weight))


@rule("gather", "take_along_dim")
def _gather(run: LabelRun, call: Call) -> None:
    """Along `dim` by number, along all others element by element."""
    index = "index" if "index" in call.before else "indices"
    rank = len(call.shapes["self"])
    dim = call["dim"] % max(rank, 1)
    operands = []
    for name in ("self", index):
        kept = [g for f in call.before[name].factors if (g := run.off(f, [dim], "it is picked by number")) is not None]
        present = {d for d, size in enumerate(call.shapes[name]) if size > 1 and d != dim}
        operands.append(Operand(kept, present))
    agree(run, operands)
    run.put(call.out, Labels(merged(operands), is_weight(call)))


@rule("index_select", "index", "masked_select", "_unsafe_index", "index_put", "_unsafe_index_put",
      "index_add", "index_copy", "scatter", "scatter_add", "select_scatter", "slice_scatter", "nonzero",
      "scatter_reduce", "take")  # fmt: skip
def _picked(run: LabelRun, call: Call) -> None:
    """Rows picked by number: along the other dimensions the labels stay."""
    name = call.first
    labels, shape = call.before[name], call.shapes[name]
    dims = _indexed_dims(call, len(shape))
    kept = [
        g for f in labels.factors if (g := run.off(f, dims, "its channels are picked by number", _REMEDY)) is not None
    ]
    for other, _, own, _ in tensors_of(call):
        if other != name:
            run.lock(own.factors, "it is used as, or put at, places that are picked by number", _REMEDY)
    for out in outputs(call):
        factors = [g for f in kept if (g := _after_pick(f, call, dims, out)) is not None]
        if len(factors) < len(kept):
            run.lock(kept, f"it can't be followed through {call.op}")
        run.put(out, Labels(tuple(factors), is_weight(call)))


def _indexed_dims(call: Call, rank: int) -> list[int]:
    if call.op in ("index", "_unsafe_index", "index_put", "_unsafe_index_put"):
        dims: list[int] = []
        at = 0
        for index in call["indices"]:
            width = 1
            if index is not None:
                width = index.dim() if index.dtype in (torch.bool, torch.uint8) else 1
                dims.extend(range(at, at + width))
            at += width
        return dims
    if call.get("dim") is not None:
        return [call["dim"] % max(rank, 1)]
    return list(range(rank))


def _after_pick(factor: Factor, call: Call, dims: Sequence[int], out: torch.Tensor) -> Factor | None:
    """The factor in the shape that indexing leaves; None where that is not plain."""
    if factor.ndim == out.dim() and call.op not in ("index", "_unsafe_index"):
        fits = all(s in (1, t) for s, t in zip(factor.shape, out.shape, strict=True))
        return factor if fits else None
    if call.op not in ("index", "_unsafe_index") or not dims:
        return factor if factor.ndim == out.dim() else None
    inserted = out.dim() - (factor.ndim - len(dims))
    together = list(dims) == list(range(dims[0], dims[0] + len(dims)))
    rest = [s for d, s in enumerate(factor.shape) if d not in dims]
    at = dims[0] if together else 0
    sizes = rest[:at] + [1] * inserted + rest[at:]
    moved = factor.reshape(sizes)
    return moved if all(s in (1, t) for s, t in zip(sizes, out.shape, strict=True)) else None
