"""Sizes that stay open in a file, as text: `2,3` or `2:height,3:width`, after the input's name where it needs one.

[NAME=]DIM[:LABEL],...      counted from 0, which is the batch and open anyway
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TEXT = re.compile(r"(?:(?P<name>[^\W\d]\w*)=)?(?P<dims>[^=]+)")
_DIM = re.compile(r"\s*(?P<dim>\d{1,3})(?::(?P<label>[^\W\d]\w*))?\s*")


@dataclass(frozen=True, slots=True)
class FreeSizes:
    """What stays open of one input.

    Attributes:
        name: of the input; None for the only one.
        labels: by dimension what its size is called, "" where nobody said; equal labels are equal sizes.
    """

    name: str | None
    labels: Mapping[int, str]


def parse(text: str) -> FreeSizes:
    """Read one text.

    Raises:
        ValueError: it names no dimensions, or the batch.
    """
    found = _TEXT.fullmatch(text.strip())
    parts = [_DIM.fullmatch(part) for part in found["dims"].split(",")] if found else [None]
    if found is None or None in parts:
        raise ValueError(f"{text!r} names no dimensions")
    labels = {int(part["dim"]): part["label"] or "" for part in parts if part is not None}
    if len(labels) < len(parts):
        raise ValueError("a dimension is named twice")
    if 0 in labels:
        raise ValueError("dimension 0 is the batch, which is open without it")
    if "batch" in labels.values():
        raise ValueError("batch is what the first dimension is called: give another label")
    return FreeSizes(found["name"], labels)
