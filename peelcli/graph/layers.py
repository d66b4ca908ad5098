"""What a layer loses when channels go: which entries of which tensors, and which attributes follow.

One function per kind of layer, chosen by type from a table. A new kind of layer is one function and one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from peelcli.graph.depgraph import removes_whole_groups
from peelcli.records import Role


@dataclass(frozen=True, slots=True)
class Loss:
    """What a layer loses with the channels of one component.

    Attributes:
        tensors: (name inside the module, dimension, role, divisor): an entry e of the layer's side is index
            e % divisor of that dimension, or e itself where the divisor is 0.
        attributes: (name, item, entries per unit): the attribute falls by one for so many entries.
        rows: entries that can only go together, each row once, or () where all are free.
    """

    tensors: tuple[tuple[str, int, Role, int], ...]
    attributes: tuple[tuple[str, int | None, int], ...]
    rows: tuple[tuple[int, ...], ...] = ()


def loss_of(module: nn.Module, role: Role) -> Loss | None:
    """What `module` loses on one side; None where the kind of layer is not known."""
    for kind, describe in _TABLE:
        if isinstance(module, kind):
            return describe(module, role)
    return None


def _conv(conv: nn.modules.conv._ConvNd, role: Role) -> Loss:
    out_dim, in_dim = (1, 0) if conv.transposed else (0, 1)
    if conv.groups == 1:
        if role == "in":
            return Loss((("weight", in_dim, "in", 0),), (("in_channels", None, 1),))
        return Loss((("weight", out_dim, "out", 0), ("bias", 0, "out", 0)), (("out_channels", None, 1),))
    if conv.groups == conv.out_channels == conv.in_channels or removes_whole_groups(conv):
        return _whole_groups(conv, role)
    return _share_of_each_group(conv, role)


def _whole_groups(conv: nn.modules.conv._ConvNd, role: Role) -> Loss:
    """Depthwise, or many narrow groups: a conv group goes with its inputs and its outputs."""
    if role == "in":  # the same entries are there as "out" too
        return Loss((), ())
    width = conv.out_channels // conv.groups
    rows = tuple(tuple(range(start, start + width)) for start in range(0, conv.out_channels, width))
    return Loss(
        (("weight", 0, "out", 0), ("bias", 0, "out", 0)),
        (("in_channels", None, 1), ("out_channels", None, 1), ("groups", None, width)),
        rows if width > 1 else (),
    )


def _share_of_each_group(conv: nn.modules.conv._ConvNd, role: Role) -> Loss:
    """Few wide groups: the same positions go in every group, so that the weight stays rectangular."""
    channels = conv.in_channels if role == "in" else conv.out_channels
    width = channels // conv.groups
    rows = tuple(tuple(range(position, channels, width)) for position in range(width))
    inner = (role == "out") == conv.transposed  # the side whose weight dimension spans one group only
    dim = 1 if inner else 0
    tensors: tuple[tuple[str, int, Role, int], ...] = (("weight", dim, role, width if inner else 0),)
    if role == "out":
        tensors = (*tensors, ("bias", 0, "out", 0))
    return Loss(tensors, (("in_channels" if role == "in" else "out_channels", None, 1),), rows)


def _linear(_linear: nn.Linear, role: Role) -> Loss:
    if role == "in":
        return Loss((("weight", 1, "in", 0),), (("in_features", None, 1),))
    return Loss((("weight", 0, "out", 0), ("bias", 0, "out", 0)), (("out_features", None, 1),))


def _norm(_norm: nn.Module, _role: Role) -> Loss:
    names = ("weight", "bias", "running_mean", "running_var")
    return Loss(tuple((name, 0, "out", 0) for name in names), (("num_features", None, 1),))


def _layer_norm(norm: nn.LayerNorm | nn.RMSNorm, _role: Role) -> Loss | None:
    if len(norm.normalized_shape) != 1:
        return None
    return Loss((("weight", 0, "out", 0), ("bias", 0, "out", 0)), (("normalized_shape", 0, 1),))


def _group_norm(norm: nn.GroupNorm, _role: Role) -> Loss:
    width = norm.num_channels // norm.num_groups
    rows = tuple(tuple(range(position, norm.num_channels, width)) for position in range(width))
    return Loss(
        (("weight", 0, "out", 0), ("bias", 0, "out", 0)),
        (("num_channels", None, 1),),
        rows if norm.num_groups > 1 else (),
    )


def _prelu(prelu: nn.PReLU, _role: Role) -> Loss:
    if prelu.num_parameters == 1:
        return Loss((), ())
    return Loss((("weight", 0, "out", 0),), (("num_parameters", None, 1),))


def _embedding(_embedding: nn.Embedding, _role: Role) -> Loss:
    return Loss((("weight", 1, "out", 0),), (("embedding_dim", None, 1),))


_TABLE: Sequence[tuple[type[nn.Module], Callable[..., Loss | None]]] = (
    (nn.modules.conv._ConvNd, _conv),
    (nn.Linear, _linear),
    (nn.modules.batchnorm._NormBase, _norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.PReLU, _prelu),
    (nn.Embedding, _embedding),
)
