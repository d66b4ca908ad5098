"""Targets: one for each sample, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from peelcli.errors import InputError
from peelcli.outputs import class_id
from peelcli.samples import Samples

NAMES = ("targets", "target", "labels", "label", "y")  # under which data sets keep them beside the inputs

_HINT = "give as many targets as inputs"


def class_ids(samples: Samples) -> list[int] | None:
    """The targets as class numbers; None where there are none, or where they are something else."""
    found = [class_id(target) for target in samples.targets or ()]
    ids = [number for number in found if number is not None and number >= 0]
    return ids if ids and len(ids) == len(found) else None


def rows(target: Any, count: int, name: str) -> list[Any]:
    """The targets of a batch, one for each of its samples.

    Args:
        target: a tensor whose first dimension is the batch, a list as long as it, or a dict or tuple of such.
        count: how many samples the batch has.
        name: where they come from, for the message.

    Raises:
        InputError: they are not as many as the samples.
    """
    if isinstance(target, Tensor) and target.dim() and len(target) == count:
        return [row.clone() for row in target.detach().cpu()]
    if isinstance(target, Mapping):
        split = {key: rows(value, count, name) for key, value in target.items()}
        return [{key: values[at] for key, values in split.items()} for at in range(count)]
    if isinstance(target, (list, tuple)):
        if len(target) == count:
            return list(target)
        if target and all(isinstance(part, Tensor) and part.dim() and len(part) == count for part in target):
            return list(zip(*(rows(part, count, name) for part in target), strict=True))
    if count == 1:
        return [target]
    raise InputError(f"{name} has {count} inputs in a batch, and {_told(target)}", hint=_HINT)


def _told(target: Any) -> str:
    if isinstance(target, Tensor):
        return f"targets of shape {'x'.join(map(str, target.shape)) or 'a single number'}"
    return f"{len(target)} targets" if isinstance(target, (list, tuple)) else f"one {type(target).__name__} as target"
