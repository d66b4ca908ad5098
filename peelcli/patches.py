"""What the products of a forward pass see, as rows of a matrix: their inputs and outputs at random positions."""

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

    The first dimension is that of the samples: each gets the same number of positions, give or take one, spread evenly
    over the sample. With fewer positions than samples, the samples that get one are spread evenly.
    """
    samples, inside = sizes[0], math.prod(sizes[1:])
    if samples * inside <= count:
        flat = torch.arange(samples * inside)
    else:
        shares = torch.full((samples,), count // samples)
        shares[_spread(torch.tensor([count % samples]), samples, source)] += 1
        owner = torch.arange(samples).repeat_interleave(shares)
        flat = (owner * inside + _spread(shares, inside, source)).sort().values
    return tuple(torch.unravel_index(flat, sizes))


def _spread(shares: torch.Tensor, size: int, source: torch.Generator) -> torch.Tensor:
    """For each share so many different numbers below `size`, each as likely as any other and none far from the next.

    A circle of `size` numbers is cut into as many parts, wherever it begins; each part gives one at random.
    """
    owner = torch.arange(len(shares)).repeat_interleave(shares)
    part = torch.arange(len(owner)) - (shares.cumsum(0) - shares)[owner]
    start, end = part * size // shares[owner], (part + 1) * size // shares[owner]
    inside = torch.rand(len(owner), generator=source, dtype=torch.float64) * (end - start)
    turn = torch.randint(size, (len(shares),), generator=source)
    return (start + inside.long() + turn[owner]) % size


def output_grid(product: Product, out: torch.Tensor) -> tuple[int, ...]:
    """Sizes of the output without its channels."""
    return tuple(out.shape[:-1]) if product.kind == "linear" else (out.shape[0], *out.shape[2:])


def outputs_at(product: Product, out: torch.Tensor, at: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Outputs at some positions, shape (rows, channels)."""
    return out[at] if product.kind == "linear" else channels_at(out, at)


def patches_at(product: Product, at: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What a convolution or linear layer reads for its outputs at some positions, without gradients.

    With W = `Product.matrix` as (groups, outputs, inputs * kernel positions), patches @ W^T + bias are the outputs.

    Returns:
        Shape (groups, rows, inputs of a group * kernel positions).
    """
    x = product.x.detach()
    if product.kind == "linear":
        return x[at][None]
    if any(p for pair in product.padding for p in pair):
        x = F.pad(x, [p for pair in reversed(product.padding) for p in pair])
    windows = zip(product.weight.shape[2:], product.stride, product.dilation, strict=True)
    for dim, (kernel, stride, dilation) in enumerate(windows, start=2):
        x = x.unfold(dim, dilation * (kernel - 1) + 1, stride)[..., ::dilation]  # a view: (n, c, *grid, *kernel)
    return _grouped(product, channels_at(x, at))


def inputs_at(product: Product, count: int, source: torch.Generator) -> torch.Tensor:
    """The input's channels at up to `count` positions, without gradients: (groups, rows, channels of a group)."""
    x = product.x.detach()
    if product.kind == "linear":
        return x[positions(tuple(x.shape[:-1]), count, source)][None]
    at = positions((x.shape[0], *x.shape[2:]), count, source)
    return _grouped(product, channels_at(x, at))


def channels_at(tensor: torch.Tensor, at: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """A tensor (samples, channels, *sizes, ...) at positions of its other dimensions: (rows, channels, ...)."""
    index: tuple[torch.Tensor | slice, ...] = (at[0], slice(None), *at[1:])
    return tensor[index]


def _grouped(product: Product, rows: torch.Tensor) -> torch.Tensor:
    """Rows of shape (rows, channels, ...) as (groups, rows, the rest)."""
    by_group: torch.Tensor = rows.flatten(1).unflatten(1, (product.groups, -1))
    return by_group.transpose(0, 1)
