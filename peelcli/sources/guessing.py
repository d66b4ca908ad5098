"""Which inputs are worth a try: what the model says of itself, then its arguments' names and its first layers."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from torch import nn

from peelcli.inputtext import InputSpec, Spec
from peelcli.sources import configs, conventions, signature
from peelcli.sources.firstlayers import Suggestion

_COMBINATIONS = 200  # of several arguments' alternatives
_FALLBACKS = ((1, 3, 224, 224), (1, 3, 32, 32), (1, 1, 28, 28))  # where no layer tells anything


@dataclass(frozen=True, slots=True)
class Candidate:
    """One call to try, and what it was taken from."""

    specs: tuple[Spec, ...]
    origin: str


def candidates(module: nn.Module) -> Iterator[Candidate]:
    """Calls in the order in which they should be tried."""
    yield from _timm(module)
    yield from (Candidate(_plain(specs, module), "transformers' config") for specs in configs.calls(module))
    yield from _arguments(module)
    if len(signature.required(module)) <= 1:
        yield from (Candidate((InputSpec(shape),), "usual sizes of images") for shape in _FALLBACKS)


def _timm(module: nn.Module) -> Iterator[Candidate]:
    for name in ("pretrained_cfg", "default_cfg"):
        settings = getattr(module, name, None)
        size = settings.get("input_size") if isinstance(settings, dict) else getattr(settings, "input_size", None)
        if _is_shape(size):
            yield Candidate((InputSpec((1, *size)),), f"timm's {name}")


def _is_shape(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, Sequence) and len(value) > 0 and all(isinstance(size, int) and size > 0 for size in value)


def _plain(specs: tuple[Spec, ...], module: nn.Module) -> tuple[Spec, ...]:
    """The only input needs no name where it is forward's first."""
    first = next(iter(signature.positional(module) or ()), None)
    if len(specs) == 1 and first is not None and specs[0].name == first.name:
        return (replace(specs[0], name=None),)
    return specs


def _arguments(module: nn.Module) -> Iterator[Candidate]:
    """By what forward needs; where it needs nothing, by its first argument."""
    wanted: list[inspect.Parameter | None] = [*signature.required(module)]
    wanted = wanted or [next(iter(signature.positional(module) or ()), None)]
    choices = conventions.alternatives(module, wanted)
    if len(wanted) == 1:
        yield from (Candidate((choice.spec,), choice.origin) for choice in choices[0])
        return
    for combination in _combined(choices):
        named = tuple(
            replace(choice.spec, name=parameter.name)
            for choice, parameter in zip(combination, wanted, strict=True)
            if isinstance(parameter, inspect.Parameter)
        )
        yield Candidate(named, "the arguments' names and the first layers")


def _combined(choices: Sequence[Sequence[Suggestion]]) -> Iterator[tuple[Suggestion, ...]]:
    """One alternative for each argument: first all of the same rank, then those that differ, low ranks first."""
    if not choices or not all(choices):
        return
    ranks = range(max(map(len, choices)))
    level = [tuple(min(rank, len(choice) - 1) for choice in choices) for rank in ranks]
    near = itertools.product(*(range(min(len(choice), 6)) for choice in choices))
    spread = sorted(itertools.islice(near, _COMBINATIONS * 10), key=sum)
    for picked in itertools.islice(dict.fromkeys([*level, *spread]), _COMBINATIONS):
        yield tuple(choice[at] for choice, at in zip(choices, picked, strict=True))
