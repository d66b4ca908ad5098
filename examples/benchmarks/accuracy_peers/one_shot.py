"""torch-pruning in one shot: the ratio whose result is nearest below the budget, then BatchNorm's statistics anew."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from accuracy_peers.base import Job, Method, OutOfReach, batches, costs, reestimate_norms

LEAST_KEPT = 0.1  # of each layer, so that a global ranking empties none; peel's own --min-keep
STEPS = 12  # halvings of the interval of ratios
Importance = Callable[[], Any]


def methods() -> dict[str, Method]:
    """Magnitude and Taylor, the same ratio for each layer and one ranking over all of them."""
    kinds: dict[str, Importance] = {
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "taylor": lambda: tp.importance.GroupTaylorImportance(),
    }
    return {
        f"torch-pruning {kind}/{scope}": _method(importance, kind == "taylor", scope == "global")
        for kind, importance in kinds.items()
        for scope in ("local", "global")
    }


def _method(importance: Importance, gradients: bool, everywhere: bool) -> Method:
    def prune(job: Job) -> nn.Module:
        module = deepcopy(job.module)
        grads = _gradients(module, job) if gradients else None
        budget = job.share * costs(module, job.example)[0]
        low, high, best = 0.0, 1 - LEAST_KEPT, None
        for _ in range(STEPS):
            ratio = (low + high) / 2
            slim = _pruned(module, grads, job, importance(), everywhere, ratio)
            if costs(slim, job.example)[0] <= budget:
                best, high = slim, ratio
            else:
                low = ratio
        if best is None:
            raise OutOfReach(f"no ratio up to {1 - LEAST_KEPT:g} gets there")
        return reestimate_norms(best, job.calibration)

    return prune


def _gradients(module: nn.Module, job: Job) -> dict[str, torch.Tensor]:
    """Gradients of the mean loss on the network's own answers, by name of the parameter."""
    module.requires_grad_(True)
    module.zero_grad()
    for batch in batches(job.calibration):
        outputs = module(batch)
        (job.loss(outputs, outputs.argmax(1)) * len(batch) / len(job.calibration)).backward()
    grads = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return grads


def _pruned(
    module: nn.Module,
    grads: dict[str, torch.Tensor] | None,
    job: Job,
    importance: Any,
    everywhere: bool,
    ratio: float,
) -> nn.Module:
    slim = deepcopy(module)
    pruner = tp.pruner.BasePruner(
        slim,
        job.example,
        importance=importance,
        global_pruning=everywhere,
        pruning_ratio=ratio,
        max_pruning_ratio=1 - LEAST_KEPT,
        ignored_layers=_ignored(slim, job),
        in_channel_groups={},  # by default these are shared between calls
        out_channel_groups={},
        num_heads={},
        channel_groups={},
    )
    for name, parameter in slim.named_parameters():
        if grads is not None:
            parameter.grad = grads[name].clone()
    pruner.step()
    slim.zero_grad()
    return slim.eval()


def _ignored(module: nn.Module, job: Job) -> list[nn.Module]:
    last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    return [last, *(module.get_submodule(name) for name in job.outputs)]
