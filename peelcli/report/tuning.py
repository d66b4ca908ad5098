"""What training did to a slim model: before and after, and the curve between them, as tables and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from peelcli.records import Run
from peelcli.report.follows import rows_of, said
from peelcli.report.layout import figure, indented, table
from peelcli.report.numbers import distance_document, number
from peelcli.results import Point, Tuning

_SHOWN = 12  # points of a curve that a table shows


def tables(run: Run) -> list[RenderableType]:
    """For each round of training its result and its curve."""
    parts: list[RenderableType] = []
    for place, tuning in enumerate(run.tunings, 1):
        heading = f"training, round {place}" if len(run.tunings) > 1 else "training"
        parts += [Text()] if parts else []
        parts += [_result(tuning, heading), *indented(_told(tuning)), _curve(tuning)]
    return parts


def document(tuning: Tuning) -> dict[str, Any]:
    """Plain numbers; figures are null where they are unknown or not finite."""
    return {
        "trained": tuning.trained,
        "held": tuning.held,
        "steps": tuning.steps,
        "batch": tuning.batch,
        "optimizer": tuning.optimizer,
        "rate": tuning.peak,
        "objective": tuning.objective,
        "before": distance_document(tuning.before),
        "after": distance_document(tuning.after),
        "kept_step": tuning.kept,
        "metric": tuning.metric or None,
        "original": number(tuning.original),
        "curve": [_point(point) for point in tuning.curve],
        "samples_per_second": round(tuning.rate, 1),
        "hardware": tuning.hardware,
        "notes": list(tuning.notes),
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "step": point.step,
        "epoch": round(point.epoch, 4),
        "loss": number(point.loss),
        **distance_document(point.distance),
    }


def _result(tuning: Tuning, heading: str) -> Table:
    made = table(heading, ">original", ">before", ">after")
    columns = [tuning.before, tuning.after]
    for name, label, written in rows_of(tuning.metric, tuning.original, columns):
        original = tuning.original if name == "metric" else None
        made.add_row(label, written(original), *(written(getattr(column, name)) for column in columns))
    return made


def _told(tuning: Tuning) -> list[str]:
    how = (
        f"{tuning.steps} steps of {tuning.batch} samples, {tuning.optimizer} at {tuning.peak:.3g}, on {tuning.hardware}"
    )
    pace = f", {tuning.rate:.0f} samples/s" if tuning.rate else ""
    return [
        f"on {said(tuning.held)} held out; {said(tuning.trained)} learned from",
        f"learned: {tuning.objective}",
        f"{how}{pace}; the weights of step {tuning.kept} were kept",
        *tuning.notes,
    ]


def _curve(tuning: Tuning) -> Table:
    """The course of it, thinned out where it is long; the step that was kept is marked."""
    rows = rows_of(tuning.metric, tuning.original, [point.distance for point in tuning.curve])
    made = table(">step", ">epoch", ">loss", *(f">{label}" for _, label, _ in rows), "|")
    last = len(tuning.curve) - 1
    every = max(1, -(-len(tuning.curve) // _SHOWN))
    for place, point in enumerate(tuning.curve):
        if place % every and place != last and point.step != tuning.kept:
            continue
        figures = (written(getattr(point.distance, name)) for name, _, written in rows)
        mark = "kept" if point.step == tuning.kept else ""
        made.add_row(str(point.step), f"{point.epoch:.2f}", figure(point.loss), *figures, mark)
    return made
