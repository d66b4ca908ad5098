"""The convolutions and linear layers of a network as calls that can be timed alone, at widths of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from peelcli.latency.layers import Layer
from peelcli.latency.table import Call
from peelcli.products import Product, Run, watching
from peelcli.records import ChannelGraph, Group, Size, Term

MOST_KNOTS = 5  # along one axis; a grid of 25 says enough of the shape
_EXACT = 7  # so few legal widths are all measured: narrow groups have the oddest times
_ROUND = 16


@dataclass(frozen=True, slots=True)
class Seen:
    """A call, and how many numbers it puts out at the original's widths."""

    call: Call
    elements: int


def calls_of(module: nn.Module, arguments: tuple[object, ...], graph: ChannelGraph) -> tuple[Seen, ...]:
    """Every call of a product whose weight moves with some group.

    Args:
        module: run once, in eval mode.
        arguments: of its forward.
        graph: groups, and the sizes of every parameter as functions of their widths.
    """
    sizes = {term.label: term.sizes for term in graph.cost.params if isinstance(term, Term)}
    found: list[Seen] = []

    def handler(product: Product, run: Run) -> torch.Tensor:
        out = run()
        axes = _axes(product, sizes.get(product.name, ()))
        if axes is not None:
            knots = tuple(knots_of(size, graph.groups) for size in axes)
            found.append(Seen(Call(product.name, _layer(product), *axes, (knots[0], knots[1])), out.numel()))
        return out

    with torch.no_grad(), watching(module, handler):
        module(*arguments)
    return tuple(found)


def _axes(product: Product, sizes: Sequence[Size]) -> tuple[Size, Size] | None:
    """(outputs, inputs of a group) as functions of the widths; None where no width changes them."""
    if product.kind == "transposed" or len(sizes) != product.weight.dim() or product.weight.dim() < 2:
        return None
    outputs, inputs = (sizes[1], sizes[0]) if product.flipped else (sizes[0], sizes[1])
    return (outputs, inputs) if outputs.shares or inputs.shares else None


def _layer(product: Product) -> Layer:
    groups, outputs, per_group, _ = product.matrix().shape
    x = product.x
    if product.kind == "linear":
        return Layer("linear", per_group, outputs, (math.prod(x.shape[:-1]),))
    before, after = zip(*product.padding, strict=True)
    return Layer(
        "conv",
        groups * per_group,
        groups * outputs,
        (x.shape[0], *x.shape[2:]),
        tuple(product.weight.shape[2:]),
        product.stride,
        product.dilation,
        (*before, *after),
        groups,
    )


def knots_of(size: Size, groups: Sequence[Group]) -> tuple[int, ...]:
    """Sizes from the least to the original's, at most a handful: those of legal widths where one group decides."""
    if not size.shares:
        return (size.constant,)
    if len(size.shares) == 1:
        (share,) = size.shares
        reached = [size.constant + width * share.num // share.den for width in groups[share.group].legal_widths()]
        return tuple(sorted(set(reached if len(reached) <= _EXACT else _some(reached))))
    ends = [
        size.constant + sum(pick(groups[s.group].legal_widths()) * s.num // s.den for s in size.shares)
        for pick in (min, max)
    ]
    rounded = range(math.ceil((ends[0] + 1) / _ROUND) * _ROUND, ends[1], _ROUND)
    return tuple(sorted(set(_some([ends[0], *rounded, ends[1]]))))


def _some(values: Sequence[int]) -> list[int]:
    """Evenly spaced ones, the first and the last among them."""
    last = len(values) - 1
    return [values[round(k * last / (MOST_KNOTS - 1))] for k in range(MOST_KNOTS)]
