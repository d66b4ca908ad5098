"""Weights that torch's own norms compute from others, as plain weights: what a model is once it is in use.

weight_norm goes over all inputs of a layer and spectral_norm over its whole matrix, so that no channel could be removed
without a change to all others. In eval mode such a weight is a constant; vocoders and their kin are exported with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, remove_spectral_norm, remove_weight_norm

from peelcli.tensors import full_copy

_NEW = parametrizations.__name__
_OLD: dict[str, Callable[[nn.Module, str], nn.Module]] = {
    "WeightNorm": remove_weight_norm,
    "SpectralNorm": remove_spectral_norm,
}
_WORDS = {"WeightNorm": "weight_norm", "SpectralNorm": "spectral_norm", "Orthogonal": "orthogonal"}


def fold(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A model with plain weights in place of those that weight_norm, spectral_norm and orthogonal compute.

    Args:
        module: not changed; returned as it is where there is nothing of the kind. Layers with weights that other rules
            compute, the user's own parametrizations among them, stay as they are.

    Returns:
        The model, whose outputs in eval mode are the same to the bit, and a note where it is another one.
    """
    if not any(True for _ in (*_hooked(module), *_parametrized(module))):
        return module, ()
    plain = full_copy(module)
    kinds = Counter((*_fold_hooked(plain), *_fold_parametrized(plain)))
    what = " and ".join(f"{kind} of {number} weight{'s' * (number > 1)}" for kind, number in kinds.items())
    return plain, (f"{what} folded: the slim model has plain weights",)


def _fold_hooked(module: nn.Module) -> list[str]:
    """Fold the older norms; returns what each was."""
    kinds = []
    for layer, name, kind in list(_hooked(module)):
        sources = [p for key, p in layer.named_parameters(recurse=False) if key.startswith(f"{name}_")]
        _OLD[kind](layer, name)
        _set(layer, name, getattr(layer, name), sources)
        kinds.append(_WORDS[kind])
    return kinds


def _fold_parametrized(module: nn.Module) -> list[str]:
    """Fold those that are parametrizations; returns what each was.

    Not by `remove_parametrizations`: it takes the weight away from the class, which the user's own model shares.
    """
    kinds = []
    for layer in list(_parametrized(module)):
        rules = layer.parametrizations.eval()  # in train mode spectral_norm takes a step at each look
        found = [(name, getattr(layer, name), list(its.parameters())) for name, its in rules.items()]
        kinds += [_WORDS[type(its[0]).__name__.removeprefix("_")] for its in rules.values()]
        layer.__class__ = type(layer).__bases__[0]
        del layer.parametrizations
        for name, value, sources in found:
            _set(layer, name, value, sources)
    return kinds


def _set(layer: Any, name: str, value: torch.Tensor, sources: list[nn.Parameter]) -> None:
    """A parameter that trains where one of those that it was computed from does."""
    if hasattr(layer, name):
        delattr(layer, name)
    trains = any(parameter.requires_grad for parameter in sources)
    layer.register_parameter(name, nn.Parameter(value.detach(), requires_grad=trains))


def _hooked(module: nn.Module) -> Iterator[tuple[Any, str, str]]:
    """Layers with a weight that an older norm computes before each call, the weight's name, and the norm."""
    for layer in module.modules():
        for hook in list(layer._forward_pre_hooks.values()):
            kind: Any = type(hook)
            if kind.__name__ in _OLD and kind.__module__.startswith("torch.nn.utils."):
                yield layer, hook.name, kind.__name__  # type: ignore[attr-defined]


def _parametrized(module: nn.Module) -> Iterator[Any]:
    """Layers whose computed weights all are of torch's own norms."""
    layer: Any  # torch types attributes of modules as tensors or modules
    for layer in module.modules():
        if parametrize.is_parametrized(layer):
            rules = [rule for found in layer.parametrizations.values() for rule in found]
            if all(type(rule).__module__ == _NEW for rule in rules):
                yield layer
