"""What a user asked for, checked before anything is loaded. No torch: a typo is told at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peelcli import config, files
from peelcli.config import Budget, Options
from peelcli.scoring import table

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Request:
    """A budget, the way to it, and the files to write."""

    budget: Budget
    options: Options
    paths: tuple[Path, ...]


def check(
    model: object, settings: Mapping[str, Any], out: Paths, suffixes: Sequence[str] = files.MODEL_SUFFIXES
) -> Request:
    """Refuse what can't work.

    Args:
        model: a path, or anything that is none.
        settings: fields of Budget, Options and Source.
        out: files to write.
        suffixes: the kinds of file that may be written.

    Raises:
        UsageError: the first thing that is wrong.
    """
    paths = check_outputs(model, settings, out, suffixes)
    request = Request(config.pick(Budget, settings), config.pick(Options, settings), paths)
    table.check_name(request.options.score)
    return request


def check_outputs(
    model: object, settings: Mapping[str, Any], out: Paths, suffixes: Sequence[str] = files.MODEL_SUFFIXES
) -> tuple[Path, ...]:
    """The same for a command that needs no budget; returns the paths."""
    config.check_names(settings)
    paths = (Path(out),) if isinstance(out, (str, os.PathLike)) else tuple(Path(path) for path in out)
    source = Path(model) if isinstance(model, (str, os.PathLike)) else None
    files.check_targets(paths, source, suffixes)
    return paths
