"""The command that would do a run again: its settings, those of the settings file among them, written out as flags."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_REPEATED = ("input", "ignore", "dynamic")  # flags that stand once for each value; other lists are one: --mean 1,2


def command(name: str, arguments: Iterable[object], settings: Mapping[str, Any], out: Iterable[Path]) -> str:
    """One line for a shell.

    Args:
        name: of the command, e.g. "prune".
        arguments: what stands without a flag.
        settings: by name; what is None is left out.
        out: files that were written.
    """
    words = ["peel", name, *map(str, arguments)]
    for setting, value in settings.items():
        words += _flag(setting, value)
    for path in out:
        words += ["--out", str(path)]
    return shlex.join(words)


def _flag(setting: str, value: Any) -> Iterator[str]:
    flag = f"--{setting.replace('_', '-')}"
    if isinstance(value, bool):
        yield flag if value else f"--no-{setting.replace('_', '-')}"
    elif isinstance(value, (list, tuple)) and setting in _REPEATED:
        for entry in value:
            yield from (flag, str(entry))
    elif isinstance(value, (list, tuple)):
        yield from (flag, ",".join(map(str, value)))
    elif value is not None:
        yield from (flag, str(value))
