"""The work on one point of a sweep: plan, cut, check, repair, and give back the files as bytes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peelcli import config, pipeline, plans
from peelcli.config import Budget, Calibration, GraphForm, Options
from peelcli.errors import BudgetOutOfReach, CheckFailed, NothingToPrune
from peelcli.evidence import Evidence, gather
from peelcli.export import targets
from peelcli.planning import Clock, Prepared, Settled, failure, mend, settle
from peelcli.points import Point
from peelcli.records import Subject

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Task:
    """What a worker needs to start: the model as a name or a path, and what was found out about it once for all.

    Attributes:
        model: as for `pipeline.load`; a module only where the work stays in this process.
        example: for a module.
        settings: of the run, without the budget.
        options: how to plan, the allocation chosen.
        prepared: groups and scores.
        export: whether every point gets an ONNX file.
    """

    model: Any
    example: Any
    settings: Mapping[str, Any]
    options: Options
    prepared: Prepared
    export: bool


@dataclass(frozen=True)
class Workplace:
    """A loaded model with everything that the points share."""

    subject: Subject
    evidence: Evidence | None
    options: Options
    prepared: Prepared
    export: bool
    form: GraphForm

    def make(self, budget: Budget, label: str) -> tuple[Point, Files]:
        """One point.

        Args:
            budget: its bounds.
            label: how its files are called, without suffix.

        Returns:
            The point, and its files by name: the plan, and the slim model where that is wanted. A budget that can't be
            met, or a check that does not hold, is told in the point.
        """
        start, clock = time.perf_counter(), Clock(None)
        asked = str(budget.flops or budget.params)
        try:
            settled = settle(self.subject, self.prepared, budget, self.options, clock, self.evidence, proven=True)
            if settled.failed or settled.after is None:
                raise failure(settled)
            settled = mend(settled, clock, self.evidence)
            point, files = self._kept(settled, label)
        except (BudgetOutOfReach, CheckFailed, NothingToPrune) as error:
            return Point(asked, failed=error.message, seconds=time.perf_counter() - start), {}
        return replace(point, budget=asked, seconds=time.perf_counter() - start), files

    def _kept(self, settled: Settled, label: str) -> tuple[Point, Files]:
        plan_name, onnx_name = f"{label}.plan.json", f"{label}.onnx" if self.export else ""
        files = {plan_name: plans.to_json(settled.plan).encode()}
        checks = settled.checks
        if onnx_name:
            assert settled.after is not None, "a failed point is not kept"
            with tempfile.TemporaryDirectory(prefix="peel-") as folder:
                path = Path(folder, onnx_name)
                slim = replace(self.subject, module=settled.slim)
                checks = (*checks, *targets.write(slim, settled.plan, settled.after, [path], self.form)[1])
                files[onnx_name] = path.read_bytes()
        point = Point(
            budget="",
            after=settled.after,
            plan=plan_name,
            onnx=onnx_name,
            checks=checks,
            fidelity=settled.fidelity,
            notes=settled.plan.notes,
        )
        return point, files


def workplace(task: Task) -> Workplace:
    """Load a task's model in this process, and its samples where there are some."""
    subject = pipeline.load(task.model, task.example, **task.settings)
    wanted = config.pick(Calibration, task.settings)
    subject, evidence = gather(subject, wanted, task.options.seed)
    form = config.pick(GraphForm, task.settings)
    return Workplace(subject, evidence, task.options, task.prepared, task.export, form)
