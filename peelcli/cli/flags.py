"""Flags that several commands share: each is written once, in a group, and commands take groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

Group = Mapping[str, Any]
"""Annotated types by the name of the argument."""


def flag(
    kind: Any,
    help_: str,
    panel: str | None = None,
    default: str | bool = False,
    metavar: str | None = None,
    name: str | None = None,
) -> Any:
    """An option that is None where it is not given, so that a settings file can speak there.

    Args:
        kind: its type.
        help_: what it does.
        panel: under which heading `--help` lists it.
        default: what holds where neither flag nor settings file speaks; for reading only.
        metavar: stands for the value in `--help`.
        name: of the flag, where the argument's is not it.
    """
    names = (name,) if name else ()
    option = typer.Option(*names, help=help_, rich_help_panel=panel, show_default=default, metavar=metavar)
    return Annotated[kind | None, option]


def takes(*groups: Group) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the flags of groups; it gets them as keyword arguments.

    `--help` lists them between the command's own: behind its positional arguments, before its keyword-only ones.
    """
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for group in groups
        for name, kind in group.items()
    ]
    return lambda command: _with(command, shared)


def _with(command: Callable[..., Any], shared: list[inspect.Parameter]) -> Callable[..., Any]:
    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command)
    named = [each.replace(annotation=hints[each.name]) for each in own.parameters.values() if each.name in hints]
    first = [each for each in named if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    last = [each for each in named if each.kind is inspect.Parameter.KEYWORD_ONLY]
    parameters = [*first, *shared, *last]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    del run.__wrapped__
    return run
