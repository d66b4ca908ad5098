"""Settings from a TOML file, under the flags: peel.toml, or [tool.peel] in pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peelcli.errors import UsageError

_FILES = ("peel.toml", "pyproject.toml")


def merged(flags: Mapping[str, Any], config: Path | None) -> dict[str, Any]:
    """The settings of the file with the given flags laid over them.

    Args:
        flags: by setting name, or that and an underscore; None and empty lists count as not given.
        config: the file, or None to look in the current folder.

    Raises:
        UsageError: the file can't be read.
    """
    given = {name.rstrip("_"): value for name, value in flags.items() if value is not None and value != []}
    return {**_from_file(config), **given}


def only(flags: Mapping[str, Any], config: Path | None) -> dict[str, Any]:
    """The same, of the file's settings only those that the command has flags for."""
    own = {name.rstrip("_") for name in flags}
    return {name: value for name, value in merged(flags, config).items() if name in own}


def table(name: str, config: Path | None) -> dict[str, Any]:
    """A table of its own inside the settings, such as [tool.peel.report]; empty where there is none.

    Raises:
        UsageError: the file can't be read, or a key is in it twice.
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
    """The settings themselves; tables among them (such as report) belong to other commands."""
    whole = _whole(config)
    return {name.replace("-", "_"): value for name, value in whole.items() if not isinstance(value, dict)}


def _whole(config: Path | None) -> dict[str, Any]:
    """All that is peel's in the settings file."""
    path = config or next((path for name in _FILES if (path := Path(name)).is_file()), None)
    if path is None:
        return {}
    found = _read(path)
    return _own(found) if path.name == "pyproject.toml" else found


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
