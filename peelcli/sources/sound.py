"""Weights that can be worked with: there are some, they are real, and they are finite."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from peelcli.errors import SourceError

_SHOWN = 3  # tensors that a message names


def check(module: nn.Module, name: str) -> None:
    """Refuse a module that nothing can be measured on.

    Raises:
        SourceError: TorchScript; no parameters; uninitialised, on the meta device, NaN or infinite.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise SourceError(
            f"{name} is a TorchScript module, which has no layers to prune",
            hint="give the module before scripting, or the file that torch.jit.save wrote",
        )
    tensors = [*module.named_parameters(), *module.named_buffers()]
    if not any(True for _ in module.parameters()):
        raise SourceError(f"{name} has no parameters", hint="give the model itself, not a wrapper or a loss")
    lazy = [path for path, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise SourceError(f"{name} was never run: {_first(lazy)} have no shape yet", "run it once, then save it")
    empty = [path for path, tensor in tensors if tensor.is_meta]
    if empty:
        raise SourceError(f"{name} has no weights: {_first(empty)} are on the meta device", "load its weights first")
    bad = list(_not_finite(module))
    if bad:
        raise SourceError(
            f"{name} has NaN or infinite weights: {_first(bad)}",
            hint="train it again, or give an earlier checkpoint",
        )


def _not_finite(module: nn.Module) -> Iterator[str]:
    """Parameters and running statistics must be finite; other buffers may hold -inf (masks), but no NaN."""
    for path, parameter in module.named_parameters():
        if not bool(torch.isfinite(_readable(parameter)).all()):
            yield path
    for path, buffer in module.named_buffers():
        value = _readable(buffer)
        statistics = path.endswith(("running_mean", "running_var"))
        if bool(torch.isnan(value).any()) or (statistics and not bool(torch.isfinite(value).all())):
            yield path


def _readable(tensor: Tensor) -> Tensor:
    """8-bit floats have no isfinite."""
    tensor = tensor.detach()
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def _first(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
