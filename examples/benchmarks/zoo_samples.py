"""peel's side of the zoo with samples: scores from data, the choice of an allocation, and repair, on any architecture.

The samples are noise of the input's shape and the weights are random, so that this says nothing of accuracy. It says
whether all of it runs on such a model, holds every check, and brings the outputs nearer to the original's.

nearer: on samples held out, the repaired model's outputs are nearer than those of the cut alone. not nearer: they are
not, and the run says so. The other outcomes are those of zoo_peel.py.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from zoo_judge import Row, at_most
from zoo_models.entry import Entry, inputs_of, liven
from zoo_peel import outcome_told, pruned, target_of

from peelcli import pipeline
from peelcli.records import Run

SAMPLES = 24
LIMIT = 160.0  # CPU seconds


def measure(row: Row, entry: Entry) -> None:
    """Take a model through peel with samples, and put down what came of it."""
    with outcome_told(row, LIMIT):
        with row.stage("build"):
            module = liven(entry)
        with row.stage("load"):
            subject = pipeline.load(module, None if entry.inputs is None else inputs_of(entry, module))
        with row.stage("trace"), at_most(LIMIT):
            seen = pipeline.inspect(subject)
        reach = max(seen.least.macs / seen.full.macs, seen.least.thop_macs / max(1, seen.full.thop_macs))
        data = [_sample(module, subject.inputs, seed) for seed in range(SAMPLES)]
        with row.stage("prune"), at_most(LIMIT):
            _, run = pruned(row, subject, target_of(reach), seen.full, data=data, samples=SAMPLES)
        _put_down(row, run)


def _sample(module: nn.Module, inputs: tuple[Any, ...], seed: int) -> Any:
    """One sample as `data=` takes it: a tensor, or a dict by the names of forward's arguments."""
    values = [_other(value, 1000 * seed + place) for place, value in enumerate(inputs)]
    names = inspect.signature(module.forward).parameters
    return values[0] if len(values) == 1 else dict(zip(names, values, strict=False))


def _other(value: Any, seed: int) -> Any:
    """Other values that are as legal: masks stay, and indices below the largest that was given."""
    if not isinstance(value, Tensor):
        return value
    generator = torch.Generator().manual_seed(seed)
    if value.is_floating_point():
        return torch.randn(value.shape, generator=generator)
    if value.dtype is torch.bool or value.max() <= 1:
        return value
    return torch.randint(0, int(value.max()) + 1, value.shape, generator=generator, dtype=value.dtype)


def _put_down(row: Row, run: Run) -> None:
    told = run.fidelity
    assert told is not None, "there were samples"
    if failed := [check.name for check in run.checks if check.ok is False]:
        row.tell(outcome="wrong", reason=f"fails {', '.join(failed)}")
        return
    cut, repaired = told.cut.relative, (told.repaired or told.cut).relative
    nearer = repaired < cut
    reason = "" if nearer else "; ".join(note for note in told.notes if note.startswith("repair"))
    row.tell(
        ratio=run.after.macs / run.plan.before.macs,
        distance=[cut, repaired],
        chosen=next((candidate.name for candidate in run.candidates if candidate.chosen), ""),
        outcome="nearer" if nearer else "not nearer",
        reason=reason,
    )
