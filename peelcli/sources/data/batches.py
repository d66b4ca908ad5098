"""Whether the first dimension of a model's input counts samples; in a recurrent model it may be time."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from peelcli.outputs import main_output
from peelcli.records import Subject
from peelcli.samples import Inputs, shapes
from peelcli.sources import usercode
from peelcli.tensors import full_copy, tensors_in

_NEAR = 1e-2  # of the largest output: batches and single samples are computed in other orders

_known: WeakKeyDictionary[nn.Module, dict[str, bool]] = WeakKeyDictionary()


def rows_are_samples(subject: Subject, inputs: Inputs) -> bool:
    """False for a model with layers that take time first, where the last row alone gives another result than with all.

    A sequence's last step alone does, or it gives one of as many results. True where it can't be told: one row, a model
    that does not run on it, a single number as output.

    Args:
        subject: the model; a copy of one with such layers is tried, once for inputs of a shape.
        inputs: forward's arguments, tensors of shape (rows, ...).
    """
    tensors = tensors_in(inputs)
    count = len(tensors[0]) if tensors and tensors[0].dim() else 1
    if count < 2 or not any(_takes_time_first(layer) for layer in subject.module.modules()):
        return True
    known, key = _known.setdefault(subject.module, {}), repr(shapes(inputs))
    if key not in known:
        known[key] = _told_apart(subject.module, inputs, count)
    return known[key]


def _told_apart(module: nn.Module, inputs: Inputs, count: int) -> bool:
    last = pytree.tree_map_only(Tensor, lambda t: t[-1:] if t.dim() and len(t) == count else t, inputs)
    double = nn.Module.eval(full_copy(module, {id(parameter): parameter for parameter in module.parameters()}))
    both, alone = _output(double, inputs), _output(double, last)
    if both is None or alone is None or not both.dim() or not alone.dim():
        return True
    if len(both) != count * len(alone):
        return False
    found = both[len(both) - len(alone) :]
    return found.shape == alone.shape and bool((found - alone).abs().max() <= _NEAR * both.abs().max())


def _output(module: nn.Module, inputs: Inputs) -> Tensor | None:
    try:
        with usercode.seeded(), torch.no_grad():
            return main_output(module(*inputs)).double()
    except Exception:  # whatever a forward raises: other checks tell it
        return None


def _takes_time_first(layer: Any) -> bool:
    return isinstance(layer, (nn.RNNBase, nn.MultiheadAttention)) and not layer.batch_first
