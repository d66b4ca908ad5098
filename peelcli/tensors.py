"""Small helpers on modules and tensors that several rooms need; none of them changes what it is given."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree


def meta_copy(module: nn.Module) -> nn.Module:
    """A copy of a module in eval mode whose tensors have shapes but no memory (device "meta").

    Parameters require gradients where their dtype allows it, whatever the original's flags: a frozen layer is
    traced like any other.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        empty = torch.empty_like(parameter, device="meta", requires_grad=False)
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.is_floating_point())
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo).eval()


def to_meta(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same nest of inputs with every tensor on device "meta"."""
    return tuple(pytree.tree_map_only(torch.Tensor, lambda t: torch.empty_like(t, device="meta"), inputs))


def one_sample(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs cut to their first sample, where all tensors share a leading batch dimension."""
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    sizes = {t.shape[0] if t.dim() else 0 for t in tensors}
    if len(sizes) != 1 or sizes <= {0, 1}:
        return inputs
    return tuple(pytree.tree_map_only(torch.Tensor, lambda t: t[:1], inputs))


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in a nest of tuples, lists, dicts and registered containers, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer with its path, each tensor once."""
    return itertools.chain(module.named_parameters(), module.named_buffers())


def parent_of(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor or child, and the name that it has there."""
    owner, _, name = path.rpartition(".")
    return module.get_submodule(owner), name
