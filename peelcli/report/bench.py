"""Measured times as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from peelcli import units
from peelcli.report.layout import figure, indented, plain, short, spaced, table
from peelcli.timings import Bench, Conditions, Latency, Ratio, Timed


def document(benches: Sequence[Bench]) -> dict[str, Any]:
    """All conditions as plain dicts, lists, strings and numbers; times are in seconds.

    `ratio` is null for the first file, which the others are compared with.
    """
    return {"benches": [_bench(bench) for bench in benches]}


def _bench(bench: Bench) -> dict[str, Any]:
    where = bench.conditions
    return {
        "provider": where.provider,
        "threads": where.threads,
        "batch": where.batch,
        "inputs": list(bench.inputs),
        "files": [_timed(timed) for timed in bench.files],
    }


def _timed(timed: Timed) -> dict[str, Any]:
    return {
        "path": timed.path,
        "macs": timed.macs,
        "latency": latency_document(timed.latency),
        "ratio": None if timed.ratio is None else ratio_document(timed.ratio),
        "reasons": list(timed.reasons),
    }


def latency_document(latency: Latency) -> dict[str, Any]:
    """Seconds of one call."""
    return {
        "median": latency.median,
        "low": latency.low,
        "high": latency.high,
        "least": latency.least,
        "calls": latency.calls,
    }


def ratio_document(ratio: Ratio) -> dict[str, Any]:
    """A ratio of times, its interval and what it allows to say."""
    return {
        "value": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "confidence": ratio.confidence,
        "rounds": ratio.rounds,
        "verdict": ratio.verdict,
    }


def text(benches: Sequence[Bench]) -> RenderableType:
    """All conditions, one table each."""
    return spaced([_shown(bench) for bench in benches])


def _shown(bench: Bench) -> list[RenderableType]:
    where = bench.conditions
    made = table("file", ">median ms", ">quartiles", ">MACs", ">", ">time", ">interval")
    first = bench.files[0]
    for timed in bench.files:
        made.add_row(plain(timed.path), *_row(timed, first))
    lines: list[RenderableType] = [plain(f"{conditions(where)}, {', '.join(bench.inputs)}"), made]
    for timed in bench.files:
        lines += indented(sentences(timed, first))
    return lines


def conditions(where: Conditions) -> str:
    """What a time holds for, in words."""
    threads = f", {where.threads} thread{'s' if where.threads > 1 else ''}" if where.provider == "cpu" else ""
    return f"onnxruntime on {where.provider}{threads}"


def _row(timed: Timed, first: Timed) -> tuple[str, ...]:
    latency, ratio = timed.latency, timed.ratio
    spread = f"{milliseconds(latency.low)}-{milliseconds(latency.high)}"
    macs = units.si(timed.macs).strip()
    if ratio is None:
        return milliseconds(latency.median), spread, macs, "", "", ""
    kept = short(timed.macs / first.macs) if first.macs else ""
    return milliseconds(latency.median), spread, macs, kept, short(ratio.value), interval(ratio)


def sentences(timed: Timed, first: Timed) -> list[str]:
    """The verdict in words, and the reasons where the time is not what the multiply-adds promise."""
    ratio = timed.ratio
    if ratio is None:
        return []
    times = f"{figure(1 / ratio.value)} times as fast as {first.path}"
    if ratio.verdict == "slower":
        times = f"no speed-up: it takes {figure(ratio.value)} times as long as {first.path}"
    elif ratio.verdict == "no difference":
        times = f"no speed-up over {first.path}: {short(ratio.value)} of its time, {interval(ratio)}"
    return [f"{timed.path}: {times}", *timed.reasons]


def interval(ratio: Ratio) -> str:
    """The confidence interval: "48.1-51.2 %"."""
    return f"{100 * ratio.low:.1f}-{short(ratio.high)}"


def milliseconds(seconds: float) -> str:
    """Three significant digits."""
    return figure(1000 * seconds)
