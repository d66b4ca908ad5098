"""The table of scorers: a new file in this folder is a new scorer.

The file's name is the scorer's name (without a trailing "_", where the plain name is taken), the first line of its
docstring is the description that users see, and its function `score` does the work. The table is read from the
sources, so that `peel plan --help` can show it without torch.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from peelcli.errors import UsageError
from peelcli.records import ChannelGraph, Scores, Subject

if TYPE_CHECKING:
    from peelcli.scoring.base import Material, Scorer

AUTO = "auto"
_NO_SCORERS = {"__init__", "base", "table"}


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """One row of the table.

    Attributes:
        name: what users write after --score.
        summary: one line.
        module: where the function `score` is.
    """

    name: str
    summary: str
    module: str

    @property
    def function(self) -> Scorer:
        """The scorer itself; torch loads here."""
        return cast("Scorer", import_module(self.module).score)


def read_table(folder: Path) -> dict[str, ScorerInfo]:
    """One row for each scorer in a folder of this package."""
    rows = {}
    for path in sorted(folder.glob("*.py")):
        if path.stem not in _NO_SCORERS:
            text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            name = path.stem.rstrip("_")
            rows[name] = ScorerInfo(name, text.partition("\n")[0], f"{__package__}.{path.stem}")
    return rows


SCORERS: Mapping[str, ScorerInfo] = read_table(Path(__file__).parent)


def check_name(name: str) -> None:
    """Refuse a name that no scorer has; cheap, so that it can come before any work.

    Raises:
        UsageError: with the nearest name.
    """
    names = [AUTO, *SCORERS]
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"there is no score called {name!r}", hint=f"{guess}--score takes one of {', '.join(names)}")


def score(subject: Subject, graph: ChannelGraph, name: str, seed: int) -> Scores:
    """Score every group of a model, locked ones too.

    Args:
        subject: the model; it is only read.
        graph: its groups.
        name: a name in SCORERS, or "auto": `bn` where at least half of the groups that may shrink have a BatchNorm,
            else `l2`.
        seed: of everything random.

    Returns:
        One GroupScore per group, in the order of graph.groups, all figures finite.

    Raises:
        UsageError: no scorer has this name, or this one can't score this model.
    """
    check_name(name)
    from peelcli.scoring.base import Material  # torch loads here, so the table can be shown without it

    material = Material(subject, graph, seed)
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

    free = [group for group in material.graph.groups if not group.locked]
    with_norm = sum(has_batchnorm(material, group) for group in free)
    name = "bn" if with_norm and 2 * with_norm >= len(free) else "l2"
    return name, (f"score: {name}, because {with_norm} of {len(free)} groups that may shrink have a BatchNorm",)
