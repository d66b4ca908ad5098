"""Rows of a product's inputs and outputs: positions, and the identity patches @ weight + bias == outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from peelcli.patches import generator, inputs_at, output_grid, outputs_at, patches_at, positions
from peelcli.products import Product, watching
from tests.support.parts import Lambda


def rows_of(module: nn.Module, *inputs: Any, count: int = 50) -> list[tuple[Product, torch.Tensor, torch.Tensor]]:
    """(product, its weight applied to its patches, its outputs) at the same positions, for every product."""
    found = []

    def handler(product: Product, run: Callable[[], torch.Tensor]) -> torch.Tensor:
        out = run()
        at = positions(output_grid(product, out), count, generator(0, product.name))
        matrix = product.matrix().flatten(2)  # (groups, outputs, inputs * kernel positions)
        rows = patches_at(product, at) @ matrix.transpose(1, 2)
        made = rows.transpose(0, 1).flatten(1)
        if product.bias is not None:
            made = made + product.bias
        found.append((product, made, outputs_at(product, out, at)))
        return out

    with torch.no_grad(), watching(module, handler):
        module(*inputs)
    return found


def image(*sizes: int) -> torch.Tensor:
    return torch.randn(3, 4, *sizes)


class Conv1D(nn.Module):
    """transformers' own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], 6)


LAYERS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "conv1d": lambda: (nn.Conv1d(4, 6, 5, stride=3, padding=2), image(13)),
    "conv1d, tail unread": lambda: (nn.Conv1d(4, 6, 2, stride=4, dilation=3), image(15)),
    "conv2d": lambda: (nn.Conv2d(4, 6, 3), image(8, 7)),
    "conv2d, 1 x 1": lambda: (nn.Conv2d(4, 6, 1, stride=2, bias=False), image(8, 7)),
    "conv2d, all uneven": lambda: (nn.Conv2d(4, 6, (3, 2), (2, 3), (0, 1), (1, 2)), image(9, 10)),
    "conv2d, same": lambda: (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(3, 1)), image(8, 7)),
    "conv2d, grouped": lambda: (nn.Conv2d(4, 6, 3, padding=1, groups=2), image(8, 7)),
    "conv2d, depthwise": lambda: (nn.Conv2d(4, 4, 3, 2, 1, groups=4), image(8, 7)),
    "conv2d, two filters a channel": lambda: (nn.Conv2d(4, 8, 3, groups=4), image(8, 7)),
    "conv2d, circular": lambda: (nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular"), image(8, 7)),
    "conv2d, reflected": lambda: (nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"), image(8, 7)),
    "conv2d, as wide as the image": lambda: (nn.Conv2d(4, 6, (8, 7)), image(8, 7)),
    "conv2d, channels last": lambda: (
        nn.Conv2d(4, 6, 3, 2, padding=1).to(memory_format=torch.channels_last),
        image(8, 7).to(memory_format=torch.channels_last),
    ),
    "conv2d, expanded": lambda: (nn.Conv2d(4, 6, 3, 2), torch.randn(1, 4, 8, 1).expand(3, 4, 8, 7)),
    "conv2d, part of a larger one": lambda: (nn.Conv2d(4, 6, 3, 2), torch.randn(5, 8, 8, 20)[1:4, ::2, :, 3::2]),
    "conv3d": lambda: (nn.Conv3d(4, 6, (3, 2, 1), (1, 2, 3), (1, 0, 1), (2, 1, 1), groups=2), image(6, 5, 4)),
    "linear, 2-D": lambda: (nn.Linear(4, 6), torch.randn(60, 4)),
    "linear, 3-D": lambda: (nn.Linear(4, 6, bias=False), torch.randn(3, 30, 4)),
    "linear, 4-D, transposed": lambda: (nn.Linear(4, 6), torch.randn(3, 4, 5, 6).permute(0, 2, 3, 1)),
    "linear, expanded": lambda: (nn.Linear(4, 6), torch.randn(1, 30, 4).expand(3, 30, 4)),
    "Conv1D": lambda: (Conv1D(), torch.randn(3, 30, 4)),
}


@pytest.mark.filterwarnings("ignore:Using padding")  # that it may be slow
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("count", [1, 50, 10_000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_patches_times_weight_are_the_outputs(layer, count, dtype, tolerance):
    torch.manual_seed(0)
    net, x = LAYERS[layer]()
    net, x = net.to(dtype), x.to(dtype)
    ((product, made, out),) = rows_of(net, x, count=count)
    total = math.prod(output_grid(product, net(x)))
    assert made.shape == out.shape == (min(count, total), net(x).shape[product.channel_dim])
    assert (made - out).abs().max() < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Flatten(2), nn.Linear(16, 5)).to(dtype)
    for _, made, out in rows_of(net, torch.randn(2, 4, 4, 4).to(dtype)):
        assert out.dtype == made.dtype == dtype
        assert (made - out).abs().max() < (0.01 if dtype is torch.float16 else 0.05)


def test_attention_and_shared_weights():
    torch.manual_seed(0)
    net = Lambda(
        lambda self, x: self.up(self.up(self.mix(x, x, x)[0])) @ self.last,
        mix=nn.MultiheadAttention(8, 2, batch_first=True),
        up=nn.Linear(8, 8),
    )
    net.last = nn.Parameter(torch.randn(8, 3))
    found = rows_of(net.eval(), torch.randn(2, 5, 8))
    assert [(p.name, p.call) for p, *_ in found] == [
        ("mix.in_proj_weight", 0), ("mix.out_proj.weight", 0), ("up.weight", 0), ("up.weight", 1), ("last", 0),
    ]  # fmt: skip
    for _, made, out in found:
        assert (made - out).abs().max() < 1e-5


@st.composite
def any_convolution(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor]:
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    kernel, stride, padding, dilation, slack = each(1, 4), each(1, 4), each(0, 3), each(1, 3), each(0, 5)
    sizes = [max(1, d * (k - 1) + 1 - 2 * p) + s for k, p, d, s in zip(kernel, padding, dilation, slack, strict=True)]
    groups = draw(st.integers(1, 3))
    inputs, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    net = layer(inputs, outputs, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return net.double(), torch.randn(draw(st.integers(1, 3)), inputs, *sizes, dtype=torch.float64)


@given(any_convolution(), st.integers(1, 40))
def test_any_convolution(case, count):
    ((_, made, out),) = rows_of(*case, count=count)
    assert (made - out).abs().max() < 1e-12


def test_patches_worked_by_hand():
    x = torch.arange(10.0).view(1, 2, 5)
    net = nn.Conv1d(2, 2, 2, stride=2, padding=1, dilation=2, groups=2, bias=False)
    weight = net.weight
    product = Product("weight", 0, "conv", x, weight, None, (2,), ((1, 1),), (2,), 2)
    # padded: 0 0 1 2 3 4 0 and 0 5 6 7 8 9 0; windows begin at 0, 2 and 4 and take every other number
    rows = patches_at(product, (torch.tensor([0, 0, 0]), torch.tensor([2, 0, 1])))
    assert rows.tolist() == [[[3, 0], [0, 1], [1, 3]], [[8, 0], [0, 6], [6, 8]]]


def test_inputs_worked_by_hand():
    x = torch.arange(12.0).view(1, 4, 3)
    product = Product("weight", 0, "transposed", x, torch.zeros(4, 1, 2), None, groups=2)
    rows = inputs_at(product, 100, generator(0))
    assert rows.tolist() == [[[0, 3], [1, 4], [2, 5]], [[6, 9], [7, 10], [8, 11]]]
    product = Product("weight", 0, "linear", x, torch.zeros(1, 3), None)
    assert inputs_at(product, 100, generator(0)).tolist() == x.tolist()
    assert inputs_at(product, 2, generator(0)).shape == (1, 2, 3)


def test_rows_have_no_gradients():
    x = torch.randn(2, 4, 6, requires_grad=True)
    conv = Product("w", 0, "conv", x, torch.zeros(2, 4, 3), None, (1,), ((1, 1),), (1,))
    linear = Product("w", 0, "linear", x, torch.zeros(2, 6), None)
    at = positions((2, 4), 5, generator(0))
    assert not any(f.requires_grad for f in (patches_at(conv, at), patches_at(linear, at)))
    assert not any(inputs_at(p, 5, generator(0)).requires_grad for p in (conv, linear))


def test_a_position_outside_is_refused():
    product = Product("w", 0, "conv", torch.zeros(1, 1, 5), torch.zeros(1, 1, 2), None, (2,), ((0, 0),), (1,))
    with pytest.raises(IndexError):
        patches_at(product, (torch.tensor([0]), torch.tensor([2])))


def test_patches_of_a_transposed_convolution_are_no_such_thing():
    product = Product("w", 0, "transposed", torch.zeros(1, 1, 5), torch.zeros(1, 1, 2), None)
    with pytest.raises(ValueError, match="zip"):
        patches_at(product, positions((1, 5), 3, generator(0)))


# --- positions

GRIDS = st.one_of(
    st.lists(st.integers(1, 9), min_size=1, max_size=4), st.tuples(st.integers(1, 400), st.integers(1, 9))
).map(tuple)


@given(GRIDS, st.integers(0, 200), st.integers(0, 5))
def test_positions_are_different_in_order_and_even(sizes, count, seed):
    at = positions(sizes, count, generator(seed))
    again = positions(sizes, count, generator(seed))
    assert all(torch.equal(a, b) for a, b in zip(at, again, strict=True))
    rows = list(zip(*(a.tolist() for a in at), strict=True))
    assert len(at) == len(sizes)
    assert len(rows) == min(count, math.prod(sizes))
    assert rows == sorted(set(rows))
    assert all(0 <= i < n for row in rows for i, n in zip(row, sizes, strict=True))
    shares = torch.bincount(at[0], minlength=sizes[0])
    assert shares.max() - shares.min() <= 1


def test_positions_worked_by_hand():
    assert [a.tolist() for a in positions((2, 2), 4, generator(0))] == [[0, 0, 1, 1], [0, 1, 0, 1]]
    assert [a.tolist() for a in positions((3,), 9, generator(0))] == [[0, 1, 2]]


@pytest.mark.parametrize("seed", range(20))
def test_positions_are_spread_over_each_sample(seed):
    # two samples of twelve: on a circle of twelve numbers, four parts of three, with one position in each
    sample, place = positions((2, 12), 8, generator(seed))
    assert sample.tolist() == [0] * 4 + [1] * 4
    for inside in (place[:4], place[4:]):
        gaps = (inside.roll(-1) - inside) % 12
        assert 1 <= gaps.min() <= gaps.max() <= 5


@pytest.mark.parametrize(("sizes", "count"), [((3, 5), 7), ((3, 5), 14), ((4, 3), 3), ((5,), 3)])
def test_every_position_is_found_as_often_as_every_other(sizes, count):
    seen, passes = torch.zeros(sizes), 4000
    for seed in range(passes):
        seen[positions(sizes, count, generator(seed))] += 1
    share = count / math.prod(sizes)
    assert (seen / passes - share).abs().max() < 4 * math.sqrt(share * (1 - share) / passes)


def test_an_empty_grid():
    assert [len(a) for a in positions((0, 3), 5, generator(0))] == [0, 0]
    assert [len(a) for a in positions((2, 3), 0, generator(0))] == [0, 0]


def test_random_numbers_depend_on_what_they_are_for():
    def numbers(*names: Any) -> list[float]:
        return torch.rand(3, generator=generator(*names)).tolist()

    state = torch.get_rng_state()
    assert numbers(1, "a", 2) == numbers(1, "a", 2)
    assert len({tuple(numbers(*n)) for n in ((1,), (2,), (1, "a"), (1, "b"), (1, "a", 2))}) == 5
    positions((3, 5), 7, generator(0))
    assert torch.equal(torch.get_rng_state(), state)  # the process's own are left alone
