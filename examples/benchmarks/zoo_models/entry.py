"""What an entry of the zoo is, and how a fresh model is made to look trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from peelcli import pipeline

IDS = 100  # token ids stay below


class Entry(NamedTuple):
    """One architecture.

    Attributes:
        kind: "cnn", "transformer" or "other".
        build: makes the module, with random weights.
        inputs: shapes as `peel --input` takes them, or None where peel guesses.
    """

    kind: str
    build: Callable[[], nn.Module]
    inputs: tuple[str, ...] | None = None


def inputs_of(entry: Entry, module: nn.Module) -> tuple[Any, ...]:
    """Forward's arguments: the entry's own, or what peel guesses."""
    if entry.inputs is None:
        return pipeline.load(module).inputs
    generator = torch.Generator().manual_seed(0)
    tables = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    made = [_made(text, max([2, *tables]), generator) for text in entry.inputs]
    named = {name: value for name, value in made if name}
    if not named:
        return tuple(value for _, value in made)
    parameters = inspect.signature(module.forward).parameters
    last = max(at for at, name in enumerate(parameters) if name in named)
    return tuple(named.get(name, p.default) for name, p in list(parameters.items())[: last + 1])


def _made(text: str, entries: int, generator: torch.Generator) -> tuple[str, torch.Tensor]:
    """Noise or token ids of a shape such as `1,3,224,224` or `name:1,16:int64`, and the name or ""."""
    *name, shape = text.removesuffix(":int64").split(":")
    sizes = tuple(map(int, shape.split(",")))
    if text.endswith(":int64"):
        value = torch.randint(0, min(entries, IDS), sizes, generator=generator)
    else:
        value = torch.randn(sizes, generator=generator)
    return "".join(name), value


def liven(entry: Entry, seed: int = 0) -> nn.Module:
    """Build a model in eval mode and take away what tells a fresh one from a trained one.

    Parameters that are constant after construction (scales, biases, the last norm of a residual branch) get values
    that differ, so that a score sees something and a wrong cut can't hide behind zeros. BatchNorm layers get the
    statistics of noise, so that the signal reaches the output.
    """
    torch.manual_seed(seed)
    module = entry.build().eval()
    norms = {id(p): m for m in module.modules() for p in m.parameters(recurse=False) if _is_norm(m)}
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel() > 1:
                _differ(parameter, is_norm=id(parameter) in norms)
    _settle(entry, module)
    return module


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _differ(parameter: torch.Tensor, is_norm: bool) -> None:
    """Give a parameter distinct values if it is constant or one-dimensional with repeated values."""
    first = parameter.flatten()[0]
    count = parameter.numel()
    if bool((parameter == first).all()):
        steps = (torch.randperm(count) + 0.5) / count  # distinct, evenly spread in (0, 1)
        # Weights of norms are ones, or zeros on purpose; biases are zeros; scales of layers may be tiny.
        scale = 0.5 + steps if float(first) == 1 or (is_norm and float(first) != 0) else 0.2 * (steps - 0.5)
        parameter.copy_(scale.view_as(parameter))
    elif parameter.dim() == 1:
        while parameter.unique().numel() < count:
            parameter.add_(torch.randn(count) * 1e-3 * float(parameter.std()))


def _settle(entry: Entry, module: nn.Module) -> None:
    """Statistics of two samples of noise, or random ones where the model does not run on two at once."""
    kinds = nn.modules.batchnorm._NormBase
    norms = [m for m in module.modules() if isinstance(m, kinds) and m.running_mean is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    try:
        twice = [torch.cat([v, torch.randn_like(v)]) if torch.is_tensor(v) and v.is_floating_point() else v
                 for v in inputs_of(entry, module)]  # fmt: skip
        with torch.no_grad():
            module(*twice)
    except Exception:  # whatever a model raises that takes one sample only
        for norm in norms:
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        if not bool(norm.running_var.isfinite().all()):
            norm.reset_running_stats()
