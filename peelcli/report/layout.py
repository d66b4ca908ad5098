"""Pieces of text reports: plain tables, bars and lists that read well at 80 columns and without colour."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.console import Group as Stack
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from peelcli.ranges import to_ranges
from peelcli.report.escaping import visible

BAR_CELLS = 16


@dataclass(frozen=True, slots=True)
class Bar:
    """A share drawn in cells; what is left is dotted. Never empty above 0, never full below 1."""

    share: float
    cells: int = BAR_CELLS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw with characters that the output's encoding has."""
        filled = round(self.share * self.cells)
        if 0 < self.share < 1:
            filled = min(max(filled, 1), self.cells - 1)
        full, rest = ("#", ".") if options.ascii_only else ("█", "·")
        yield Text(full * filled + rest * (self.cells - filled), no_wrap=True, end="")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """It has one width only."""
        return Measurement(self.cells, self.cells)


class _PlainTable(Table):
    """A table in whose cells nothing is markup: names of models, metrics and checks stand in them."""

    def add_row(self, *cells: RenderableType | None, **how: Any) -> None:
        """As rich has it."""
        super().add_row(*(Text(visible(cell)) if isinstance(cell, str) else cell for cell in cells), **how)


def table(*columns: str) -> Table:
    """A table whose first heading is its title.

    Args:
        columns: headings. Behind a ">" stand figures, flush right and never broken; behind a "|" words never broken.
    """
    made = _PlainTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        made.add_column(
            Text(visible(column.lstrip(">|"))),
            justify="right" if column.startswith(">") else "left",
            no_wrap=column.startswith((">", "|")),
            overflow="fold",
        )
    return made


def spaced(parts: Iterable[Sequence[RenderableType]]) -> Stack:
    """Parts with an empty line between them; those that hold nothing leave none."""
    lines: list[RenderableType] = []
    for part in parts:
        lines += [Text(), *part] if part and lines else part
    return Stack(*lines)


def plain(text: str) -> Text:
    """Text as it is: square brackets in names are no markup, escapes do nothing, long words are folded."""
    return Text(visible(text), overflow="fold")


def listed(label: str, entries: Iterable[str]) -> list[Padding | Text]:
    """Lines under a label, or nothing where there are no entries."""
    lines = indented(entries)
    return [Text(label, style="bold"), *lines] if lines else []


def indented(entries: Iterable[str]) -> list[Padding]:
    """Lines that stand back a little, also where they are broken."""
    return [Padding.indent(plain(entry), 2) for entry in entries]


def percent(share: float) -> str:
    """A share with two decimals, rounded away from 1: 99.996 % is not yet 100 %, and 100.004 % is more."""
    cut = math.floor if share <= 1 else math.ceil
    return f"{cut(share * 10_000) / 100:.2f} %"


def short(share: float) -> str:
    """A share with one decimal."""
    return f"{100 * share:.1f} %"


def figure(value: float | None) -> str:
    """A number with three significant digits, 0.0123 or 45.6 or 12,346; nothing for None."""
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.2e}" if digits > 6 else f"{value:,.{max(0, digits)}f}"


def gathered(layers: Sequence[str]) -> str:
    """Layer names in a few words: those that differ in one number are drawn together, "layer1.[0-2].conv3"."""
    names = [tuple(layer.split(".")) for layer in layers]
    longest = max((len(name) for name in names), default=0)
    candidates: list[list[str]] = [list(layers), *(_gathered_at(names, position) for position in range(longest))]
    shortest = min(candidates, key=len)
    return ", ".join(shortest)


def _gathered_at(names: Sequence[tuple[str, ...]], position: int) -> list[str]:
    numbers: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for name in names:
        is_number = position < len(name) and re.fullmatch(r"0|[1-9][0-9]*", name[position]) is not None
        key = (*name[:position], "*", *name[position + 1 :]) if is_number else name
        numbers[key] += [int(name[position])] if is_number else []
    texts = []
    for key, found in numbers.items():
        spans = to_ranges(sorted(found))
        middle = spans if len(found) == 1 else f"[{spans}]"
        texts.append(".".join((*key[:position], middle, *key[position + 1 :]) if found else key))
    return texts
