"""Chance: the control that every other scorer must beat."""

from __future__ import annotations

import random

from peelcli.records import GroupScore, Scores
from peelcli.scoring.base import Material


def score(material: Material) -> Scores:
    """Channel and layer: uniform in [0, 1), drawn for each group from the seed and its name.

    The order of the groups, and which others there are, change nothing.
    """
    groups = []
    for group in material.graph.groups:
        chance = random.Random(f"{material.seed}/{group.name}")
        groups.append(GroupScore(tuple(chance.random() for _ in range(group.full)), chance.random()))
    return Scores("random", tuple(groups))
