"""What a module's forward takes, and how arguments are brought into its order."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from peelcli.errors import InputError

_MOST = 8  # arguments that are shown


def positional(module: nn.Module) -> list[inspect.Parameter] | None:
    """What forward can be given by position, or None where it takes any number."""
    parameters = _parameters(module)
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    return list(inspect.signature(module.forward).parameters.values())


def required(module: nn.Module) -> list[inspect.Parameter]:
    """Those of them without a default."""
    return [parameter for parameter in positional(module) or () if parameter.default is parameter.empty]


def text(module: nn.Module) -> str:
    """A call in words: `forward(input_ids, attention_mask=None, ...)`; required arguments are always shown."""
    shown: list[str] = []
    parameters = _parameters(module)
    for place, parameter in enumerate(parameters):
        if place < _MOST or (parameter.default is parameter.empty and parameter.kind is parameter.KEYWORD_ONLY):
            shown.append(_one(parameter))
    return f"forward({', '.join([*shown, *(['...'] if len(shown) < len(parameters) else [])])})"


def _one(parameter: inspect.Parameter) -> str:
    stars = "*" * (parameter.kind is parameter.VAR_POSITIONAL) + "**" * (parameter.kind is parameter.VAR_KEYWORD)
    keyword = " (keyword only)" if parameter.kind is parameter.KEYWORD_ONLY else ""
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}{keyword}"
    plain = parameter.default is None or isinstance(parameter.default, (bool, int, float, str))
    return f"{parameter.name}={parameter.default if plain else '...'}{keyword}"


def ordered(module: nn.Module, given: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Bring arguments into the order in which forward takes them by position.

    Args:
        module: its forward is not called.
        given: those without a name; they fill the places that the named ones leave, in order.
        named: by argument name.

    Returns:
        Positional arguments of one call; an argument skipped between two others has its default.

    Raises:
        InputError: a name that forward does not have or takes by keyword only, too many arguments, or too few.
    """
    parameters = positional(module)
    check_keywords(module, named)
    if parameters is None:  # forward(*args): no names to go by
        if named:
            raise InputError(
                f"forward has no argument named {next(iter(named))}: {text(module)}", hint="give the inputs in order"
            )
        return tuple(given)
    names = [parameter.name for parameter in parameters]
    for name in named:
        if name not in names:
            near = difflib.get_close_matches(name, names) or names
            raise InputError(
                f"forward has no argument named {name}: {text(module)}", hint=f"it takes {', '.join(near[:_MOST])}"
            )
    free = [name for name in names if name not in named]
    if len(given) > len(free):
        raise InputError(
            f"forward takes {len(names)} inputs ({', '.join(names)}), {len(given) + len(named)} were given",
            hint="give each input once",
        )
    placed = {**named, **dict(zip(free, given, strict=False))}
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in placed]
    if missing:
        raise InputError(
            f"forward needs {' and '.join(missing)}, which no --input gives: {text(module)}",
            hint="repeat --input for each: " + " ".join(f"--input {name}=SHAPE" for name in missing),
        )
    last = max((at for at, name in enumerate(names) if name in placed), default=-1)
    return tuple(placed.get(p.name, p.default) for p in parameters[: last + 1])


def check_keywords(module: nn.Module, named: Iterable[str] = ()) -> None:
    """Inputs are given by position: what forward takes by keyword only can't be among them.

    Raises:
        InputError: forward needs such an argument, or one of `named` is one.
    """
    parameters = _parameters(module)
    by_keyword = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    needed = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    refused = [name for name in named if name in by_keyword] or sorted(needed)
    if not refused and any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = {p.name for p in parameters}
        unknown = [name for name in named if name not in taken]
        near = difflib.get_close_matches(unknown[0], taken, n=1, cutoff=0.8) if unknown else []
        refused = [] if near else unknown
    if refused:
        raise InputError(
            f"forward takes {refused[0]} by keyword only, and peel calls it by position: {text(module)}",
            hint=f"wrap the model in a module whose forward gives it {refused[0]}",
        )
