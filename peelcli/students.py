"""A slim model to train, and the original that it came from."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from peelcli import proving
from peelcli.config import Source
from peelcli.errors import PlanError, SourceError
from peelcli.export.safetensors import holds_plan, read_slim
from peelcli.records import Plan, Subject
from peelcli.sources import digest, inputs
from peelcli.sources import load as model_files
from peelcli.surgery.prune import apply_cuts

Model = nn.Module | Subject | str | os.PathLike[str]


@dataclass(frozen=True)
class Student:
    """What is trained.

    Attributes:
        slim: the slim model.
        original: what it was cut from; None where that is not known.
        plan: how; None where that is not known.
    """

    slim: Subject
    original: Subject | None
    plan: Plan | None


def load(model: Model, teacher: Model | None, example: Any, source: Source) -> Student:
    """Take both from files, names or Python.

    Args:
        model: the slim one; weights that peel wrote as .safetensors are filled into the original cut by their plan.
        teacher: the original.
        example: for modules, forward's arguments.
        source: what else the user said. A factory or weights belong to the original where there is one.

    Raises:
        SourceError: one of them can't be used.
        PlanError: the plan was made for another original.
    """
    path = Path(model) if isinstance(model, (str, os.PathLike)) else None
    if path is not None and path.is_file() and holds_plan(path):
        return _from_plan(path, teacher, example, source)
    own = source if teacher is None else source.model_copy(update={"factory": None, "weights": None})
    slim = _subject(model, example, own)
    if teacher is None:
        return Student(slim, None, None)
    if not source.input and not source.inputs and example is None:
        source = source.model_copy(update={"input": _same_input(slim)})
    return Student(slim, _subject(teacher, example, source), None)


def _from_plan(path: Path, teacher: Model | None, example: Any, source: Source) -> Student:
    if teacher is None:
        raise SourceError(
            f"{path} holds weights and a plan, and no model that they fit", hint="give the original: --teacher MODEL"
        )
    plan, weights = read_slim(path)
    if not source.input and not source.inputs and example is None and inputs.function_in(plan.inputs) is None:
        source = source.model_copy(update={"input": plan.inputs})
    original = _subject(teacher, example, source)
    check_owner(plan, original)
    module = apply_cuts(original.module, plan.cuts)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise SourceError(
            f"{path} does not fit {plan.model.name} as its plan cuts it: {' '.join(str(error).split())[:160]}",
            hint="write the slim model again",
        ) from error
    return Student(replace(original, module=module), original, plan)


def _subject(model: Model, example: Any, source: Source) -> Subject:
    if isinstance(model, Subject):
        return model
    if isinstance(model, nn.Module):
        return model_files.from_module(model, example, options=source)
    return model_files.load(os.fspath(model), source)


def _same_input(subject: Subject) -> tuple[str, ...]:
    texts = inputs.texts(subject)
    return () if inputs.function_in(texts) is not None else texts


def check_owner(plan: Plan, subject: Subject) -> None:
    """Refuse a plan that was made for something else.

    Raises:
        PlanError: the architecture, the weights or the input are others.
    """
    here = digest.model_id(subject)
    if here.architecture != plan.model.architecture:
        raise PlanError(
            f"the plan was made for another architecture: {plan.model.name} "
            f"({plan.model.architecture[:12]}), not {here.name} ({here.architecture[:12]})",
            hint="make a plan for this model with `peel plan`",
        )
    if here.weights != plan.model.weights:
        raise PlanError(
            f"the plan was made for other weights of {here.name}: {plan.model.weights[:12]}, not {here.weights[:12]}",
            hint="make a plan for these weights with `peel plan`",
        )
    there = inputs.texts(subject)
    if there != plan.inputs and proving.counted(subject, subject.module) != plan.before:
        known, given = " ".join(plan.inputs), " ".join(there)
        raise PlanError(
            f"the plan was made for another input: {known}, not {given}, where its costs don't hold",
            hint="leave --input away: the plan knows its own; or make a plan for this one with `peel plan`",
        )
