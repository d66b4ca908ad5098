"""Settings from a TOML file, under the flags: peel.toml, or [tool.peel] in pyproject.toml."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from peelcli.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def merged(flags: Mapping[str, Any], config: Path | None) -> dict[str, Any]:
    """The settings of the file with the given flags laid over them.

    Args:
        flags: by setting name; None and empty lists count as not given.
        config: the file, or None to look in the current folder.

    Raises:
        UsageError: the file can't be read.
    """
    given = {name: _plain(value) for name, value in flags.items() if value is not None and value != []}
    return {**_from_file(config), **given}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is not None:
        table = _read(config)
        return _own(table) if config.name == "pyproject.toml" else table
    if Path("peel.toml").is_file():
        return _read(Path("peel.toml"))
    if Path("pyproject.toml").is_file():
        return _own(_read(Path("pyproject.toml")))
    return {}


def _own(table: dict[str, Any]) -> dict[str, Any]:
    """The [tool.peel] table; its own tables (such as report) belong to other commands."""
    own = table.get("tool", {}).get("peel", {})
    return {name.replace("-", "_"): value for name, value in own.items() if not isinstance(value, dict)}


def _read(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no settings file {path}", hint="check the path after --config") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} can't be read as TOML: {error}", hint="see docs/settings in the README") from None
    if path.name == "pyproject.toml":
        return table
    return {name.replace("-", "_"): value for name, value in table.items() if not isinstance(value, dict)}
