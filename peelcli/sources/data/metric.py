"""A metric of the user's: a function that judges a model's outputs by the targets."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from peelcli.errors import InputError, UsageError
from peelcli.sources import usercode

Metric = Callable[[Any, Any], float]

_IS = "a metric is a function of (outputs, targets) that returns one number"


def load_metric(text: str) -> Metric:
    """Find the function of `--metric`, `file.py:function`; the file is run, the function is not.

    Raises:
        UsageError: it is written otherwise, or the file has no such function.
        SourceError: there is no such file, or it raises.
    """
    where, _, name = text.rpartition(":")
    if not where.endswith(".py") or not name.isidentifier():
        raise UsageError(f"--metric {text} names no function", hint=f"write --metric file.py:function; {_IS}")
    module = usercode.run_file(Path(where))
    function = getattr(module, name, None)
    if function is None:
        near = difflib.get_close_matches(name, [key for key in vars(module) if not key.startswith("_")], n=1)
        raise UsageError(
            f"{where} has no function {name}", hint=f"did you mean {where}:{near[0]}?" if near else "check its name"
        )
    if not callable(function):
        raise UsageError(f"{text} is no function but {type(function).__name__}", hint=_IS)
    found: Metric = function
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
    name = getattr(metric, "__name__", type(metric).__name__)
    code = getattr(metric, "__code__", None)
    file = Path(code.co_filename).resolve() if code is not None else None
    try:
        with usercode.seeded(), torch.no_grad(), usercode.importable(file.parent if file else Path.cwd()):
            value: Any = metric(_joined(list(outputs)), None if targets is None else _stacked(list(targets)))
    except (Exception, SystemExit) as error:
        without = "; the calibration data has no targets, so they are None" if targets is None else ""
        raise InputError(f"the metric {name} raised {usercode.told(error, file)}{without}", hint=_IS) from error
    single = isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1)
    number = value.item() if single else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InputError(f"the metric {name} returned {_told(value)}, not one number", hint=_IS)
    if not math.isfinite(number):
        raise InputError(f"the metric {name} returned {number}, not a finite number", hint=_IS)
    return float(number)


def _told(value: Any) -> str:
    return f"a tensor of shape {'x'.join(map(str, value.shape))}" if isinstance(value, Tensor) else type(value).__name__


def _joined(outputs: list[Any]) -> Any:
    """Outputs of several calls as those of one, along the first dimension."""
    return _merged(outputs, lambda *parts: torch.cat(parts), least=1)


def _stacked(targets: list[Any]) -> Any:
    """Targets of single samples as one tensor, with a first dimension for the samples."""
    if targets and all(isinstance(t, (bool, int, float)) for t in targets):
        return torch.tensor(targets)
    return _merged(targets, lambda *parts: torch.stack(parts), least=0)


def _merged(values: list[Any], merge: Callable[..., Tensor], least: int) -> Any:
    """One nest of tensors in place of several of the same structure; the list where they are not."""
    flat = [pytree.tree_flatten(value) for value in values]
    if not flat or any(spec != flat[0][1] for _, spec in flat):
        return values
    columns = list(zip(*(leaves for leaves, _ in flat), strict=True))
    if not columns or not all(_mergeable(column, least) for column in columns):
        return values
    return pytree.tree_unflatten([merge(*column) for column in columns], flat[0][1])


def _mergeable(leaves: Sequence[Any], least: int) -> bool:
    """Whether all are tensors of one shape, the batch (if `least` is 1) excluded."""
    first = leaves[0]
    return all(
        isinstance(leaf, Tensor)
        and leaf.dim() >= least
        and leaf.dim() == first.dim()
        and leaf.shape[least:] == first.shape[least:]
        and leaf.dtype == first.dtype
        for leaf in leaves
    )
