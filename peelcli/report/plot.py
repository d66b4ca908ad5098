"""A run's widths as a picture: for every group what was kept of it, and what of that came from the pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from peelcli.records import Cut, Run
from peelcli.report import canvas
from peelcli.report.escaping import xml
from peelcli.report.text import headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
_WIDTH, _NAMES, _FIGURES, _ROW, _TOP = 900, 300, 130, 22, 76  # of the picture, in pixels
_PAPER, _INK, _QUIET = "#ffffff", "#1c2430", "#566070"
_COLOURS = {
    "backbone": "#2462a6", "from the pool": "#d9731a", "kept": "#2462a6", "removed": "#c2cbd8", "locked": "#7b8797",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One group: its parts as (what, start, end) in shares of its full width, and what stands behind."""

    name: str
    parts: tuple[tuple[str, float, float], ...]
    told: str


def rows(run: Run) -> list[Row]:
    """All groups in the order of the data flow."""
    base = dict(zip((cut.group.name for cut in run.plan.cuts), run.backbone, strict=False))
    return [_row(cut, base.get(cut.group.name)) for cut in run.plan.cuts]


def _row(cut: Cut, base: float | None) -> Row:
    name, width, full = cut.group.name, cut.width, cut.group.full
    if cut.group.locked:
        return Row(name, (("locked", 0.0, 1.0),), f"{full} locked")
    kept = width / full
    told = f"{width} of {full}"
    if base is None:
        return Row(name, (("kept", 0.0, kept), ("removed", kept, 1.0)), told)
    start = min(width, base) / full
    return Row(name, (("backbone", 0.0, start), ("from the pool", start, kept), ("removed", kept, 1.0)), told)


def picture(run: Run, suffix: str) -> bytes:
    """The picture in the format of a file's suffix.

    Raises:
        ExportError: .png needs matplotlib, and it is not here.
    """
    return svg(run).encode(errors="replace") if suffix.lower() == ".svg" else png(run)


def require(suffix: str) -> None:
    """Refuse early where the package is missing that draws a format.

    Raises:
        ExportError: with the command that installs it.
    """
    if suffix.lower() == ".png":
        canvas.require(".png", ", or name the picture with .svg")


def svg(run: Run) -> str:
    """The picture as SVG, by hand: no package is needed."""
    found = rows(run)
    height = _TOP + _ROW * len(found) + 12
    inside = "\n".join(_drawn(run, found))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="13">\n{inside}\n</svg>\n'
    )


def _drawn(run: Run, found: list[Row]) -> Iterator[str]:
    yield f"<title>{escape(xml(headline(run)))}</title>"
    yield f'<rect width="100%" height="100%" fill="{_PAPER}"/>'
    yield _text(16, 28, headline(run), _INK, size=15)
    x = 16.0
    for kind in _kinds(found):
        yield f'<rect x="{x}" y="45" width="12" height="12" fill="{_COLOURS[kind]}"/>'
        yield _text(x + 18, 56, kind, _QUIET)
        x += 34 + 7.5 * len(kind)
    length = _WIDTH - _NAMES - _FIGURES
    for number, row in enumerate(found):
        y = _TOP + _ROW * number
        yield _text(_NAMES - 10, y + 13, _cut(row.name), _INK, anchor="end")
        for kind, start, end in row.parts:
            left, width = _NAMES + start * length, (end - start) * length
            if width > 0:
                place = f'x="{left:.1f}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 8}"'
                yield f'<rect {place} fill="{_COLOURS[kind]}"/>'
        yield _text(_NAMES + length + 10, y + 13, row.told, _QUIET)


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start", size: int = 13) -> str:
    place = f'x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{escape(xml(text))}</text>"


def png(run: Run) -> bytes:
    """The picture as PNG, by matplotlib."""
    found = rows(run)
    size = (_WIDTH / 100, (_TOP + _ROW * len(found) + 12) / 100)
    return canvas.draw(size, lambda figure: _fill(figure, run, found), ".png")


def _fill(figure: Figure, run: Run, found: list[Row]) -> None:
    from matplotlib.patches import Patch

    axes = figure.add_subplot()
    for number, row in enumerate(found):
        for kind, start, end in row.parts:
            axes.barh(number, end - start, left=start, height=0.7, color=_COLOURS[kind])
        axes.text(1.01, number, row.told, va="center", fontsize=8, color=_QUIET)
    axes.set_yticks(range(len(found)), [_cut(row.name) for row in found], fontsize=8)
    axes.set(xlim=(0, 1.15), ylim=(len(found) - 0.5, -0.5), xticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    handles = [Patch(color=_COLOURS[kind], label=kind) for kind in _kinds(found)]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles) or 1, frameon=False, fontsize=8)
    figure.suptitle(headline(run), fontsize=9, x=0.02, ha="left")


def _kinds(found: list[Row]) -> list[str]:
    return list(dict.fromkeys(kind for row in found for kind, _, _ in row.parts))


def _cut(name: str, most: int = 40) -> str:
    """A name that fits: its end says more than its start."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
