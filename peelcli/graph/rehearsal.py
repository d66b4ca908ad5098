"""Where a model is run for its shapes: without memory where it can be, on a real copy where forward needs values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from peelcli.tensors import let_go, one_sample, tensors_in, to_meta, tracing_copy

T = TypeVar("T")
Act = Callable[[nn.Module, tuple[Any, ...]], T]
"""What is done with a copy and its inputs."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """One way to run a module and its slim copies so that shapes come out.

    Attributes:
        inputs: forward's positional arguments.
        weightless: whether copies are on device "meta", where nothing is computed.
        note: what a user should know about the counts made here, or "".
    """

    inputs: tuple[Any, ...]
    weightless: bool
    note: str = ""

    def copy(self, module: nn.Module) -> nn.Module:
        """A copy in eval mode with gradients on, which may be hooked."""
        return tracing_copy(module, self.weightless)

    @contextmanager
    def stage(self) -> Iterator[None]:
        """Where copies run: what forward makes is on their device, and attention is products that can be counted."""
        with torch.device("meta") if self.weightless else sdpa_kernel(SDPBackend.MATH):
            yield

    def perform(self, module: nn.Module, act: Act[T]) -> T:
        """Act on a fresh copy, whose weights are gone afterwards."""
        with self.stage():
            double = self.copy(module)
            try:
                return act(double, self.inputs)
            finally:
                if not self.weightless:
                    let_go(double)


def rehearsals(inputs: tuple[Any, ...]) -> Iterator[Rehearsal]:
    """All ways, the cheapest first: one sample before the whole example, without values before with them."""
    single = one_sample(inputs)
    tried = [(single, "")]
    if single is not inputs:
        samples = next((len(t) for t in tensors_in(inputs) if t.dim()), 1)
        tried.append(
            (inputs, f"the model does not run on one of its {samples} samples alone: counts are for all of them")
        )
    for weightless in (True, False):
        for some, note in tried:
            yield Rehearsal(to_meta(some) if weightless else some, weightless, note)


def rehearse(
    module: nn.Module, inputs: tuple[Any, ...], act: Act[T], whole: nn.Module | None = None
) -> tuple[Rehearsal, T]:
    """Act on a copy of a module in the cheapest way in which it runs.

    Args:
        module: left as it is.
        inputs: an example, any number of samples.
        act: runs the copy; what it raises says that this way is closed.
        whole: the model that `module` was cut from. Where it runs, but `module` does not, the cut is to blame, and no
            other way is tried.

    Raises:
        Exception: what the last way that was tried raised.
    """
    last: Exception | None = None
    for rehearsal in rehearsals(inputs):
        try:
            return rehearsal, rehearsal.perform(module, act)
        except Exception as error:  # whatever a user's forward raises
            last = error
            if whole is not None and _runs(rehearsal, whole):
                break
    assert last is not None
    raise last


def _runs(rehearsal: Rehearsal, module: nn.Module) -> bool:
    try:
        rehearsal.perform(module, lambda double, inputs: double(*inputs))
    except Exception:  # whatever a user's forward raises
        return False
    return True
