"""docs/coverage.md from the zoo's results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from common import markdown, median, versions

Row = dict[str, Any]
Rows = dict[tuple[str, str], Row]
OUTCOMES = {
    "right": "half of the multiply-adds gone; all proofs hold",
    "partly": "the same at the least cost that can be reached, which is above half",
    "unproven": "cut, runs and trains, but one proof had nothing to compare",
    "refused": "said no, with the reason; nothing written",
    "not smaller": "nothing was cut, silently",
    "does not run": "the result raises",
    "error": "an error before there was a result",
    "wrong": "the result computes something else, or does not train",
    "hang": "over the time limit",
    "traceback": "an error that is not meant for users",
}
GOOD = ("right", "partly")
KINDS = {"cnn": "convolutional", "transformer": "transformers", "other": "others"}
HEADER = (
    "model", "kind", "groups", "locked", "reach", "left", "outcome", "masked", "parity", "seconds", "MiB",
    "plain: outcome", "left",
)  # fmt: skip
PAGE = """\
# Coverage: the zoo

Made by `python examples/benchmarks/zoo.py --table docs/coverage.md` from the results of that script; do not edit.

{count} architectures with random weights, each at its usual input, each in a process of its own with one thread, at
most {limit} seconds of CPU, of which peel may take 60 beside loading and export. Nothing was said to peel but the
budget: half of the multiply-adds, or what `peel inspect` calls reachable where that is more; {guessed} of the inputs
were guessed too. Beside it, on the same models, torch-pruning as its readme shows it: ratio 0.5, group magnitude, the
layers that make the output ignored, no hints, 60 seconds.

**Right** means for both: smaller, trains a step of SGD, and equal in float64 to the original with the removed channels
set to zero, to 1e-9 of what another input changes. For peel it means more: the budget is met by an independent count,
and onnxruntime agrees with torch on the exported file. Rows were measured one after the other while peel was worked
on; the last line of the summary says how many models each side was measured on.

## Summary

{summary}

{medians}

Removable is the share of the multiply-adds that can go at most, none where peel was neither right nor partly right;
reach, below, is what is then left. What plain torch-pruning removed is taken over its right ones. Both are medians.

## The two tracers

{tracers}

## With samples

{samples}

## What did not work, and why

{failures}

## Every model

Groups are sets of coupled channels; locked ones can't change, and in brackets is how many of these the proof locked
after the trace had let them pass. Masked is the largest difference to the masked original, parity that of the ONNX
file; both are relative. Seconds are CPU time from the model in memory to the proven slim one, on a small shared
machine.

{table}

## Again

    make zoo                                                        # hours; goes on where it stopped
    python examples/benchmarks/zoo.py --only '*resnet18' --again    # one model, both sides
    python examples/benchmarks/zoo.py --table docs/coverage.md      # this page

Versions: {versions}.
"""


def page(rows: Rows) -> str:
    """The whole page; models in the order of the zoo, those without a row on a side left blank there."""
    names = list(dict.fromkeys(name for name, _ in rows))
    peel = {name: rows[name, "peel"] for name in names if (name, "peel") in rows}
    plain = {name: rows[name, "plain"] for name in names if (name, "plain") in rows}
    graph = {name: rows[name, "depgraph"] for name in names if (name, "depgraph") in rows}
    either = {**plain, **peel}
    return PAGE.format(
        count=len(names),
        limit=180,
        guessed=f"{sum(bool(row.get('guessed')) for row in either.values())} of {len(either)}",
        summary=_summary(peel, plain),
        medians=_medians(peel, plain),
        tracers=_tracers(peel, graph),
        samples=_samples({name: rows[name, "samples"] for name in names if (name, "samples") in rows}),
        failures=_failures(peel),
        table=markdown(HEADER, [_cells(peel.get(name, {}), plain.get(name, {}), name) for name in names]),
        versions=versions(list(rows.values())),
    )


def _summary(peel: dict[str, Row], plain: dict[str, Row]) -> str:
    counts = [Counter(row["outcome"] for row in side.values()) for side in (peel, plain)]
    sizes = len(peel), len(plain)
    lines = [
        (f"**{outcome}**", _share(counts[0][outcome], sizes[0]), _share(counts[1][outcome], sizes[1]), meaning)
        for outcome, meaning in OUTCOMES.items()
        if any(count[outcome] for count in counts)
    ]
    lines.append(("models", str(len(peel)), str(len(plain)), ""))
    return markdown(("outcome", "peel", "plain torch-pruning", "what it means"), lines)


def _tracers(peel: dict[str, Row], graph: dict[str, Row]) -> str:
    """Both tracers on the models that were measured with both."""
    if not graph:
        return "Not compared in these results."
    sides = {"labels (peel's own pass)": {name: peel[name] for name in graph if name in peel}, "depgraph": graph}
    lines = [(words, *_reached(list(side.values()))) for words, side in sides.items()]
    words = (
        f"`peel prune --tracer`, both on the same {len(graph)} models with the same proofs behind them, without files "
        "(`zoo.py --side depgraph`).\n\n"
    )
    header = ("tracer", "right", "partly", "neither", "groups that the proof locked", "removable")
    return words + markdown(header, lines)


def _samples(rows: dict[str, Row]) -> str:
    """What scores, choice and repair do on models of all kinds."""
    if not rows:
        return "Not measured in these results."
    lines = []
    for kind, words in KINDS.items():
        done = [row for row in rows.values() if row["kind"] == kind and "distance" in row]
        nearer = sum(row["outcome"] == "nearer" for row in done)
        distances = [f"{median([row['distance'][place] for row in done]):.2f}" if done else "-" for place in (0, 1)]
        lines.append((words, str(sum(row["kind"] == kind for row in rows.values())), str(nearer), *distances))
    others = [
        (f"`{name}`", row["outcome"], _escaped(row.get("reason", "")))
        for name, row in rows.items()
        if row["outcome"] != "nearer"
    ]
    words = (
        f"`peel prune --data` on {len(rows)} of the models, with 24 samples of noise: scores from data, the choice of "
        "an allocation, repair (`zoo.py --side samples`). Random weights say nothing of accuracy; the distance is that "
        "of the outputs from the original's on samples held out, relative, a median over the models.\n\n"
    )
    header = ("kind", "models", "nearer after repair", "distance after the cut", "after repair")
    rest = "\n\n" + markdown(("model", "outcome", "reason"), others) if others else ""
    return words + markdown(header, lines) + rest


def _reached(rows: Sequence[Row]) -> tuple[str, ...]:
    """What came of one tracer; only what its trace and its proofs say, files aside."""
    kinds = [row["outcome"] if not row.get("reason", "").startswith("export:") else "right" for row in rows]
    counts = [kinds.count("right"), kinds.count("partly")]
    broken = sum(row.get("broken") or 0 for row in rows)
    left = [1 - row["reach"] if kind in GOOD else 0.0 for row, kind in zip(rows, kinds, strict=True)]
    return (*map(str, counts), str(len(rows) - sum(counts)), str(broken), _median(left))


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.0%})" if whole else "-"


def _medians(peel: dict[str, Row], plain: dict[str, Row]) -> str:
    lines = []
    for kind, words in KINDS.items():
        ours = [row for row in peel.values() if row["kind"] == kind]
        theirs = [row for row in plain.values() if row.get("kind") == kind]
        good = [row for row in theirs if row["outcome"] == "right"]
        cells = (
            _median([1 - row["reach"] if row["outcome"] in GOOD else 0.0 for row in ours]),
            _share(sum(row["outcome"] in GOOD for row in ours), len(ours)),
            _share(len(good), len(theirs)),
            _median([1 - row["ratio"] for row in good]),
        )
        lines.append((words, str(len(ours or theirs)), *cells))
    header = ("kind", "models", "removable", "peel right or partly", "plain right", "plain removed")
    return markdown(header, lines)


def _median(values: Sequence[float]) -> str:
    return f"{median(values):.1%}" if values else "-"


def _failures(peel: dict[str, Row]) -> str:
    lines = [
        (f"`{name}`", row["outcome"], _escaped(row.get("reason", "")))
        for name, row in peel.items()
        if row["outcome"] not in GOOD
    ]
    return markdown(("model", "outcome", "reason"), lines) if lines else "Everything worked."


def _cells(peel: Row, plain: Row, name: str) -> tuple[str, ...]:
    checks, onnx = peel.get("checks") or {}, peel.get("onnx") or {}
    broken = f" ({peel['broken']})" if peel.get("broken") else ""
    share = (peel.get("seconds") or {}).get("plan")
    return (
        f"`{name}`",
        peel.get("kind") or plain.get("kind", ""),
        _text(peel.get("groups"), str),
        _text(peel.get("locked"), lambda locked: f"{locked}{broken}"),
        _text(peel.get("reach"), "{:.1%}".format),
        _text(peel.get("ratio"), "{:.1%}".format),
        peel.get("outcome", "-"),
        _text((checks.get("masked_equivalence") or [None, None])[1], "{:.0e}".format),
        _text((onnx.get("onnx_parity") or [None, None])[1], "{:.0e}".format),
        _text(share, "{:.1f}".format),
        _text(peel.get("peak_mib"), str),
        plain.get("outcome", "-"),
        _text(plain.get("ratio"), "{:.1%}".format),
    )


def _text(value: Any, how: Callable[[Any], str]) -> str:
    return "-" if value is None else how(value)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
