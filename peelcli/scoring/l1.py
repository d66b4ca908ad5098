"""Mean absolute value of the weights that make and read a channel."""

from __future__ import annotations

from peelcli.records import Scores
from peelcli.scoring.base import Material, magnitudes, with_mean_layers


def score(material: Material) -> Scores:
    """Channel: mean |w| in each slice, then the mean over the slices. Layer: mean over the channels.

    Source: filter norms, Li et al., arXiv:1608.08710, section 3.1; over coupled weights, DepGraph, arXiv:2301.12900,
    group-level pruning. What is ours stands in `magnitudes`.
    """
    return with_mean_layers("l1", [magnitudes(material, group, 1) for group in material.graph.groups])
