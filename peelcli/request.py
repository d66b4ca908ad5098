"""What a user asked for, checked before anything is loaded.

No torch, so that a typo is told at once; only whether a GPU is here has to be asked of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peelcli import config, files
from peelcli.config import Budget, Calibration, Options
from peelcli.errors import UsageError
from peelcli.scoring import table

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_OF_SAMPLES = ("samples", "image_size", "mean", "std", "metric")
_OF_REAL_SAMPLES = ("image_size", "mean", "std", "metric")
_GIVE = "give --data: a folder of images, .npy/.npz/.pt/.safetensors, or FILE.py:FUNCTION"


@dataclass(frozen=True, slots=True)
class Request:
    """A budget, the way to it, what is known of the model's use, and the files to write."""

    budget: Budget
    options: Options
    calibration: Calibration
    paths: tuple[Path, ...]


def check(
    model: object, settings: Mapping[str, Any], out: Paths, suffixes: Sequence[str] = files.MODEL_SUFFIXES
) -> Request:
    """Refuse what can't work.

    Args:
        model: a path, or anything that is none.
        settings: fields of Budget, Options, Source and Calibration.
        out: files to write.
        suffixes: the kinds of file that may be written.

    Raises:
        UsageError: the first thing that is wrong.
    """
    paths = check_outputs(model, settings, out, suffixes)
    calibration = config.pick(Calibration, settings)
    request = Request(config.pick(Budget, settings), config.pick(Options, settings), calibration, paths)
    if settings.get("threads") is not None and request.budget.latency is None:
        raise UsageError("--threads goes with --latency", hint="give --latency, or leave --threads away")
    table.check_name(request.options.score, with_data=calibration.data is not None)
    return request


def check_outputs(
    model: object, settings: Mapping[str, Any], out: Paths, suffixes: Sequence[str] = files.MODEL_SUFFIXES
) -> tuple[Path, ...]:
    """The same for a command that needs no budget; returns the paths."""
    config.check_names(settings)
    _check_calibration(settings)
    paths = (Path(out),) if isinstance(out, (str, os.PathLike)) else tuple(Path(path) for path in out)
    source = Path(model) if isinstance(model, (str, os.PathLike)) else None
    files.check_targets(paths, source, suffixes)
    return paths


def _check_calibration(settings: Mapping[str, Any]) -> None:
    """Refuse what reads samples where there are none, and a device that is not here."""
    calibration = config.pick(Calibration, settings)
    if calibration.data is None:
        unread = [name for name in _OF_SAMPLES if settings.get(name) is not None]
        if settings.get("repair") not in (None, "none"):
            unread.append("repair")
        if unread:
            flag = "--" + unread[0].replace("_", "-")
            raise UsageError(f"{flag} goes with samples, and there are none", hint=f"{_GIVE}, or leave {flag} away")
    elif calibration.synthetic:
        unread = [name for name in _OF_REAL_SAMPLES if settings.get(name) is not None]
        if unread:
            flag = "--" + unread[0].replace("_", "-")
            raise UsageError(f"{flag} goes with real samples", hint=f"{_GIVE}, or leave {flag} away")
    if calibration.device != "cpu":
        from peelcli.devices import check_device  # torch loads here

        check_device(calibration.device)
