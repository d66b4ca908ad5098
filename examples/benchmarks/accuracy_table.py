"""The part of docs/results.md that accuracy.py's rows make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy_peers import peel
from common import between_markers, markdown, median, versions

Row = Mapping[str, Any]
Titles = Mapping[str, tuple[str, Sequence[str]]]
INTRODUCTION = """\
Made by `python examples/benchmarks/accuracy.py --table docs/results.md`; do not edit between the markers.

Every method got the same trained network, up to 512 samples without labels, and a budget in multiply-adds; nothing was
trained afterwards. What came back was counted by one counter and judged on samples that nobody had seen. Median over
the seeds, and in brackets the least and the largest; the seed decides split, training and samples. `-` is not
measured, *no* is out of the method's reach. **Over** marks a result above its budget.

- *peel score/allocator/repair*: repair `none` is the bare cut, `bn` makes only BatchNorm's statistics anew on the
  calibration samples, `auto` is peel's own repair.
- *torch-pruning*: one shot, the ratio nearest below the budget, then BatchNorm's statistics anew on the same samples;
  at least 10 % of each layer stay, as with peel. Taylor takes the network's own answers for labels.
- *modelopt fastnas*: NVIDIA Model Optimizer's search, judged by agreement with the unpruned network, no labels; on
  EfficientNet-Lite0 and CREPE full candidates are judged on 128 of the samples, and the former is given to it made of
  torch's own convolutions, because it prunes no subclass of them.
"""
FIGURES = {
    "top1": "Accuracy",
    "agreement": "Agreement with the unpruned network (largest output)",
    "top5": "The unpruned network's answer among the five largest outputs",
    "kl": "Divergence from the unpruned network's outputs, KL(unpruned || slim) in nats; less is better",
    "pitch": "Raw pitch accuracy: within 50 cents of the truth",
    "same pitch": "Within 50 cents of the unpruned network's pitch",
}
IN_NATS = ("kl",)
GRID = """\
### Every score with every allocator

Medians over the seeds. In each cell: the bare cut, then BatchNorm's statistics anew, then peel's repair."""
UNIFORM = """\
### Against the uniform control

What an allocation adds to uniform widths, with the same score and the same repair, on the same seeds: the difference of
the medians in points. **Bold** where the two ranges over the seeds do not touch."""


def write(page: Path, rows: Iterable[Row], titles: Titles) -> None:
    """Put the section between the markers of a page; at its end where it has none."""
    between_markers(page, "accuracy", section(rows, titles))


def section(rows: Iterable[Row], titles: Titles) -> str:
    """Markdown: for each task one table a figure, methods down and budgets across, and one of seconds and memory.

    Args:
        rows: those of accuracy.py, in any order.
        titles: by task its title and the figures to show, in the order of the page.
    """
    measured = [row for row in rows if "error" not in row]
    parts = ["## Accuracy without training", INTRODUCTION.rstrip()]
    for task, (title, figures) in titles.items():
        own = [row for row in measured if row["task"] == task]
        if own:
            parts += [f"### {title}", _dense(own, figures)]
            parts += [f"{FIGURES[figure]}.\n\n{_table(own, figure)}" for figure in figures]
            parts.append(f"What it took: seconds and peak MiB, medians over seeds and budgets.\n\n{_effort(own)}")
    grids = _grids(measured, titles)
    parts += [GRID, *grids] if grids else []
    compared = _against_uniform(measured, titles)
    parts += [f"{UNIFORM}\n\n{compared}"] if compared else []
    return "\n\n".join([*parts, f"Versions: {versions(measured)}."])


def brief(row: Row) -> str:
    """A row for the progress on the terminal."""
    if "figures" not in row:
        return str(row.get("error") or row.get("out_of_reach"))
    figures = ", ".join(f"{name} {_text(value, name)}" for name, value in row["figures"].items())
    return f"{figures}; {row['left']:.1%} of the multiply-adds, {row['seconds']:.0f} s, {row['peak_mib']} MiB"


def _dense(rows: Sequence[Row], figures: Sequence[str]) -> str:
    dense = [row for row in rows if row["method"] == "dense"]
    if not dense:
        return "The unpruned network was not measured."
    said = f"{figures[0]} {_spread([row['figures'][figures[0]] for row in dense], figures[0])}"
    millions = median([row["macs"] for row in dense]) / 1e6
    return f"Unpruned, seeds measured: {len(dense)}; {said}; {millions:,.1f} M multiply-adds."


def _table(rows: Sequence[Row], figure: str) -> str:
    shares = sorted({row["share"] for row in rows if row["method"] != "dense"}, reverse=True)
    header = ("method", "unpruned", *(f"{share:.0%}" for share in shares))
    unpruned = _cell([row for row in rows if row["method"] == "dense"], figure)
    lines = []
    for method in _methods(rows):
        own = [row for row in rows if row["method"] == method]
        cells = (_cell([row for row in own if row["share"] == share], figure) for share in shares)
        lines.append((method, unpruned, *cells))
    return markdown(header, lines)


def _grids(rows: Sequence[Row], titles: Titles) -> list[str]:
    """For each task and budget at which more than the usual scores were measured a table, scores down."""
    parts = []
    for task, (title, figures) in titles.items():
        own = [row for row in rows if row["task"] == task and "figures" in row]
        odd = {row["share"] for row in own if not _is_usual(row["method"])}
        parts += [
            f"{title}, {share:.0%} of the multiply-adds.\n\n{_grid(own, share, figures[0])}"
            for share in sorted(odd, reverse=True)
        ]
    return parts


def _grid(rows: Sequence[Row], share: float, figure: str) -> str:
    here = [row for row in rows if row["share"] == share]
    names = {tuple(row["method"].removeprefix("peel ").split("/")) for row in here if row["method"].startswith("peel ")}
    scores, allocators = (sorted({name[place] for name in names}) for place in (0, 1))
    lines = []
    for score in scores:
        cells = []
        for allocator in allocators:
            figures = [
                [row["figures"][figure] for row in here if row["method"] == f"peel {score}/{allocator}/{repair}"]
                for repair in peel.REPAIRS
            ]
            cells.append(" / ".join(_text(median(values), figure) if values else "-" for values in figures))
        lines.append((score, *cells))
    return markdown(("score", *allocators), lines)


def _is_usual(method: str) -> bool:
    """Whether the tables of methods show it: other tools, and what the small grid holds of peel."""
    return not method.startswith("peel ") or method in peel.methods("small")


def _against_uniform(rows: Sequence[Row], titles: Titles) -> str:
    """One line for each task and allocation of which both sides are there; empty where none is."""
    shares = sorted({row["share"] for row in rows if row["method"] != "dense"}, reverse=True)
    lines = []
    for task, (title, figures) in titles.items():
        own = [row for row in rows if row["task"] == task and "figures" in row]
        for method in _methods(own):
            gains = [_gain(own, method, share, figures[0]) for share in shares]
            if any(gain is not None for gain in gains):
                told = (
                    "-" if gain is None else f"**{gain[0]:+.1f}**" if gain[1] else f"{gain[0]:+.1f}" for gain in gains
                )
                lines.append((title, method, *told, _tally([gain[0] for gain in gains if gain is not None])))
    header = ("network", "method", *(f"{share:.0%}" for share in shares), "above, level, below")
    return markdown(header, lines) if lines else ""


def _gain(rows: Sequence[Row], method: str, share: float, figure: str) -> tuple[float, bool] | None:
    """Points above uniform widths, and whether that is beyond the spread; None where a side is missing."""
    score, _, rest = method.partition("/")
    control = f"{score}/uniform/{rest.partition('/')[2]}"
    if method == control or not method.startswith("peel "):
        return None
    found = [{r["seed"]: r["figures"][figure] for r in rows if (r["method"], r["share"]) == (name, share)}
             for name in (method, control)]  # fmt: skip
    seeds = found[0].keys() & found[1].keys()
    if not seeds:
        return None
    ours, theirs = ([side[seed] for seed in seeds] for side in found)
    apart = min(ours) > max(theirs) or max(ours) < min(theirs)
    return 100 * (median(ours) - median(theirs)), apart and len(seeds) > 1


def _tally(gains: Sequence[float]) -> str:
    """How many are above, level and below, at the one decimal that is shown."""
    shown = [round(gain, 1) for gain in gains]
    return f"{sum(g > 0 for g in shown)}, {sum(g == 0 for g in shown)}, {sum(g < 0 for g in shown)}"


def _cell(rows: Sequence[Row], figure: str) -> str:
    values = [row["figures"][figure] for row in rows if "figures" in row]
    if not values:
        return "*no*" if rows else "-"
    over = any(row["left"] > row["share"] for row in rows if "figures" in row)
    return _spread(values, figure) + (" **over**" if over else "")


def _spread(values: Sequence[float], figure: str) -> str:
    """The middle, and the least and the largest where there are several."""
    middle = _text(median(values), figure)
    return f"{middle} ({_text(min(values), figure)} to {_text(max(values), figure)})" if len(values) > 1 else middle


def _text(value: float, figure: str) -> str:
    return f"{value:.3f}" if figure in IN_NATS else f"{100 * value:.1f}"


def _effort(rows: Sequence[Row]) -> str:
    lines = []
    for method in _methods(rows):
        own = [row for row in rows if row["method"] == method and "figures" in row]
        if own:
            lines.append((method, *(f"{median([row[key] for row in own]):.0f}" for key in ("seconds", "peak_mib"))))
    return markdown(("method", "seconds", "MiB"), lines)


def _methods(rows: Sequence[Row]) -> list[str]:
    """Peel's methods by name, then the others."""
    names = {row["method"] for row in rows if _is_usual(row["method"])} - {"dense"}
    return sorted(names, key=lambda name: (not name.startswith("peel"), name))
