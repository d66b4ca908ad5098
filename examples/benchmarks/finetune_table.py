"""The part of docs/results-finetune.md that finetune.py's rows make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import between_markers, markdown, median, versions

Row = Mapping[str, Any]
INTRODUCTION = """\
Made by `python examples/benchmarks/finetune.py --table docs/results-finetune.md`; do not edit between the markers.

Every method cut the same trained network to the same budget in multiply-adds; then `peel finetune` trained each result
on the same samples without labels, on the unpruned network's answers, with its default settings. Each number of steps
is a run of its own. Judged on samples that nobody had seen; median over the seeds, and in brackets the least and the
largest. *from scratch* is the architecture that peel found, with fresh weights.
"""
FIGURES = {"top1": "Accuracy", "agreement": "Agreement with the unpruned network (largest output)"}


def write(page: Path, rows: Iterable[Row], titles: Mapping[str, str]) -> None:
    """Put the section between the markers of a page; at its end where it has none."""
    between_markers(page, "finetune", section(rows, titles))


def section(rows: Iterable[Row], titles: Mapping[str, str]) -> str:
    """Markdown: for each task and machine a table, methods down and steps across.

    Args:
        rows: those of finetune.py, in any order.
        titles: of the tasks, in the order of the page.
    """
    measured = [row for row in rows if "error" not in row]
    parts = ["## Accuracy against steps of training", INTRODUCTION.rstrip()]
    for course, title in titles.items():
        for hardware in sorted({row["hardware"] for row in measured if row["course"] == course}):
            own = [row for row in measured if row["course"] == course and row["hardware"] == hardware]
            parts += [f"### {title}: {course}", _about(own, hardware)]
            parts += [
                f"{FIGURES[figure]}.\n\n{_table(own, figure)}" for figure in FIGURES if figure in own[0]["unpruned"]
            ]
    return "\n\n".join([*parts, f"Versions: {versions(measured)}."])


def _about(rows: Sequence[Row], hardware: str) -> str:
    first = rows[0]
    rate = median([row["samples_per_second"] for row in rows if row["samples_per_second"]] or [0])
    memory = [row["gpu_mib"] for row in rows if row.get("gpu_mib")]
    said = f"{first['share']:.0%} of the multiply-adds, {first['batch']} samples a step, on {hardware}"
    pace = f": {rate:.0f} samples/s" + (f", {median(memory):.0f} MiB of its memory" if memory else "")
    return f"{said}{pace}."


def _table(rows: Sequence[Row], figure: str) -> str:
    steps = sorted({step for row in rows for step in row["figures"]}, key=int)
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = (_spread([row["figures"][step][figure] for row in own if step in row["figures"]]) for step in steps)
        lines.append((method, _spread([row["unpruned"][figure] for row in own]), *cells))
    return markdown(("method", "unpruned", *(f"{step} steps" for step in steps)), lines)


def _spread(values: Sequence[float]) -> str:
    """The middle in percent, and the least and the largest where there are several."""
    if not values:
        return "-"
    texts = [f"{100 * value:.1f}" for value in (median(values), min(values), max(values))]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if len(values) > 1 else texts[0]
