"""A budget of latency and how it was met, as text and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from peelcli.report.bench import conditions, interval, latency_document, milliseconds, ratio_document
from peelcli.report.layout import indented, short, table
from peelcli.timings import Pace


def document(pace: Pace) -> dict[str, Any]:
    """Times in seconds; `allowed` and `predicted` are shares of the original's time, and so are the ratios.

    `kept` is the position in `tries` of the plan that was taken.
    """
    return {
        "asked": pace.asked,
        "allowed": pace.allowed,
        "provider": pace.conditions.provider,
        "threads": pace.conditions.threads,
        "before": latency_document(pace.before),
        "after": latency_document(pace.after),
        "tries": [{"predicted": each.predicted, "measured": ratio_document(each.measured)} for each in pace.tries],
        "kept": pace.kept,
        "layers": pace.layers,
    }


def text(pace: Pace | None) -> list[RenderableType]:
    """A table of the plans that were timed; nothing where no latency was asked for."""
    if pace is None:
        return []
    made = table(f"latency, at most {pace.asked}", ">predicted", ">measured", ">interval", "|")
    for number, each in enumerate(pace.tries):
        kept = "kept" if number == pace.kept and len(pace.tries) > 1 else ""
        measured = each.measured
        made.add_row(f"plan {number + 1}", short(each.predicted), short(measured.value), interval(measured), kept)
    times = f"{milliseconds(pace.before.median)} ms before, {milliseconds(pace.after.median)} ms after"
    known = f"{pace.layers} layers timed alone" if pace.layers else "layers known on this machine"
    return [made, *indented([f"{conditions(pace.conditions)}: {times} (medians); {known}"])]
