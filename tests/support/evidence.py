"""Subjects and the samples that speak for them: what tests of calibration share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peelcli.config import Calibration
from peelcli.evidence import Evidence, gather
from peelcli.graph import trace
from peelcli.graph.legal import Legality
from peelcli.records import Cut, Subject
from tests.support import zoo


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def subject_of(name: str = "resnet") -> Subject:
    return zoo.subject(name)


def evidence_of(subject: Subject, count: int = 20, **wanted: Any) -> Evidence:
    data = wanted.pop("data", drawn(count, *subject.inputs[0].shape[1:]))
    _, found = gather(subject, Calibration(data=data, **wanted), 0)
    assert found is not None
    return found


def cuts_of(subject: Subject) -> tuple[Cut, ...]:
    graph = trace.trace(subject, Legality(align=1, min_keep=0.1))
    widths = (
        max(g.legal_widths()[0], g.full // 2 // g.step * g.step) if not g.locked else g.full for g in graph.groups
    )
    return tuple(Cut(g, w, tuple(range(w)), 1.0) for g, w in zip(graph.groups, widths, strict=True))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: nn.Module, two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.state_dict().items())
