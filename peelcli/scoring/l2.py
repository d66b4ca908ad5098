"""Root mean square of the weights that make and read a channel."""

from __future__ import annotations

from peelcli.records import Scores
from peelcli.scoring.base import Material, magnitudes, with_mean_layers


def score(material: Material) -> Scores:
    """Channel: root mean square in each slice, then the mean over the slices. Layer: mean over the channels.

    Source: the group norm of DepGraph, arXiv:2301.12900, group-level pruning. What is ours stands in
    `magnitudes`.
    """
    return with_mean_layers("l2", [magnitudes(material, group, 2) for group in material.graph.groups])
