"""BatchNorm statistics taken anew from samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from peelcli.samples import Samples
from peelcli.tensors import beside, full_copy

_BATCH = 32


def has_statistics(module: nn.Module) -> bool:
    """Whether a BatchNorm of the model keeps running statistics."""
    return any(True for _ in _norms(module))


def reestimated(module: nn.Module, samples: Samples) -> nn.Module:
    """A copy whose BatchNorm layers have the mean and variance that the samples give them, batch means averaged.

    Source: re-estimation after pruning, e.g. EagleEye, Li et al., arXiv:2007.02491, section 3.2 (adaptive BatchNorm).

    Args:
        module: left as it is.
        samples: unlabelled; those of the last batch count as much as a whole batch, a single one does not count.
            Norms that no batch reaches keep what they have.
    """
    copy = full_copy(module)
    with _learning(copy), torch.no_grad():
        for inputs, size in samples.counted_batches(_BATCH):
            if size > 1:
                copy(*beside(copy, inputs))
    return copy


def _norms(module: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.running_mean is not None:
            yield child


@contextmanager
def _learning(module: nn.Module) -> Iterator[None]:
    """All in eval mode, but the norms, which average over all batches; those that see none are left as they are."""
    before = [(child, child.training) for child in module.modules()]
    momenta = [(norm, norm.momentum) for norm in _norms(module)]
    states = [(norm, {name: tensor.clone() for name, tensor in norm.named_buffers()}) for norm, _ in momenta]
    nn.Module.eval(module)
    for norm, _ in momenta:
        norm.reset_running_stats()
        norm.momentum = None
        norm.training = True
    try:
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for norm, state in states:
            if not norm.num_batches_tracked:
                norm.load_state_dict(state, strict=False)
        for child, training in before:
            child.training = training
