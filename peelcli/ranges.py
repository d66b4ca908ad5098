"""Integers as text, short enough to be read and diffed in a plan: ranges, and entries by channel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MOST_CHANNELS = 1 << 22  # no layer is as wide; a bound on what a damaged file can make us allocate

Rows = tuple[tuple[int, ...], ...]


def to_ranges(numbers: Iterable[int]) -> str:
    """Write whole numbers, in their order, with runs drawn together: (0, 1, 2, 3, 5, 8) becomes "0-3,5,8"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def from_ranges(text: str, most: int = MOST_CHANNELS) -> tuple[int, ...]:
    """Read what `to_ranges` wrote; at most `most` numbers.

    Raises:
        ValueError: the text is no list of ranges, or it is too long.
    """
    numbers: list[int] = []
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"(\d{1,12})(?:-(\d{1,12}))?", part, re.ASCII)
        if match is None:
            raise ValueError(f"{part!r} is no number or range such as 0-3")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ValueError(f"the range {part} runs backwards")
        if len(numbers) + last - first >= most:
            raise ValueError(f"more than {most} numbers")
        numbers.extend(range(first, last + 1))
    return tuple(numbers)


def index_map(rows: Rows) -> dict[str, Any]:
    """Which entries belong to each channel, in the shortest of four ways.

    Consecutive blocks: entry offset + c * repeat and the following, `repeat` of them, belong to channel c; 0 and 1 are
    left out. Else `columns`: the first entry of every channel, then the second of every channel, ... And where the
    channels have different numbers of entries `rows`: the entries of each channel.
    """
    offset, repeat = (rows[0][0] if rows[0] else 0), len(rows[0])
    if repeat and rows == blocks(len(rows), offset, repeat):
        return {**({"offset": offset} if offset else {}), **({"repeat": repeat} if repeat != 1 else {})}
    if repeat and all(len(row) == repeat for row in rows):
        return {"columns": ";".join(map(to_ranges, zip(*rows, strict=True)))}
    return {"rows": ";".join(map(to_ranges, rows))}


def blocks(count: int, offset: int, repeat: int) -> Rows:
    """Consecutive entries, `repeat` for each of `count` channels."""
    return tuple(tuple(range(offset + c * repeat, offset + (c + 1) * repeat)) for c in range(count))
