"""One model at many budgets: the records of a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from peelcli.records import Check, Costs, ModelId
from peelcli.results import Candidate, Fidelity
from peelcli.timings import Bench


@dataclass(frozen=True, slots=True)
class Point:
    """What came of one budget.

    Attributes:
        budget: as it was asked for, e.g. "50%".
        after: counted on the slim model; None where there is none.
        failed: why there is none, in one line.
        plan: file name of the plan, in the sweep's folder.
        onnx: file name of the slim model, or "".
        checks: the costs against prediction and budget, and what holds for the files.
        seconds: of work on this point alone.
    """

    budget: str
    after: Costs | None = None
    failed: str = ""
    plan: str = ""
    onnx: str = ""
    checks: tuple[Check, ...] = ()
    fidelity: Fidelity | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """A curve of cost against what is left.

    Attributes:
        budget: which bound was varied: flops or params.
        before: what the original costs.
        proof: the surgery's, of a cut that holds all channels that any point goes without; None where no point is new.
        points: in the order in which the budgets were given.
        knee: position of the point behind which the curve falls faster; None where none stands out.
        bench: latency of the original and of every point, where it was asked for.
        candidates: the allocations that were compared, at the middle budget, for the whole curve.
        found: points that were there already, from a run before.
        seconds: wall time of the whole run.
    """

    version: str
    model: ModelId
    inputs: tuple[str, ...]
    budget: str
    before: Costs
    points: tuple[Point, ...]
    proof: Check | None = None
    knee: int | None = None
    bench: tuple[Bench, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    found: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
