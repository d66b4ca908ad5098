"""Read-only views of the slim module: other mode, other precision, the same tensors."""

from __future__ import annotations

import copy

import torch
from torch import nn

from peelcli.tensors import named_tensors


def evaluated(module: nn.Module, precision: torch.dtype | None = None) -> nn.Module:
    """The module in eval mode, its structure copied and its tensors shared.

    Copying tensors would cost more than the checks; forward calls in eval mode don't write to them.

    Args:
        module: not changed, its mode included.
        precision: convert floating tensors, which then are no longer shared.
    """
    memo: dict[int, object] = {}
    for _, tensor in named_tensors(module):
        memo[id(tensor)] = tensor if precision is None else _converted(tensor, precision)
    return copy.deepcopy(module, memo).eval()


def _converted(tensor: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    converted = tensor.detach().to(precision)
    return nn.Parameter(converted, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else converted


def precisions(module: nn.Module) -> set[torch.dtype]:
    """The floating types of all parameters and buffers."""
    return {tensor.dtype for _, tensor in named_tensors(module) if tensor.is_floating_point()}


def largest_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest |a - b| over all tensors; infinite where number, shapes, types or non-finite values differ."""
    if len(ours) != len(theirs):
        return float("inf")
    return max((_difference(a, b)[0] for a, b in zip(ours, theirs, strict=True)), default=0.0)


def relative_difference(ours: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """The largest max|a - b| / max|b| over the outputs; the plain difference where b is all zero."""
    if len(ours) != len(reference):
        return float("inf")
    pairs = (_difference(a, b) for a, b in zip(ours, reference, strict=True))
    return max((worst / (scale or 1.0) for worst, scale in pairs), default=0.0)


def _difference(ours: torch.Tensor, reference: torch.Tensor) -> tuple[float, float]:
    """max|a - b| and max|b| over the finite entries."""
    if ours.shape != reference.shape or ours.dtype != reference.dtype:
        return float("inf"), 1.0
    if torch.equal(ours.detach().cpu(), reference.detach().cpu()):  # without copies in float64
        return 0.0, 1.0
    a, b = (tensor.detach().cpu().flatten().double() for tensor in (ours, reference))
    finite = b.isfinite()
    if not torch.equal(a.isfinite(), finite) or not torch.equal(
        a[~finite].nan_to_num(nan=0.5), b[~finite].nan_to_num(nan=0.5)
    ):
        return float("inf"), 1.0
    a, b = a[finite], b[finite]
    if not b.numel():
        return 0.0, 1.0
    return float((a - b).abs().max()), float(b.abs().max())
