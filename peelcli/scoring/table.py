"""The table of scorers: a new file in this folder is a new scorer.

The file's name is the scorer's name (without a trailing "_", where the plain name is taken), the first line of its
docstring is the description that users see, and its function `score` does the work. A scorer that needs calibration
samples has a line NEEDS_SAMPLES = True. The table is read from the sources, so that `peel plan --help` can show it
without torch.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from peelcli.errors import UsageError
from peelcli.records import ChannelGraph, Scores, Subject

if TYPE_CHECKING:
    from peelcli.samples import Samples
    from peelcli.scoring.base import Material, Scorer

AUTO = "auto"
_NO_SCORERS = {"__init__", "base", "gradients", "moments", "objective", "sensitivity", "surgeon", "table"}
_NEEDS_SAMPLES = "NEEDS_SAMPLES"
_BEST_WITH_SAMPLES = "reconstruction"


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """One row of the table.

    Attributes:
        name: what users write after --score.
        summary: one line.
        module: where the function `score` is.
        needs_samples: whether it can't work without calibration samples.
    """

    name: str
    summary: str
    module: str
    needs_samples: bool = False

    @property
    def function(self) -> Scorer:
        """The scorer itself; torch loads here."""
        return cast("Scorer", import_module(self.module).score)


def read_table(folder: Path) -> dict[str, ScorerInfo]:
    """One row for each scorer in a folder of this package."""
    rows = {}
    for path in sorted(folder.glob("*.py")):
        if path.stem not in _NO_SCORERS:
            source = ast.parse(path.read_text("utf-8"))
            summary = (ast.get_docstring(source) or "").partition("\n")[0]
            name = path.stem.rstrip("_")
            rows[name] = ScorerInfo(name, summary, f"{__package__}.{path.stem}", _needs_samples(source))
    return rows


def _needs_samples(source: ast.Module) -> bool:
    """Whether NEEDS_SAMPLES = True stands at the top level of a file."""
    given = False
    for line in source.body:
        if isinstance(line, (ast.Assign, ast.AnnAssign)) and isinstance(line.value, ast.Constant):
            names = line.targets if isinstance(line, ast.Assign) else [line.target]
            if any(isinstance(name, ast.Name) and name.id == _NEEDS_SAMPLES for name in names):
                given = line.value.value is True
    return given


SCORERS: Mapping[str, ScorerInfo] = read_table(Path(__file__).parent)


def check_name(name: str, with_data: bool = True) -> None:
    """Refuse a name that no scorer has, or whose scorer needs samples; cheap, so that it can come before any work.

    Args:
        name: what the user wrote.
        with_data: whether there are calibration samples.

    Raises:
        UsageError: with the nearest name, or with the two ways out.
    """
    names = [AUTO, *SCORERS]
    if name in names:
        if name != AUTO and SCORERS[name].needs_samples and not with_data:
            raise UsageError(
                f"the score `{name}` needs samples", hint="give calibration samples with --data, or --score l2"
            )
        return
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"there is no score called {name!r}", hint=f"{guess}--score takes one of {', '.join(names)}")


def score(
    subject: Subject,
    graph: ChannelGraph,
    name: str,
    seed: int,
    samples: Samples | None = None,
    progress: Callable[[int, int], None] | None = None,
    turns: bool = False,
) -> Scores:
    """Score every group of a model, locked ones too.

    Args:
        subject: the model; it is only read.
        graph: its groups.
        name: a name in SCORERS, or "auto": `reconstruction` where there are samples, else `bn` where at least half of
            the groups that may shrink have a BatchNorm, else `l2`.
        seed: of everything random.
        samples: calibration samples; scorers that need none don't look at them.
        progress: told (samples done, samples in all).
        turns: whether repair will turn linear streams.

    Returns:
        One GroupScore per group, in the order of graph.groups, all figures finite.

    Raises:
        UsageError: no scorer has this name, it needs samples and there are none, or it can't score this model.
    """
    check_name(name, with_data=bool(samples))
    from peelcli.scoring.base import Material  # torch loads here, so the table can be shown without it

    material = Material(subject, graph, seed, samples, progress, turns)
    notes: tuple[str, ...] = ()
    if name == AUTO:
        name, notes = _choose(material)
    result = SCORERS[name].function(material)
    for group, scored in zip(graph.groups, result.groups, strict=True):
        if not math.isfinite(scored.layer + sum(scored.channels)):
            raise UsageError(
                f"the score {name} of {group.name} is not a finite number",
                hint=f"look for NaN or infinity in the weights of {', '.join(group.layers)}",
            )
    return replace(result, notes=notes + result.notes)


def _choose(material: Material) -> tuple[str, tuple[str, ...]]:
    """What "auto" stands for on this model, and a note that says so."""
    from peelcli.scoring.bn import has_batchnorm

    if material.samples and _BEST_WITH_SAMPLES in SCORERS:
        return _BEST_WITH_SAMPLES, (f"score: {_BEST_WITH_SAMPLES}, because there are samples",)
    free = [group for group in material.graph.groups if not group.locked]
    with_norm = sum(has_batchnorm(material, group) for group in free)
    name = "bn" if with_norm and 2 * with_norm >= len(free) else "l2"
    return name, (f"score: {name}, because {with_norm} of {len(free)} groups that may shrink have a BatchNorm",)
