"""Whether two modules compute the same."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from peelcli.tensors import tensors_in

ROUND_OFF = 1e-5  # relative to the largest output; 16-bit types get the spacing of their numbers times 16


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No warnings, log lines and printed graphs of torch.export: they are about its insides."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), _unprinted():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _unprinted() -> Iterator[None]:
    """torch.export prints a whole graph to stderr where it gives up; our own progress goes there."""
    from torch.export import _trace

    names: dict[str, Any] = _trace.__dict__
    outer = names.get("print", print)
    names["print"] = lambda *_args, **_more: None
    try:
        yield
    finally:
        names["print"] = outer


def run(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> list[torch.Tensor]:
    """One call without gradients; random layers draw the same numbers each time. The arguments stay as they are."""
    copies, names = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs or {}))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tensors_in(module(*copies, **names))


def tolerance(tensors: list[torch.Tensor]) -> float:
    """Round-off, relative to the largest output."""
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return max([ROUND_OFF, *(16 * torch.finfo(kind).eps for kind in kinds if kind.itemsize < 4)])


def difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest max|a - b| / max|b|; infinite where number, shapes or types differ, or what is finite does."""
    if [(a.shape, a.dtype) for a in ours] != [(b.shape, b.dtype) for b in theirs]:
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        finite = b.isfinite()
        if not torch.equal(finite, a.isfinite()):
            return float("inf")
        if finite.any():
            gap, scale = (a[finite].double() - b[finite].double()).abs().max(), b[finite].double().abs().max()
            worst = max(worst, float(gap / scale) if scale else float(gap))
    return worst
