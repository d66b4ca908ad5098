"""Draw the picture of the stages: docs/pictures/stages.svg. No package is needed, and nothing is fetched.

Usage: python docs/_tools/pictures.py        (`make reference` does it)
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from peelcli.files import write_text_atomically

DOCS = Path(__file__).resolve().parents[1]
WIDE, HIGH, GAP_X, GAP_Y, EDGE = 118, 46, 26, 58, 16
# Rows of (kind, title, what is written below it): a stage works, a record is what it hands on.
ROWS: tuple[tuple[tuple[str, str, str], ...], ...] = (
    (
        ("stage", "sources", "any file or name"),
        ("record", "Subject", "module, example input"),
        ("stage", "graph", "labels, closed-form cost"),
        ("record", "ChannelGraph", "groups as slices"),
        ("stage", "scoring", "how informative"),
        ("record", "Scores", "by channel and group"),
    ),
    (
        ("stage", "allocation", "integers only"),
        ("record", "Plan", "kept channels, digests"),
        ("stage", "surgery", "cut, prove, repair"),
        ("record", "Subject (slim)", "the same class"),
        ("stage", "export", "written, proven, named"),
        ("record", "Artifact", ".onnx, .pt2, .py, ..."),
    ),
    (
        ("note", "everything above", ""),
        ("record", "Run", "costs, checks, fidelity"),
        ("stage", "report", "text, JSON, HTML, ..."),
    ),
)
STYLE = """
text { font-family: sans-serif; text-anchor: middle; fill: #1b1b1b; }
.title { font-size: 14px; font-weight: 600; }
.below { font-size: 10px; fill: #555; }
.stage { fill: #00796b; }
.stage + .title { fill: #fff; }
.record { fill: #fff; stroke: #00796b; stroke-width: 1.5; }
.note { fill: none; }
.arrow { stroke: #555; stroke-width: 1.5; fill: none; marker-end: url(#head); }
"""


def main() -> None:
    """Write the picture."""
    write_text_atomically(DOCS / "pictures" / "stages.svg", stages())


def stages() -> str:
    """The stages and the records between them, as SVG."""
    width = 2 * EDGE + len(ROWS[0]) * WIDE + (len(ROWS[0]) - 1) * GAP_X
    height = 2 * EDGE + len(ROWS) * HIGH + (len(ROWS) - 1) * GAP_Y + 18
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "<title>The stages of peel, and the records that travel between them</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
    ]
    for row, boxes in enumerate(ROWS):
        for column, (kind, title, below) in enumerate(boxes):
            parts += _box(row, column, kind, title, below)
            if column:
                parts.append(_arrow([_right(row, column - 1), _left(row, column)]))
    last = len(ROWS[0]) - 1
    turn = _bottom(0, last)[1] + 24
    parts.append(_arrow([_bottom(0, last), (_bottom(0, last)[0], turn), (_top(1, 0)[0], turn), _top(1, 0)]))
    return "\n".join([*parts, "</svg>", ""])


def _box(row: int, column: int, kind: str, title: str, below: str) -> list[str]:
    x, y = _corner(row, column)
    middle = x + WIDE / 2
    corner = 4 if kind == "stage" else 20
    return [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="{corner}"/>',
        f'<text class="title" x="{middle:g}" y="{y + HIGH / 2 + 5:g}">{escape(title)}</text>',
        f'<text class="below" x="{middle:g}" y="{y + HIGH + 13}">{escape(below)}</text>',
    ]


def _arrow(points: Sequence[tuple[float, float]]) -> str:
    path = " L".join(f"{x:g},{y:g}" for x, y in points)
    return f'<path class="arrow" d="M{path}"/>'


def _corner(row: int, column: int) -> tuple[int, int]:
    return EDGE + column * (WIDE + GAP_X), EDGE + row * (HIGH + GAP_Y)


def _left(row: int, column: int) -> tuple[float, float]:
    x, y = _corner(row, column)
    return x - 2, y + HIGH / 2


def _right(row: int, column: int) -> tuple[float, float]:
    x, y = _corner(row, column)
    return x + WIDE + 2, y + HIGH / 2


def _bottom(row: int, column: int) -> tuple[float, float]:
    x, y = _corner(row, column)
    return x + WIDE / 2, y + HIGH + 18


def _top(row: int, column: int) -> tuple[float, float]:
    x, y = _corner(row, column)
    return x + WIDE / 2, y - 3


if __name__ == "__main__":
    main()
