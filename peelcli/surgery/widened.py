"""A forward pass in float64 that holds one layer in float64 at a time: for models whose wide copy would not fit.

A module's own parameters and buffers are widened when its forward starts and are what they were when it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from peelcli.surgery.prune import Removed
from peelcli.tensors import named_tensors

Held = list[tuple[dict[str, Any], str, torch.Tensor]]  # (where a tensor stood, its name there, the tensor)


@contextmanager
def widened(module: nn.Module, silent: Removed | None = None) -> Iterator[None]:
    """Inside, forward calls of the module compute in float64.

    Args:
        module: in eval mode. Layers whose weights are used from outside of their own forward fail on the mixed types.
        silent: entries that read as zero, by tensor and dimension.
    """
    names = {id(tensor): name for name, tensor in named_tensors(module)}
    masks = {key: (silent or {}).get(name, {}) for key, name in names.items()}
    with ExitStack() as stack:
        for child in module.modules():
            if child._parameters or child._buffers:
                opened = _Opened(masks)
                stack.callback(child.register_forward_pre_hook(opened.enter, prepend=True).remove)
                stack.callback(child.register_forward_hook(opened.leave, always_call=True).remove)
        yield


class _Opened:
    """One module's tensors while its forward runs."""

    def __init__(self, masks: Mapping[int, Mapping[int, set[int]]]) -> None:
        self._masks = masks
        self._held: list[Held] = []  # one entry for each call that is running: a module may call itself

    def enter(self, module: nn.Module, _args: Any) -> None:
        held: Held = []
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in tables:
            for name, tensor in tensors.items():
                gone = self._masks.get(id(tensor), {})
                if tensor is not None and (gone or tensor.is_floating_point()):
                    held.append((tensors, name, tensor))
                    tensors[name] = _wide(tensor, gone)
        self._held.append(held)

    def leave(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        for tensors, name, tensor in self._held.pop():
            tensors[name] = tensor


def _wide(tensor: torch.Tensor, gone: Mapping[int, set[int]]) -> torch.Tensor:
    wide = tensor.detach().to(torch.float64 if tensor.is_floating_point() else tensor.dtype, copy=True)
    for dim, entries in gone.items():
        wide.index_fill_(dim, torch.tensor(sorted(entries), device=wide.device), 0)
    return nn.Parameter(wide, requires_grad=False) if isinstance(tensor, nn.Parameter) else wide
