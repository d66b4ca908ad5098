"""Example inputs as text, the other way round: what `--input` would take for a value that is there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from peelcli import inputtext
from peelcli.inputtext import InputSpec, Literal, Nest, Spec

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in inputtext.DTYPES}


def describe(value: Any, own: torch.dtype = torch.float32) -> str:
    """An input as `--input` would take it: "1x3x224x224", "1x77:int64:<30522", "[3x64x64]".

    Args:
        value: a tensor, a literal, or a nest of them; of anything else only the type is told.
        own: the type of the model's own numbers, which goes without saying.
    """
    try:
        return str(spec_of(value, own))
    except ValueError:
        return f"<{type(value).__name__}>"


def spec_of(value: Any, own: torch.dtype = torch.float32) -> Spec:
    """What to ask for to be given a value of the same kind.

    Raises:
        ValueError: the value is nothing that `--input` can describe.
    """
    if isinstance(value, Tensor):
        dtype = None if value.dtype == own else str(value.dtype).removeprefix("torch.")
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(dtype)
        low, high = _extent(value)
        return InputSpec(tuple(value.shape), None, dtype, low, high)
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return Literal(value)
    if type(value) in (list, tuple) and isinstance(value, Sequence):
        return Nest(type(value), tuple(spec_of(item, own) for item in value))
    if isinstance(value, Mapping) and all(isinstance(key, str) and re.fullmatch(r"\w+", key) for key in value):
        return Nest(dict, tuple(spec_of(item, own) for item in value.values()), keys=tuple(value))
    raise ValueError(type(value).__name__)


def _extent(value: Tensor) -> tuple[int | None, int | None]:
    """The least value of an integer tensor, and its largest and one more; of both booleans nothing is told."""
    if value.is_floating_point() or value.is_complex() or not value.numel() or value.is_meta:
        return None, None
    low, high = int(value.min()), int(value.max())
    if value.dtype is torch.bool and low != high:
        return None, None
    return low, high + 1
