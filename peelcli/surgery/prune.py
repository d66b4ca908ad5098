"""Carry out a plan on a copy of the model: every tensor loses its entries, every attribute follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import torch
from torch import nn

from peelcli.errors import PlanError
from peelcli.records import Attribute, Cut
from peelcli.tensors import full_copy, named_tensors, parent_of

Removed = dict[str, dict[int, set[int]]]  # tensor -> dimension -> entries


def apply_cuts(module: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """A slim copy of a module; the original is not changed.

    Args:
        module: the model that the cuts were planned for.
        cuts: one per group; groups at full width change nothing.

    Returns:
        A copy of the same classes, in the same mode, with the same requires_grad flags and tied tensors.

    Raises:
        PlanError: a tensor or module that the cuts name is not there, or has another shape.
    """
    tensors = dict(named_tensors(module))
    slim = full_copy(module, {id(tensors[name]): slim for name, slim in cut_tensors(module, cuts).items()})
    for cut in cuts:
        bundles = (cut.group.full - cut.width) // cut.group.bundle_size
        for attribute in cut.group.attributes if bundles else ():
            _lower(slim, attribute, bundles)
    return slim


def cut_tensors(
    module: nn.Module, cuts: Sequence[Cut], among: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """By name, the tensors that lose entries as they are without them; all, or some. Raises as `apply_cuts`."""
    tensors = dict(named_tensors(module))
    found = {}
    for name, by_dim in entries_of(cuts, removed=True).items():
        if name not in tensors:
            raise PlanError(f"the plan cuts {name}, which this model does not have")
        if among is None or name in among:
            found[name] = _cut_tensor(name, tensors[name], by_dim)
    return found


def entries_of(cuts: Sequence[Cut], removed: bool, role: str | None = None) -> Removed:
    """Which entries of which tensors the cuts remove, or keep; of one role only where that is given."""
    table: Removed = defaultdict(lambda: defaultdict(set))
    for cut in cuts:
        gone = set(range(cut.group.full)) - set(cut.kept)
        channels = gone if removed else cut.kept
        if not gone:
            continue
        for piece in cut.group.slices:
            if role is None or piece.role == role:
                table[piece.tensor][piece.dim].update(i for c in channels for i in piece.indices[c])
    return table


def _cut_tensor(name: str, tensor: torch.Tensor, by_dim: dict[int, set[int]]) -> torch.Tensor:
    """A new tensor or parameter without the removed entries."""
    result = tensor.detach()
    for dim, gone in by_dim.items():
        if dim >= tensor.dim() or (gone and max(gone) >= tensor.shape[dim]):
            raise PlanError(f"the plan does not fit the shape of {name}, {tuple(tensor.shape)}")
        kept = [entry for entry in range(tensor.shape[dim]) if entry not in gone]
        result = result.index_select(dim, torch.tensor(kept, dtype=torch.long, device=result.device))
    result = result.contiguous(memory_format=_layout(tensor))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(result, requires_grad=tensor.requires_grad)
    return result


def _layout(tensor: torch.Tensor) -> torch.memory_format:
    """Channels last where the tensor lies that way: GPUs are fast on one layout throughout."""
    for dims, last in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if tensor.dim() == dims and tensor.is_contiguous(memory_format=last) and not tensor.is_contiguous():
            return last
    return torch.contiguous_format


def _lower(slim: nn.Module, attribute: Attribute, bundles: int) -> None:
    """Lower one attribute, e.g. out_channels, by what the removed bundles took."""
    try:
        owner, name = parent_of(slim, f"{attribute.module}.{attribute.name}" if attribute.module else attribute.name)
        value = getattr(owner, name)
    except AttributeError as error:
        raise PlanError(f"the plan changes {attribute.module}.{attribute.name}, which is not there") from error
    loss = attribute.per_bundle * bundles
    if attribute.item is None:
        setattr(owner, name, value - loss)
        return
    items = list(value)
    items[attribute.item] -= loss
    setattr(owner, name, tuple(items))
