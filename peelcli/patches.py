"""What the products of a forward pass see, as rows of a matrix: some positions of their inputs and outputs, at random."""

from __future__ import annotations

import math
import zlib

import torch
from torch.nn import functional as F  # noqa: N812

from peelcli.products import Product


def generator(seed: int, *names: object) -> torch.Generator:
    """Random numbers that depend on the seed and on what they are for, and on nothing else."""
    return torch.Generator().manual_seed(zlib.crc32(repr((seed, *names)).encode()))


def positions(sizes: tuple[int, ...], count: int, source: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Up to `count` different positions in a grid, in order, as one index tensor a dimension.

    The first dimension is that of the samples: each gets the same number of positions, give or take one.
    """
    total = math.prod(sizes)
    if total <= count:
        flat = torch.arange(total)
    else:
        edges = torch.linspace(0, total, count + 1, dtype=torch.float64)[:-1]
        jitter = torch.rand(count, generator=source, dtype=torch.float64) * (total / count)
        flat = (edges + jitter).long().clamp(max=total - 1)
    return tuple(torch.unravel_index(flat, sizes))


def output_grid(product: Product, out: torch.Tensor) -> tuple[int, ...]:
    """Sizes of the output without its channels."""
    return tuple(out.shape[:-1]) if product.kind == "linear" else (out.shape[0], *out.shape[2:])


def outputs_at(product: Product, out: torch.Tensor, at: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Outputs at some positions, shape (rows, channels)."""
    return out[at] if product.kind == "linear" else out[(at[0], slice(None), *at[1:])]


def patches_at(product: Product, at: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What a convolution or linear layer reads for its outputs at some positions.

    Returns:
        Shape (groups, rows, inputs of a group * kernel positions), in the order of `Product.matrix`.
    """
    x = product.x
    if product.kind == "linear":
        return x[at][None]
    rank = len(product.stride)
    x = F.pad(x, [p for pair in reversed(product.padding) for p in pair])
    kernel = product.weight.shape[2:]
    grid = [
        (x.shape[2 + d] - product.dilation[d] * (kernel[d] - 1) - 1) // product.stride[d] + 1 for d in range(rank)
    ]
    strides = x.stride()
    windows = x.as_strided(
        (x.shape[0], x.shape[1], *grid, *kernel),
        (
            strides[0],
            strides[1],
            *(strides[2 + d] * product.stride[d] for d in range(rank)),
            *(strides[2 + d] * product.dilation[d] for d in range(rank)),
        ),
        x.storage_offset(),
    )
    rows = windows[(at[0], slice(None), *at[1:])]  # (rows, channels, *kernel)
    return rows.reshape(len(rows), product.groups, -1).transpose(0, 1)


def inputs_at(product: Product, count: int, source: torch.Generator) -> torch.Tensor:
    """The input's channels at some positions, shape (groups, rows, channels of a group)."""
    x = product.x.detach()
    if product.kind == "linear":
        return x[positions(tuple(x.shape[:-1]), count, source)][None]
    at = positions((x.shape[0], *x.shape[2:]), count, source)
    rows = x[(at[0], slice(None), *at[1:])]
    return rows.reshape(len(rows), product.groups, -1).transpose(0, 1)
