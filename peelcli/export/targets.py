"""All outputs of a run: written beside their final names, proven there, and renamed together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from peelcli import __version__, files, plans
from peelcli.config import GraphForm
from peelcli.export import onnx, program, pyfile, safetensors, torchfile
from peelcli.export.onnx import AS_USUAL
from peelcli.records import Artifact, Check, Costs, Plan, Subject


def require(targets: Sequence[Path]) -> None:
    """Refuse, before any work, outputs for which a package is missing.

    Raises:
        ExportError: with the command that installs it.
    """
    if any(target.suffix.lower() == ".onnx" for target in targets):
        onnx.require()


def write(
    slim: Subject, plan: Plan, costs: Costs, targets: Sequence[Path], form: GraphForm = AS_USUAL
) -> tuple[tuple[Artifact, ...], tuple[Check, ...]]:
    """Write every target or none.

    Args:
        slim: the pruned model with an input that it accepts; not changed.
        plan: how it came about; goes into the files.
        costs: counted on the slim model, for one sample.
        targets: by suffix .onnx, .pt, .pt2, .safetensors or .py; a .safetensors gets its plan beside it, a .py its
            weights.
        form: of .onnx and .pt2 files.

    Returns:
        The files in the order of `targets`, and the checks that held or had nothing to compare.

    Raises:
        ExportError: a target can't be written, or the model can't be expressed in its format.
        CheckFailed: a file is not right.
    """
    require(targets)
    figures = _figures(plan, costs)
    finals = [
        (path, kind) for target in targets for path, kind in zip(files.written_for(target), _kinds(target), strict=True)
    ]
    checks: list[Check] = []
    with files.staged([path for path, _ in finals]) as temporaries:
        staged = dict(zip((path for path, _ in finals), temporaries, strict=True))
        for path, kind in finals:
            if kind == "onnx":
                metadata = {**figures, safetensors.PLAN_KEY: plans.to_json(plan)}
                checks += onnx.write(slim, metadata, staged[path], path.name, form)
            elif kind == "pt2":
                checks += program.write(slim, figures, staged[path], path.name, form.dynamic)
            elif kind == "py":
                checks += pyfile.write(slim, figures, staged[path], staged[files.weights_beside(path)], path.name)
            elif kind == "pt":
                checks += torchfile.write(slim, staged[path], path.name)
            elif kind == "safetensors":
                beside = staged[files.plan_beside(path)]
                checks += safetensors.write(slim, plan, figures, staged[path], beside, path.name)
        sizes = [temporary.stat().st_size for temporary in temporaries]
    artifacts = (Artifact(str(path), kind, size) for (path, kind), size in zip(finals, sizes, strict=True))
    return tuple(artifacts), tuple(checks)


def _kinds(target: Path) -> tuple[str, ...]:
    """What each file of one output is."""
    kind = target.suffix.lower().removeprefix(".")
    return {"safetensors": ("safetensors", "plan"), "py": ("py", "weights")}.get(kind, (kind,))


def _figures(plan: Plan, costs: Costs) -> dict[str, str]:
    """What a file should tell about itself: counts for one sample before and after, budget, version."""
    return {
        "peel.version": __version__,
        "peel.model": plan.model.name,
        "peel.budget": json.dumps({limit.count: limit.bound for limit in plan.budget}),
        "peel.macs": str(costs.macs),
        "peel.thop_macs": str(costs.thop_macs),
        "peel.params": str(costs.params),
        "peel.macs_before": str(plan.before.macs),
        "peel.thop_macs_before": str(plan.before.thop_macs),
        "peel.params_before": str(plan.before.params),
    }
