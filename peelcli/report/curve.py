"""The curve of a sweep as a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from peelcli.errors import UsageError
from peelcli.points import Point, Sweep
from peelcli.report import canvas
from peelcli.report.sweep import ratio_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
_LABELS = {
    "agreement": "top-1 agreement with the original, %",
    "metric": "{}",
    "relative": "relative L2 to the original",
}


def picture(sweep: Sweep, suffix: str) -> bytes:
    """Cost against what is left, and against latency where it was measured; one panel for each.

    Args:
        sweep: with fidelity or latency at some point.
        suffix: .svg or .png.

    Returns:
        The picture's file; the same for the same sweep, byte for byte.

    Raises:
        UsageError: there is nothing to draw against the cost.
    """
    count = "macs" if sweep.budget == "flops" else "params"
    curves = [curve for curve in (_fidelity(sweep, count), _latency(sweep, count)) if curve]
    if not curves:
        raise UsageError(
            "there is no curve to draw: neither fidelity nor latency is known", hint="give --data or --bench"
        )

    def fill(figure: Figure) -> None:
        for axes, (label, points) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
            _panel(axes, sweep, label, points)
        figure.suptitle(f"{sweep.model.name}: {len(sweep.points)} budgets", fontsize=10)

    return canvas.draw((5.5 * len(curves), 4.0), fill, suffix.lower())


_Curve = tuple[str, list[tuple[float, float, int | None]]]  # label; cost in %, value, position of the point


def _fidelity(sweep: Sweep, count: str) -> _Curve | None:
    judged = [(k, p.fidelity) for k, p in enumerate(sweep.points) if p.fidelity]
    if not judged:
        return None
    first = judged[0][1].cut
    name = "metric" if first.metric is not None else "agreement" if first.agreement is not None else "relative"
    scale = 100.0 if name == "agreement" else 1.0
    values = [(_cost(sweep, sweep.points[k], count), scale * getattr(f.repaired or f.cut, name), k) for k, f in judged]
    whole = {"metric": judged[0][1].original or 0.0, "agreement": 100.0, "relative": 0.0}[name]
    return _LABELS[name].format(judged[0][1].metric), [*_finite(values), (100.0, whole, None)]


def _latency(sweep: Sweep, count: str) -> _Curve | None:
    ratios = [(k, ratio_of(sweep.bench, point)) for k, point in enumerate(sweep.points)]
    values = [(_cost(sweep, sweep.points[k], count), 100 * r.value, k) for k, r in ratios if r]
    return ("latency, % of the original's", [*_finite(values), (100.0, 100.0, None)]) if values else None


def _finite(values: list[tuple[float, float, int]]) -> list[tuple[float, float, int | None]]:
    return [(x, y, k) for x, y, k in values if math.isfinite(y)]


def _cost(sweep: Sweep, point: Point, count: str) -> float:
    assert point.after is not None, "a point that failed has neither fidelity nor latency"
    return float(100 * getattr(point.after, count) / max(1, getattr(sweep.before, count)))


def _panel(axes: Any, sweep: Sweep, label: str, points: list[tuple[float, float, int | None]]) -> None:
    points = sorted(points)
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker="o", color="#1f6f8b")
    for x, y, position in points:
        if position is None:
            continue
        told = sweep.points[position].budget + (" (knee)" if position == sweep.knee else "")
        axes.annotate(told, (x, y), textcoords="offset points", xytext=(6, -12))
        if position == sweep.knee:
            axes.plot([x], [y], marker="o", markersize=12, fillstyle="none", color="#c1440e", linestyle="")
    axes.set_xlabel(f"{'MACs' if sweep.budget == 'flops' else 'parameters'}, % of the original's")
    axes.set_ylabel(label)
    axes.margins(x=0.08, y=0.12)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
