"""A metric of the user's: a function that judges a model's outputs by the targets."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peelcli.errors import InputError, UsageError
from peelcli.samples import joined, stacked
from peelcli.sources import usercode

Metric = Callable[[Any, Any], float]
Loss = Callable[[Any, Any], Tensor]

_IS_LOSS = "a loss is a function of (outputs, targets) that returns one number to differentiate"
_IS = "a metric is a function of (outputs, targets) that returns one number"


def name_of(given: str | Callable[..., Any]) -> str:
    """What a function is called, whichever way it was given."""
    return given.rpartition(":")[2] if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)


def load_metric(given: str | Metric) -> Metric:
    """Find the function of `--metric`, `file.py:function`; the file is run, the function is not. Python gives itself.

    Raises:
        UsageError: it is written otherwise, or the file has no such function.
        SourceError: there is no such file, or it raises.
    """
    found: Metric = _function(given, "--metric", _IS)
    return found


def load_loss(given: str | Loss) -> Loss:
    """Find the function of `--loss` in the same way; what it raises when it is called becomes one line.

    Returns:
        What is called with outputs as forward returned them, and targets stacked where they can be, or None.

    Raises:
        UsageError: see `load_metric`.
        SourceError: see `load_metric`.
    """
    function = _function(given, "--loss", _IS_LOSS)
    file = _file_of(function)

    def loss(outputs: Any, targets: Any) -> Tensor:
        try:
            found: Tensor = function(outputs, targets)
            return found
        except (Exception, SystemExit) as error:
            without = "; the data has no targets, so they are None" if targets is None else ""
            told = usercode.told(error, file)
            raise InputError(f"the loss {name_of(given)} raised {told}{without}", hint=_IS_LOSS) from error

    return loss


def _function(text: str | Callable[..., Any], flag: str, what: str) -> Callable[..., Any]:
    if not isinstance(text, str):
        return text
    where, _, name = text.rpartition(":")
    if not where.endswith(".py") or not name.isidentifier():
        raise UsageError(f"{flag} {text} names no function", hint=f"write {flag} file.py:function; {what}")
    module = usercode.run_file(Path(where))
    function = getattr(module, name, None)
    if function is None:
        near = difflib.get_close_matches(name, [key for key in vars(module) if not key.startswith("_")], n=1)
        raise UsageError(
            f"{where} has no function {name}", hint=f"did you mean {where}:{near[0]}?" if near else "check its name"
        )
    if not callable(function):
        raise UsageError(f"{text} is no function but {type(function).__name__}", hint=what)
    found: Callable[..., Any] = function
    return found


def evaluate_metric(metric: Metric, outputs: Sequence[Any], targets: Sequence[Any] | None) -> float:
    """Judge outputs by targets.

    Both reach the metric as one tensor, or one nest of tensors, of shape (samples, ...) where they can be stacked, and
    as a list where they can't.

    Args:
        metric: given both; more is better.
        outputs: what forward returned, tensors of shape (batch, ...); of one sample each, or of batches.
        targets: one for each sample, or None where the data has none.

    Raises:
        InputError: it raises, or returns something else than one finite number.
    """
    name = name_of(metric)
    file = _file_of(metric)
    try:
        with usercode.seeded(), torch.no_grad(), usercode.importable(file.parent if file else Path.cwd()):
            value: Any = metric(joined(list(outputs)), None if targets is None else stacked(list(targets)))
    except (Exception, SystemExit) as error:
        without = "; the calibration data has no targets, so they are None" if targets is None else ""
        raise InputError(f"the metric {name} raised {usercode.told(error, file)}{without}", hint=_IS) from error
    single = isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1)
    number = value.item() if single else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InputError(f"the metric {name} returned {_told(value)}, not one number", hint=_IS)
    if not -sys.float_info.max <= number <= sys.float_info.max:  # an int may be larger than any float
        shown = number if isinstance(number, float) else "a number that no float holds"
        raise InputError(f"the metric {name} returned {shown}, not a finite number", hint=_IS)
    return float(number)


def _file_of(function: Callable[..., Any]) -> Path | None:
    """Where it is written, for messages; not known of what is no plain function."""
    code = getattr(function, "__code__", None)
    return None if code is None else Path(code.co_filename).resolve()


def _told(value: Any) -> str:
    return f"a tensor of shape {'x'.join(map(str, value.shape))}" if isinstance(value, Tensor) else type(value).__name__
