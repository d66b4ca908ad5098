"""Settings from a TOML file, under the flags: peel.toml, or [tool.peel] in pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peelcli.errors import UsageError

_FILES = ("peel.toml", "pyproject.toml")
_TABLES = ("report",)
_OF_ONE_RUN = ("out", "plot", "output_format", "config", "bench", "jobs", "ray")  # a file is read by every run
_OF_ONE_COMMAND = ("teacher",)  # others pass over it, as over a table of another command
_EITHER = ({"epochs", "steps"}, {"input", "inputs"})  # two ways to say one thing


def merged(flags: Mapping[str, Any], config: Path | None) -> dict[str, Any]:
    """The settings of the file with the given flags laid over them.

    A flag takes the place of its key, and of a key that says the same in another way: --epochs that of steps.

    Args:
        flags: by setting name, or that and an underscore; None and empty lists count as not given.
        config: the file, or None to look in the current folder.

    Raises:
        UsageError: the file can't be read, or it says what only the command line can.
    """
    own = _names(flags)
    given = {name.rstrip("_"): value for name, value in flags.items() if value is not None and value != []}
    passed = {name for name in _OF_ONE_COMMAND if name not in own}
    passed |= {name for ways in _EITHER if ways & given.keys() for name in ways}
    return {name: value for name, value in _from_file(config).items() if name not in passed} | given


def only(flags: Mapping[str, Any], config: Path | None) -> dict[str, Any]:
    """The same, of the file's settings only those that the command has flags for.

    Raises:
        UsageError: as `merged`; or the file has a setting that no command knows.
    """
    from peelcli.config import check_names  # pydantic loads here

    check_names(_from_file(config), _OF_ONE_COMMAND)
    own = _names(flags)
    return {name: value for name, value in merged(flags, config).items() if name in own}


def text(name: str, given: Mapping[str, Any]) -> str | None:
    """A setting that is no field of `peelcli.config`, None where it was not given.

    Raises:
        UsageError: the file has a number or a list in its place.
    """
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{name} = {value} in the settings file is no text", hint=f'write {name} = "..."')
    return value


def _names(flags: Mapping[str, Any]) -> set[str]:
    return {name.rstrip("_") for name in flags}


def table(name: str, config: Path | None) -> dict[str, Any]:
    """A table of its own inside the settings, such as [tool.peel.report]; empty where there is none.

    Raises:
        UsageError: the file can't be read, it has a table that no command knows, or a key is in the table twice.
    """
    found = _whole(config).get(name, {})
    if not isinstance(found, dict):
        raise UsageError(f"{name} is no table in the settings file", hint=f"write [tool.peel.{name}], or [{name}]")
    values: dict[str, Any] = {}
    for key, value in found.items():
        if values.setdefault(key.replace("-", "_"), value) != value:
            raise UsageError(f"{key} stands twice in [{name}], with - and with _", hint="keep one of them")
    return values


def _from_file(config: Path | None) -> dict[str, Any]:
    """The settings themselves; tables among them (such as report) belong to other commands.

    Raises:
        UsageError: one of them is of a single run, such as the file that it writes.
    """
    whole = _whole(config)
    found = {name.replace("-", "_"): value for name, value in whole.items() if not isinstance(value, dict)}
    for name in _OF_ONE_RUN:
        if name in found:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag[2:]} can't stand in a settings file, which is read by every run",
                hint=f"take it out, and give {flag} on the command line",
            )
    return found


def _whole(config: Path | None) -> dict[str, Any]:
    """All that is peel's in the settings file."""
    path = config or next((path for name in _FILES if (path := Path(name)).is_file()), None)
    if path is None:
        return {}
    found = _read(path)
    own = _own(found) if path.name == "pyproject.toml" else found
    for name, value in own.items():
        if isinstance(value, dict) and name not in _TABLES:
            raise UsageError(
                f"{path}: there is no table [{name}] among peel's settings",
                hint=f"a table is {', '.join(_TABLES)}; all other settings stand before it, in "
                + ("[tool.peel]" if own is not found else "no table"),
            )
    return own


def _own(document: dict[str, Any]) -> dict[str, Any]:
    tools = document.get("tool")
    own = tools.get("peel") if isinstance(tools, dict) else None
    return own if isinstance(own, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no settings file {path}", hint="check the path after --config") from None
    except (OSError, ValueError, RecursionError) as error:  # numbers of any length, brackets of any depth
        raise UsageError(f"{path} can't be read as TOML: {error}", hint="the README shows one") from None
