"""A run as one JSON document; keys are added over time, never renamed. docs/run.schema.json is its schema."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from peelcli.footprint import Footprint
from peelcli.records import Check, Costs, Cut, Run
from peelcli.report import pace, tuning
from peelcli.report.numbers import distance_document, number
from peelcli.results import Candidate, Fidelity

VERSION = 1


def document(run: Run) -> dict[str, Any]:
    """A run as plain dicts, lists, strings and numbers.

    `used` is the share of each bound that the slim model takes, 0 to 1. A check's `ok` is null where its two sides
    can't be compared. A group's `backbone` is its width before the pool was shared out, null where no pool was. What a
    layer has is told [before, after]. `fidelity` is null where there were no samples to compare on, and a figure in it
    where it is unknown or not finite; records.Distance says what the figures are.
    """
    bounds = _bounds(run)
    after: dict[str, int] = counts(run.after)
    sizes = [artifact.bytes for artifact in run.artifacts if artifact.kind == "onnx"]
    if sizes:
        after["onnx_bytes"] = sizes[0]
    before = counts(run.plan.before)
    for figures, side in zip((before, after), run.sides or (), strict=False):
        if side.peak_bytes is not None:
            figures["peak_bytes"] = side.peak_bytes
    model = run.plan.model
    return {
        "peel_run": VERSION,
        "peel": run.version,
        "command": run.command or None,
        "model": {
            "name": model.name,
            "architecture": model.architecture,
            "weights": model.weights,
            "inputs": list(run.plan.inputs),
        },
        "before": before,
        "after": after,
        "budget": {count: bounds.get(count) for count in ("macs", "params", "thop_macs")},
        "used": used(run),
        "predicted": counts(run.plan.predicted),
        "settings": dict(run.plan.settings),
        "groups": [_group(cut, width) for cut, width in zip_longest(run.plan.cuts, run.backbone)],
        "layers": _layers(*run.sides) if run.sides else [],
        "checks": [check_document(check) for check in run.checks],
        "fidelity": None if run.fidelity is None else fidelity_document(run.fidelity),
        "latency": None if run.pace is None else pace.document(run.pace),
        "training": [tuning.document(found) for found in run.tunings],
        "candidates": [_candidate(candidate) for candidate in run.candidates],
        "outputs": [artifact.path for artifact in run.artifacts],
        "uncounted": list(run.uncounted),
        "notes": list(run.notes),
        "seconds": {stage: round(seconds, 3) for stage, seconds in run.seconds.items()},
    }


def counts(costs: Costs) -> dict[str, int]:
    """The three counts by name."""
    return {"macs": costs.macs, "params": costs.params, "thop_macs": costs.thop_macs}


def used(run: Run) -> dict[str, float | None]:
    """The share of each bound that the slim model takes; None where there is no bound."""
    bounds = _bounds(run)
    return {count: value / bounds[count] if bounds.get(count) else None for count, value in counts(run.after).items()}


def _bounds(run: Run) -> dict[str, int]:
    return {limit.count: limit.bound for limit in run.plan.budget}


def _layers(original: Footprint, slim: Footprint) -> list[dict[str, Any]]:
    after = {layer.name: layer for layer in slim.layers}
    return [
        {
            "name": layer.name,
            "op": layer.op,
            "macs": [layer.macs, after[layer.name].macs if layer.name in after else 0],
            "params": [layer.params, after[layer.name].params if layer.name in after else 0],
            "width": [layer.width, after[layer.name].width if layer.name in after else None],
        }
        for layer in original.layers
    ]


def _group(cut: Cut, backbone: float | None) -> dict[str, Any]:
    group = cut.group
    return {
        "name": group.name,
        "layers": list(group.layers),
        "full": group.full,
        "width": cut.width,
        "score": number(cut.score),
        "locked": None if group.locked is None else group.locked.reason,
        "step": group.step,
        "floor": group.floor,
        "used": cut.width / group.full,
        "backbone": backbone,
    }


def check_document(check: Check) -> dict[str, Any]:
    """One proof."""
    return {
        "name": check.name,
        "ok": check.ok,
        "value": number(check.value),
        "tolerance": number(check.tolerance),
        "note": check.note,
    }


def fidelity_document(fidelity: Fidelity) -> dict[str, Any]:
    """The comparison on samples."""
    return {
        "fitted": fidelity.fitted,
        "held": fidelity.held,
        "synthetic": fidelity.synthetic,
        "cut": distance_document(fidelity.cut),
        "repaired": None if fidelity.repaired is None else distance_document(fidelity.repaired),
        "metric": fidelity.metric or None,
        "original": number(fidelity.original),
        "notes": list(fidelity.notes),
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {"name": candidate.name, "chosen": candidate.chosen, "distance": distance_document(candidate.distance)}
