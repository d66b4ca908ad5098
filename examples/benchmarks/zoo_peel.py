"""peel's side of the zoo: one model through the Python API, every stage measured, the outcome named.

right: half of the multiply-adds gone, equal to the masked original at round-off, ONNX file at parity, trains.
partly: the same at the least cost that can be reached, which is above half.
refused: peel said no, and why. unproven: cut, but the masked original or the ONNX file can't be compared.
wrong: cut, and one of these does not hold. hang: over the time limit. traceback: an error that is none of peel's.
"""

from __future__ import annotations

import contextlib
import math
import re
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo_judge import Row, Stalled, at_most, one_line, trains
from zoo_models.entry import Entry, inputs_of, liven

from peelcli import pipeline, units
from peelcli.errors import BudgetOutOfReach, PeelError
from peelcli.export import targets
from peelcli.records import Costs, Run, Subject
from peelcli.tensors import full_copy

SHARE = 50  # percent of the multiply-adds
LIMIT = 60.0  # CPU seconds for everything but loading and export
PROOF = "cutting it breaks the proof"  # how the reason of a group starts that the proof has locked
LEAST = re.compile(r"can reach is ([\d.,]+) ?([kMGT]?)")


def measure(row: Row, entry: Entry, export: bool = True, tracer: str = "auto") -> None:
    """Take a model through peel, with one of its tracers, and put down what came of it."""
    with outcome_told(row, LIMIT):
        _measure(row, entry, export, tracer)
        outcome, reason = judged(row)
        row.tell(outcome=outcome, reason=reason)


@contextlib.contextmanager
def outcome_told(row: Row, limit: float) -> Iterator[None]:
    """Put down what ended the work inside, whatever it was."""
    try:
        yield
    except Stalled:
        row.tell(outcome="hang", reason=f"over {limit:.0f} s in {row['stage']}")
    except PeelError as error:
        row.tell(outcome="refused", reason=f"{row['stage']}: {one_line(error)}")
    except Exception as error:  # what peel must never let out
        where = traceback.extract_tb(error.__traceback__)[-1]
        row.tell(outcome="traceback", reason=f"{one_line(error)} ({Path(where.filename).name}:{where.lineno})")


def _measure(row: Row, entry: Entry, export: bool, tracer: str) -> None:
    with row.stage("build"):
        module = liven(entry)
    with row.stage("load"):
        subject = pipeline.load(module, None if entry.inputs is None else inputs_of(entry, module))
    with row.stage("trace"), at_most(LIMIT):
        seen = pipeline.inspect(subject, tracer=tracer)
    locked = [group for group in seen.groups if group.locked]
    reach = max(seen.least.macs / seen.full.macs, seen.least.thop_macs / max(1, seen.full.thop_macs))
    row.tell(groups=len(seen.groups), locked=len(locked), macs=seen.full.macs, params=seen.full.params, reach=reach,
             reasons=sorted({group.locked.reason for group in locked})[:5])  # fmt: skip
    with row.stage("plan"), at_most(LIMIT):
        slim, run = pruned(row, subject, target_of(reach), seen.full, tracer=tracer)
    _put_down(row, run)
    if row["broken"]:
        row.tell(reach=_proven_reach(subject, run, reach, tracer))
    with row.stage("train"):
        moved, heard = trains(full_copy(slim), subject.inputs, full_copy(subject.module))
        row.tell(trains=moved, heard=heard)
    if not export:
        return
    with row.stage("export"):
        row.tell(**_exported(replace(subject, module=slim), run))


def target_of(reach: float) -> int:
    """The budget in percent: half, or what can be reached, rounded up to leave the search some room."""
    least = math.ceil(100 * reach + 0.5)
    return SHARE if least <= SHARE or least >= 100 else least


def pruned(row: Row, subject: Subject, target: int, full: Costs, **how: Any) -> pipeline.Pruned:
    """Prune as told; where the proof locks so much that the budget falls out of reach, ask again for what is left."""
    for _ in range(3):
        row.tell(target=target)
        try:
            return pipeline.prune(subject, flops=f"{target}%", **how)
        except BudgetOutOfReach as error:
            left = LEAST.search(error.message)
            share = _count(left) / full.macs if left else target / 100 + 0.1
            if target_of(share) <= target:
                raise
            target = target_of(share)
    return pipeline.prune(subject, flops=f"{target}%", **how)


def _proven_reach(subject: Subject, run: Run, traced: float, tracer: str) -> float:
    """What is reachable without the groups that the proof has locked; what the trace said where they can't be named."""
    try:
        seen = pipeline.inspect(subject, ignore=broken_in(run), tracer=tracer)
    except PeelError:
        return traced
    return seen.least.macs / seen.full.macs


def broken_in(run: Run) -> list[str]:
    """Names of the groups that the proof has locked."""
    return [c.group.name for c in run.plan.cuts if c.group.locked and c.group.locked.reason.startswith(PROOF)]


def _count(match: re.Match[str]) -> float:
    return float(units.parse_count(match[1].replace(",", "") + match[2].lower()))


def _put_down(row: Row, run: Run) -> None:
    checks = {check.name: [check.ok, check.value, check.note] for check in run.checks}
    row["seconds"] |= {f"plan.{name}": round(seconds, 3) for name, seconds in run.seconds.items()}
    broken = broken_in(run)
    row.tell(ratio=run.after.macs / run.plan.before.macs, params_ratio=run.after.params / run.plan.before.params,
             broken=len(broken), broken_names=broken[:5], checks=checks)  # fmt: skip


def _exported(slim: Subject, run: Run) -> dict[str, object]:
    """Write the ONNX file as `peel prune --out` does; a refusal is put down and ends nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slim.onnx")
        try:
            with contextlib.redirect_stdout(None):
                _, checks = targets.write(slim, run.plan, run.after, [path])
        except PeelError as error:
            return {"onnx": None, "onnx_error": one_line(error)}
        found = {check.name: [check.ok, check.value, check.note] for check in checks}
        return {"onnx": found, "onnx_bytes": path.stat().st_size}


def judged(row: Row) -> tuple[str, str]:
    """The outcome of a run that came through, and its reason where it is not plainly right."""
    checks = row["checks"]
    if row["ratio"] >= 1 or checks.get("budget_macs", [False])[0] is not True:
        return "wrong", f"{row['ratio']:.1%} of the multiply-adds are left, the target was {row['target']} %"
    same, value, note = checks.get("masked_equivalence", [None, None, "not checked"])
    if same is False:
        return "wrong", f"differs from the masked original by {value:.1e}"
    if not row["trains"]:
        return "wrong", f"does not train: {row['heard']}"
    if same is None:
        return "unproven", note
    if "onnx" in row and (flaw := _flaw_of_file(row)):
        return flaw
    if row["target"] > SHARE:
        return "partly", f"{row['target']} % is the least that can be reached"
    return "right", ""


def _flaw_of_file(row: Row) -> tuple[str, str] | None:
    if row["onnx"] is None:
        return "refused", f"export: {row['onnx_error']}"
    parity, _, told = row["onnx"].get("onnx_parity", [None, None, "not checked"])
    if parity:
        return None
    return ("wrong", "the ONNX file differs") if parity is False else ("unproven", f"ONNX: {told}")
