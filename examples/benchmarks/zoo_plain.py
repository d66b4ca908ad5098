"""The other side of the zoo: torch-pruning as its readme shows it, judged by the same rules.

Ratio 0.5 in every group by group magnitude, the layers that make the output ignored, no hints for the model. Then: does
the result run, is it smaller, does it train, and is it right: in float64 it has to equal the original with the removed
slices set to zero. Which slices those are is read from the tensors: pruning only selects, and the entries of every
weight differ, so that each entry that is left tells where it was. Norms over channels take their statistics over the
kept ones. Where an output has changed shape, or the model does not run in float64, there is no verdict (None).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode
from zoo_judge import ROUND_OFF, Row, Stalled, at_most, macs_of, one_line, params_of, trains
from zoo_models.entry import Entry, inputs_of, liven

from peelcli.tensors import default_float64, full_copy, tensors_in

RATIO = 0.5
SAMPLES = 64  # values of each row that are looked up
LIMIT = 60.0  # CPU seconds for building the graph and pruning
Kept = dict[str, dict[int, torch.Tensor]]
"""For each tensor that shrank, by dimension: the entries that are left."""


def measure(row: Row, entry: Entry) -> None:
    """Prune a model as a user would, and put down what came of it."""
    with row.stage("build"):
        module = liven(entry)
        inputs = inputs_of(entry, module)
        original = full_copy(module)
        row.tell(macs=macs_of(original, inputs), params=params_of(original))
    try:
        with row.stage("prune"), at_most(LIMIT):
            prune(module, inputs)
    except Stalled:
        return row.tell(outcome="hang", reason=f"over {LIMIT:.0f} s")
    except Exception as error:  # whatever torch-pruning raises
        return row.tell(outcome="error", reason=one_line(error))
    with row.stage("forward"):
        try:
            cost = macs_of(module.eval(), inputs)
        except Exception as error:  # whatever a forward raises when its shapes don't fit
            return row.tell(outcome="does not run", reason=one_line(error))
    row.tell(ratio=cost / row["macs"], params_ratio=params_of(module) / row["params"])
    with row.stage("equivalence"):
        same, gap, note = equivalence(original, module, inputs)
        row.tell(same=same, gap=gap, note=note)
    with row.stage("train"):
        moved, heard = trains(module, inputs, original)
        row.tell(trains=moved, heard=heard)
    outcome, reason = judged(row)
    return row.tell(outcome=outcome, reason=reason)


def judged(row: Row) -> tuple[str, str]:
    """The outcome of a model that still runs."""
    if row["ratio"] >= 1:
        return "not smaller", ""
    if row["same"] is False:
        return "wrong", row["note"] or f"differs from the masked original by {row['gap']:.1e}"
    if not row["trains"]:
        return "wrong", f"does not train: {row['heard']}"
    return ("right", "") if row["same"] else ("unproven", row["note"])


def prune(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """What a user writes."""
    import torch_pruning as tp

    pruner = tp.pruner.MagnitudePruner(
        module,
        inputs if len(inputs) > 1 else inputs[0],
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=output_layers(module, inputs),
    )
    pruner.step()


def output_layers(module: nn.Module, inputs: tuple[Any, ...]) -> list[nn.Module]:
    """The layers between which and the output there is nothing else with weights; the last one where none is."""
    made_by: dict[Any, nn.Module] = {}
    called: list[nn.Module] = []

    def note(layer: nn.Module, _inputs: Any, output: Any) -> None:
        called.append(layer)
        made_by.update({t.grad_fn: layer for t in tensors_in(output) if t.grad_fn is not None})

    leaves = [m for m in module.modules() if not [*m.children()] and [*m.parameters(recurse=False)]]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    with torch.enable_grad():
        output = module(*inputs)
    for hook in hooks:
        hook.remove()
    found: list[nn.Module] = []
    todo, seen = [t.grad_fn for t in tensors_in(output)], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in made_by:
            found.append(made_by[node])
        else:
            todo += [before for before, _ in node.next_functions]
    weighted = (nn.Linear, nn.modules.conv._ConvNd)
    last = [layer for layer in called if isinstance(layer, weighted)][-1:]
    return [layer for layer in dict.fromkeys(found) if isinstance(layer, weighted)] or last


def equivalence(original: nn.Module, slim: nn.Module, inputs: tuple[Any, ...]) -> tuple[bool | None, float | None, str]:
    """Whether the pruned model computes what the original computes without what was removed."""
    try:
        kept = kept_entries(original, slim)
    except ValueError as error:
        return False, None, str(error)
    with default_float64():
        masked, slim = full_copy(original).double().eval(), full_copy(slim).double().eval()
        _silence(masked, kept)
        try:
            with torch.no_grad(), KeptStatistics(masked, kept):
                wanted = [tensors_in(masked(*sample)) for sample in _samples(inputs)]
        except Exception as error:  # whatever the model raises in float64
            return None, None, f"the original does not run in float64: {one_line(error)}"
        try:
            with torch.no_grad():
                got = tensors_in(slim(*next(_samples(inputs))))
        except Exception as error:  # whatever a forward raises when its shapes don't fit
            return False, None, one_line(error)
    return _compared(got, *wanted)


def _compared(
    got: list[torch.Tensor], wanted: list[torch.Tensor], other: list[torch.Tensor]
) -> tuple[bool | None, float | None, str]:
    """The largest difference, measured against how far another input moves the output."""
    if len(got) != len(wanted):
        return None, None, "the number of outputs changed"
    gaps = []
    for a, whole, moved in zip(got, wanted, other, strict=True):
        if not whole.is_floating_point() or not whole.numel():
            continue
        b = _without_silence(whole, a.shape)
        if b.shape != a.shape:
            return None, None, "an output changed shape"
        size = float(whole.abs().max())
        distance = float((whole - moved).abs().max()) if whole.shape == moved.shape else size
        if distance > 1e-5 * size:
            gaps.append(float((a - b).abs().max()) / distance)
    if not gaps:
        return None, None, "no output depends on the input"
    worst = max(gaps)
    return worst <= ROUND_OFF, worst, ""


def _without_silence(whole: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """An output without the channels that are zero throughout, where the pruned model's has fewer."""
    for dim in range(whole.dim()):
        if whole.dim() == len(shape) and whole.shape[dim] > shape[dim]:
            loud = whole.movedim(dim, 0).flatten(1).abs().amax(1).nonzero().flatten()
            whole = whole.index_select(dim, loud)
    return whole


def _samples(inputs: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Two inputs: noise for floats, the example's own indices in another order for integers."""
    generator = torch.Generator().manual_seed(0)

    def like(value: Any, turn: int) -> Any:
        if not torch.is_tensor(value):
            return value
        if not value.is_floating_point():
            return value.roll(turn, -1) if value.numel() > 1 else value
        return torch.randn(value.shape, generator=generator, dtype=torch.float64)

    for turn in range(2):
        yield tuple(like(value, turn) for value in inputs)


def kept_entries(original: nn.Module, slim: nn.Module) -> Kept:
    """Which entries of each shrunken tensor are left, found by their values.

    Raises:
        ValueError: a tensor is no selection of the original's rows and columns.
    """
    after = dict(slim.named_parameters(remove_duplicate=False))
    kept: Kept = {}
    for name, before in original.named_parameters(remove_duplicate=False):
        if name not in after:
            raise ValueError(f"{name} is gone")
        if after[name].shape != before.shape:
            kept[name] = _selection(_array(before), _array(after[name]), name)
    return kept


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()


def _selection(before: np.ndarray, after: np.ndarray, name: str) -> dict[int, torch.Tensor]:
    """What is left of each dimension that shrank; a sample of the values says it where there are many in each row."""
    dims = [dim for dim, (old, new) in enumerate(zip(before.shape, after.shape, strict=False)) if old != new]
    in_a_row = min(before.size // before.shape[dim] for dim in dims) if dims else 0
    for every in (max(1, in_a_row // SAMPLES), 1):
        rows = _found(before, after, every)
        if before.ndim == after.ndim and all(len(rows[dim]) == after.shape[dim] for dim in dims):
            return {dim: torch.from_numpy(rows[dim]) for dim in dims}
    raise ValueError(f"{name} is no selection of the original's entries")


def _found(before: np.ndarray, after: np.ndarray, every: int) -> list[np.ndarray]:
    """Positions of the values of `after` in `before`, by dimension, of one value in so many; unique values only."""
    chosen = np.flatnonzero(before.view(np.int32).ravel() % every == 0)  # the last bits of random floats are random
    values, first, counts = np.unique(before.ravel()[chosen], return_index=True, return_counts=True)
    wanted = after.ravel()[after.view(np.int32).ravel() % every == 0]
    at = np.searchsorted(values, wanted).clip(max=len(values) - 1)
    known = at[(values[at] == wanted) & (counts[at] == 1)]
    return [np.unique(place) for place in np.unravel_index(chosen[first[known]], before.shape)]


def _silence(masked: nn.Module, kept: Kept) -> None:
    """Zero what was removed, on both sides of each layer."""
    with torch.no_grad():
        for name, tensor in masked.named_parameters(remove_duplicate=False):
            for dim, rows in kept.get(name, {}).items():
                gone = torch.ones(tensor.shape[dim], dtype=torch.bool).index_fill_(0, rows, False)
                tensor.index_fill_(dim, gone.nonzero().flatten(), 0)


class KeptStatistics(TorchFunctionMode):
    """layer_norm, group_norm and rms_norm over the kept channels; removed ones come out as zero."""

    def __init__(self, masked: nn.Module, kept: Kept) -> None:
        super().__init__()
        self._kept = {id(tensor): kept[name][0] for name, tensor in masked.named_parameters(remove_duplicate=False)
                      if tensor.dim() == 1 and name in kept}  # fmt: skip

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = _NORMS.get(func)
        values = {**dict(zip(names or (), args, strict=False)), **(kwargs or {})}
        rows = self._kept.get(id(values.get("weight"))) if names else None
        if rows is None:
            return func(*args, **(kwargs or {}))
        dim = 1 if "num_groups" in values else -1
        values["input"], whole = values["input"].index_select(dim, rows), values["input"]
        values |= {n: values[n][rows] for n in ("weight", "bias") if values.get(n) is not None}
        if "normalized_shape" in values:
            values["normalized_shape"] = (len(rows),)
        return torch.zeros_like(whole).index_copy(dim, rows, func(**values))


_LAYER = ("input", "normalized_shape", "weight", "bias", "eps")
_GROUP = ("input", "num_groups", "weight", "bias", "eps")
_RMS = ("input", "normalized_shape", "weight", "eps")
_NORMS: dict[Callable[..., Any], tuple[str, ...]] = {F.layer_norm: _LAYER, F.group_norm: _GROUP, F.rms_norm: _RMS}
