"""All test networks by name, as subjects with weights that a seed decides, and cuts of them at any legal widths."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import nn

from peelcli.graph import trace
from peelcli.graph.legal import Legality
from peelcli.records import ChannelGraph, Cut, Subject, Widths
from tests.support import nets, odd_nets, shape_nets
from tests.support.parts import NETS

FREELY = Legality(align=1, min_keep=0.01)

# What torch-pruning misreads: its cuts there are wrong, the proof finds it, and the groups are locked.
MISREAD = (
    "channels_last_flatten", "shuffle", "padded_shortcut", "input_joined", "fixed_view", "unflatten", "flipped",
    "pixel_unshuffle", "batch_of_two", "bilinear_product", "detached", "response_norm", "plain_layer_norm",
)  # fmt: skip
# Nothing to prove there: no outputs to compare, or other ones each time.
UNPROVABLE = ("argmax_output", "random_forward")
SOUND = tuple(name for name in NETS if name not in UNPROVABLE)

__all__ = ["FREELY", "MISREAD", "NETS", "SOUND", "UNPROVABLE", "cuts_at", "nets", "odd_nets", "shape_nets", "subject"]


def subject(name: str, seed: int = 0) -> Subject:
    """One of the networks in eval mode, its norms away from their initial values and its signal alive."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, inputs = NETS[name]()
        for norm in module.modules():
            if isinstance(norm, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)):
                _unsettle(norm)
    return Subject(module.eval(), inputs, name)


def _unsettle(norm: nn.Module) -> None:
    """Random weights and statistics, so that an entry in the wrong place shows."""
    if getattr(norm, "running_mean", None) is not None:
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
    if getattr(norm, "weight", None) is not None:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    if getattr(norm, "bias", None) is not None:
        nn.init.uniform_(norm.bias, 0.1, 0.6)


def graph_of(
    subject: Subject, legality: Legality = FREELY, ignore: Sequence[str] = (), tracer: str = "labels"
) -> ChannelGraph:
    """By the label pass, without a way out where that fails, or by torch-pruning's graph."""
    return trace.trace(subject, legality, ignore, tracer)


def cuts_at(graph: ChannelGraph, widths: Sequence[int], seed: int = 0) -> tuple[Cut, ...]:
    """Cuts to the given widths that keep random bundles."""
    rng = random.Random(seed)
    cuts = []
    for group, width in zip(graph.groups, widths, strict=True):
        bundles = group.bundles if group.locked else rng.sample(group.bundles, width // group.bundle_size)
        cuts.append(Cut(group, width, tuple(sorted(c for bundle in bundles for c in bundle)), 1.0))
    return tuple(cuts)


def some_widths(graph: ChannelGraph, seed: int) -> Widths:
    """A legal width for each group."""
    rng = random.Random(seed)
    return tuple(rng.choice(group.legal_widths()) for group in graph.groups)
