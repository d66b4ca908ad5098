"""Does a module take an input? Tried on a copy on the meta device, where it costs nothing, then on a real copy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from peelcli.tensors import full_copy, meta_copy, tensors_in, to_meta

NO_COPY = "the module can't be copied"
_LONGEST = 200  # characters of a complaint that are shown

Run = Callable[[tuple[Any, ...]], str | None]


def on_meta(module: nn.Module) -> Run:
    """A function that runs the module's forward on the meta device and returns what it complained of, or None.

    Some modules can't run there (they look at values); a complaint from it is no proof.
    """
    try:
        double = meta_copy(module).eval()
    except Exception as error:  # whatever stands in the way of a copy
        return _refusal(told(error))

    def run(inputs: tuple[Any, ...]) -> str | None:
        with torch.device("meta"):  # tensors that forward itself makes
            return _run(double, to_meta(inputs))

    return run


def on_real_copy(module: nn.Module) -> Run:
    """The same on a copy in eval mode that shares the module's parameters: a forward call does not change them."""
    try:
        double = full_copy(module, {id(parameter): parameter for parameter in module.parameters()}).eval()
    except Exception as error:
        return _refusal(f"{NO_COPY}: {told(error)}")
    return lambda inputs: _run(double, inputs)


def complaint(module: nn.Module, inputs: tuple[Any, ...]) -> str | None:
    """What a module has against an input, in one line; None where forward runs.

    Args:
        module: not changed; both tries run on copies, in eval mode and without gradients.
        inputs: forward's positional arguments.
    """
    heard = on_meta(module)(inputs)
    return on_real_copy(module)(inputs) if heard or holds_integers(inputs) else None


def holds_integers(inputs: tuple[Any, ...]) -> bool:
    """Whether there are values that may be out of range, which is not seen on the meta device."""
    return any(not (t.is_floating_point() or t.is_complex() or t.dtype is torch.bool) for t in tensors_in(inputs))


def is_of_meta(heard: str | None) -> bool:
    """Whether a complaint is that of the meta device, on which no values can be looked at, and not of an input."""
    return heard is not None and "meta tensor" in heard


def _refusal(reason: str) -> Run:
    return lambda _: reason


def told(error: BaseException) -> str:
    """The first line of what a module raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_LONGEST]


def _run(module: nn.Module, inputs: tuple[Any, ...]) -> str | None:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(*inputs)
    except Exception as error:  # forward is the user's: it raises anything
        return told(error)
    return None
