"""`peel report`: one or several models side by side, the run behind them, and the gate; as one JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import peelcli
from peelcli.errors import SourceError
from peelcli.footprint import Footprint, LayerCost
from peelcli.gate import Verdict
from peelcli.records import Check, Run
from peelcli.report.document import document as run_document
from peelcli.report.record import Record

VERSION = 1


@dataclass(frozen=True, slots=True)
class Report:
    """All that is told.

    Attributes:
        models: side by side; shares are of the first, bounds are on the last.
        run: the record that was among them; of several the last.
        baseline: what the last model must not fall behind.
        verdicts: the bounds, and whether they hold.
        path: the last model as it was given.
        rows: how many layers are shown where not all have to be, the dearest first; 0 for all.
    """

    models: tuple[Footprint, ...]
    run: Run | None = None
    baseline: Footprint | None = None
    verdicts: tuple[Verdict, ...] = ()
    path: str = ""
    rows: int = 12

    @property
    def violated(self) -> tuple[Verdict, ...]:
        """The bounds that do not hold."""
        return tuple(verdict for verdict in self.verdicts if not verdict.ok)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The proofs of the run that did not hold."""
        return tuple(check for check in self.run.checks if check.ok is False) if self.run else ()

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.violated and not self.failed


@dataclass(frozen=True, slots=True)
class Difference:
    """A layer that costs something else in the last model than in the first: [first, last]."""

    name: str
    macs: tuple[int, int]
    params: tuple[int, int]


class Document(BaseModel):
    """What `peel report --output-format json` prints. Keys are added over time, never renamed."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    peel_report: Literal[1] = Field(description="version of this format")
    peel: str = Field(description="version of peel")
    models: tuple[Footprint, ...] = Field(min_length=1, description="side by side")
    run: Record | None = Field(None, description="the record of the run that was given")
    baseline: Footprint | None = Field(None, description="what the last model was compared with")
    bounds: tuple[Verdict, ...] = Field((), description="on the last model")
    differences: tuple[Difference, ...] = Field((), description="layers of the first model and the last one")
    ok: bool = Field(description="whether all bounds and all checks hold")


def sides(run: Run) -> tuple[Footprint, Footprint]:
    """The original and the slim model of a run, with what its samples say of them."""
    plan, fidelity = run.plan, run.fidelity
    before, after = run.sides or (
        Footprint(plan.model.name, "original", plan.before.macs, plan.before.params, plan.before.thop_macs),
        Footprint(plan.model.name, "slim", run.after.macs, run.after.params, run.after.thop_macs),
    )
    last = None if fidelity is None else fidelity.repaired or fidelity.cut
    metric = fidelity.metric if fidelity else ""
    before = replace(
        before,
        name=f"{plan.model.name}, original",
        inputs=plan.inputs,
        uncounted=run.uncounted,
        agreement=1.0 if last and last.agreement is not None else None,
        metric=metric,
        metric_value=fidelity.original if fidelity else None,
    )
    sizes = [artifact.bytes for artifact in run.artifacts if artifact.kind == "onnx" and artifact.bytes]
    after = replace(
        after,
        name=f"{plan.model.name}, slim",
        inputs=plan.inputs,
        uncounted=run.uncounted,
        bytes=sizes[0] if sizes else None,
        agreement=last.agreement if last else None,
        metric=metric,
        metric_value=last.metric if last else None,
        notes=run.notes,
    )
    return before, after


def differences(first: Footprint, last: Footprint) -> Iterator[Difference]:
    """What two models differ in, layer by layer, in the order of the first."""
    before, after = ({layer.name: layer for layer in model.layers} for model in (first, last))
    nothing = LayerCost("", "", 0, 0)
    for name in dict.fromkeys((*before, *after)):
        a, b = before.get(name, nothing), after.get(name, nothing)
        if (a.macs, a.params) != (b.macs, b.params):
            yield Difference(name, (a.macs, b.macs), (a.params, b.params))


def gaps(models: Sequence[Footprint]) -> list[str]:
    """What the multiply-adds of some models leave out, one sentence each."""
    uncounted = sorted({op for model in models for op in model.uncounted})
    told = [f"not counted, no formula is known for {', '.join(uncounted)}"] if uncounted else []
    for model in models:
        if model.unknown:
            told.append(f"{model.name} has more multiply-adds: those of {', '.join(model.unknown)} are not known")
    return told


def document(report: Report) -> dict[str, Any]:
    """A report as plain dicts, lists, strings and numbers; docs/report.schema.json is its schema."""
    models = report.models
    return {
        "peel_report": VERSION,
        "peel": peelcli.__version__,
        "models": [asdict(model) for model in models],
        "run": run_document(report.run) if report.run else None,
        "baseline": asdict(report.baseline) if report.baseline else None,
        "bounds": [asdict(verdict) for verdict in report.verdicts],
        "differences": [asdict(one) for one in differences(models[0], models[-1])] if len(models) > 1 else [],
        "ok": report.ok,
    }


def parse(data: Any, name: str) -> tuple[Footprint, ...]:
    """The models of a report from JSON data.

    Raises:
        SourceError: it is no report, or one of a newer peel.
    """
    version = data.get("peel_report")
    if isinstance(version, int) and version > VERSION:
        raise SourceError(
            f"{name} is a report of version {version}; this peel reads up to {VERSION}", hint="install a newer peel"
        )
    try:
        return Document.model_validate(data).models
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise SourceError(
            f"{name} is no report: {where}: {first['msg'].lower()}",
            hint="write it again with `peel report ... --output-format json`",
        ) from None
