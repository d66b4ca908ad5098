"""BatchNorm in training: its own batch's statistics, those of all processes together, or those that it came with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


def set_training(module: nn.Module, how: str) -> None:
    """Train mode for all of a module, but for norms that are to keep their statistics ("frozen")."""
    nn.Module.train(module)
    if how == "frozen":
        for child in module.modules():
            if isinstance(child, _BatchNorm):
                child.training = False


def synchronise(module: nn.Module, device: torch.device) -> nn.Module:
    """Let every BatchNorm average over the batches of all processes: torch's own layer on a GPU, ours on the CPU.

    Parameters and buffers stay the same tensors under the same names.
    """
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return synced
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            object.__setattr__(child, "forward", _Shared(child))
    return module


class _Shared:
    """The forward of a BatchNorm whose statistics are of all processes; gradients flow through the sums."""

    def __init__(self, norm: _BatchNorm) -> None:
        self._norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        norm = self._norm
        if not norm.training:
            return functional.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
            )
        kept, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))  # half precision is too coarse to sum
        dims = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        total = _summed(torch.cat([x.sum(dims), x.new_full((1,), x.numel() / x.shape[1])]))
        number = float(total[-1].detach())
        mean = total[:-1] / number
        centred = x - mean.view(shape)  # before it is squared: a channel's mean may be far larger than its deviation
        variance = _summed(centred.square().sum(dims)) / number
        self._remember(mean.detach(), variance.detach(), number)
        y = centred * (variance + norm.eps).rsqrt().view(shape)
        return (y * norm.weight.view(shape) + norm.bias.view(shape) if norm.affine else y).to(kept)

    def _remember(self, mean: Tensor, variance: Tensor, number: float) -> None:
        """Move the running statistics as BatchNorm does: the variance that is kept is the unbiased one."""
        norm = self._norm
        if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
            return
        norm.num_batches_tracked.add_(1)
        share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(variance * number / max(1.0, number - 1), share)


class _Sum(torch.autograd.Function):
    """The sum over all processes. What one process puts in reaches the losses of all, so gradients are summed too."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def _summed(value: Tensor) -> Tensor:
    if not torch.distributed.is_initialized():
        return value
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total
