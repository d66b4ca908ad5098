"""Ops that move channels, each in a network of a few lines: its units worked out by hand, its cuts proven."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.records import Subject
from tests.support.parts import Lambda
from tests.support.proofs import groups_proven, reason_of, seeded
from tests.support.slices import attributes_of, blocks, one_each, slices_of

TOKENS = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def a_then_b(between, width: int = 8, read: int = 8) -> Subject:
    """Linear a, what stands between, linear b."""
    return seeded(lambda net, x: net.b(between(net.a(x))), TOKENS, a=nn.Linear(5, width), b=nn.Linear(read, 3))


def columns_by_bundle(group, tensor: str) -> list[tuple[int, ...]]:
    columns = slices_of(group)[tensor, 1, "in"]
    return [tuple(sorted(sum((columns[c] for c in bundle), ()))) for bundle in group.bundles]


# --- shuffles


def test_a_channel_shuffle_moves_the_columns():
    # channel 3 g + k goes to place 2 k + g
    group = groups_proven(a_then_b(lambda x: x.unflatten(-1, (2, 3)).transpose(-1, -2).flatten(-2), 6, 6))["a"]
    assert group.locked is not None  # (2, 3) are numbers in the code
    shuffle = lambda x: x.view(*x.shape[:-1], 2, x.shape[-1] // 2).transpose(-1, -2).flatten(-2)  # noqa: E731
    group = groups_proven(a_then_b(shuffle, 6, 6))["a"]
    assert group.bundles == ((0, 3), (1, 4), (2, 5))  # the same position of each half: its rows stay a rectangle
    assert columns_by_bundle(group, "b.weight") == [(0, 1), (2, 3), (4, 5)]


def test_torchs_own_channel_shuffle_takes_the_same_position_of_each_part():
    net = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ChannelShuffle(3), nn.Conv2d(12, 2, 1)).eval()
    group = groups_proven(Subject(net, (IMAGE,), "net"))["0"]
    assert group.bundles == tuple((c, c + 4, c + 8) for c in range(4))
    assert columns_by_bundle(group, "2.weight") == [tuple(row) for row in blocks(4, 3)]


def test_a_pixel_shuffle_draws_four_channels_together():
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.PixelShuffle(2), nn.Conv2d(4, 2, 1)).eval()
    group = groups_proven(Subject(net, (IMAGE,), "net"))["0"]
    assert group.bundles == blocks(4, 4)
    assert columns_by_bundle(group, "2.weight") == [(0,), (1,), (2,), (3,)]


def test_a_pixel_unshuffle_makes_four_columns_of_a_channel():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PixelUnshuffle(2), nn.Conv2d(16, 2, 1)).eval()
    group = groups_proven(Subject(net, (IMAGE,), "net"))["0"]
    assert group.bundles == one_each(4)
    assert slices_of(group)["2.weight", 1, "in"] == blocks(4, 4)


# --- joining and taking apart


def test_a_concatenation_shifts_and_a_view_spreads():
    group = groups_proven(
        seeded(lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], -1).transpose(1, 2).flatten(1)), TOKENS,
               a=nn.Linear(5, 3), b=nn.Linear(5, 2), c=nn.Linear(20, 3))
    )  # fmt: skip
    assert slices_of(group["a"])["c.weight", 1, "in"] == blocks(3, 4)
    assert slices_of(group["b"])["c.weight", 1, "in"] == blocks(2, 4, start=12)


@pytest.mark.parametrize(
    ("dim", "columns", "read"), [(1, one_each(8), 8), (-1, blocks(8, 2), 16)], ids=["as rows", "as neighbours"]
)
def test_what_is_stacked_loses_the_same(dim, columns, read):
    def forward(net, x):
        x = torch.stack([net.a(x), net.b(x)], dim)
        return net.c(x.flatten(1, 2) if dim == 1 else x.flatten(-2))

    net = seeded(forward, TOKENS, a=nn.Linear(5, 8), b=nn.Linear(5, 8), c=nn.Linear(read, 3))
    group = groups_proven(net)["a"]
    assert slices_of(group)["a.weight", 0, "out"] == slices_of(group)["b.weight", 0, "out"] == one_each(8)
    assert slices_of(group)["c.weight", 1, "in"] == columns


def test_halves_by_a_tracked_slice_that_meet_go_in_pairs():
    def rotate(x):
        half = x.shape[-1] // 2
        return x + torch.cat([-x[..., half:], x[..., :half]], -1)

    assert groups_proven(a_then_b(rotate))["a"].bundles == tuple((c, c + 4) for c in range(4))


def test_chunks_go_their_own_ways_but_lose_the_same():
    def forward(net, x):
        one, two = net.a(x).chunk(2, -1)
        return net.b(one) + net.c(two)

    group = groups_proven(seeded(forward, TOKENS, a=nn.Linear(5, 8), b=nn.Linear(4, 3), c=nn.Linear(4, 3)))["a"]
    assert group.bundles == tuple((c, c + 4) for c in range(4))
    assert columns_by_bundle(group, "b.weight") == columns_by_bundle(group, "c.weight") == [(0,), (1,), (2,), (3,)]


def test_a_fixed_part_of_a_split_stays_and_the_reason_has_the_line():
    def forward(net, x):
        one, two = net.a(x).split([3, 5], -1)
        return net.b(one) + net.c(two)

    net = seeded(forward, TOKENS, a=nn.Linear(5, 8), b=nn.Linear(3, 3), c=nn.Linear(5, 3))
    line = forward.__code__.co_firstlineno + 1
    assert reason_of(net, "a") == f"a size of 3 is fixed in the code (split) (test_shape_rules.py:{line})"


@pytest.mark.parametrize(
    ("name", "pick"),
    [
        ("every second channel", lambda x: x[..., ::2]),
        ("a channel is picked by its position", lambda x: x[..., 3, None].expand(2, 4, 4)),
        ("picked by number", lambda x: x[..., torch.tensor([3, 1, 0, 6])]),
        ("picked by number", lambda x: x.index_select(-1, torch.tensor([3, 1, 0, 6]))),
        ("change their order", lambda x: x.flip(-1)[..., : x.shape[-1] // 2]),
        ("change their order", lambda x: x.roll(1, -1)[..., : x.shape[-1] // 2]),
    ],
)
def test_channels_picked_by_their_position_stay(name, pick):
    assert re.search(rf"{name}.* \(test_shape_rules.py:\d+\)$", reason_of(a_then_b(pick, 8, 4), "a"))


@pytest.mark.parametrize(
    "pick",
    [lambda x: x[:, torch.tensor([3, 1])], lambda x: x[:, ::2], lambda x: x[:, 2], lambda x: x.flip(1).roll(1, 1)],
)
def test_rows_may_be_picked_while_channels_go(pick):
    assert groups_proven(a_then_b(pick))["a"].bundles == one_each(8)


# --- sizes in the code


def test_a_literal_view_is_locked_with_its_line_and_a_remedy():
    def literal(x):
        return x.view(-1, 8)

    locked = groups_proven(a_then_b(literal))["a"].locked
    line = literal.__code__.co_firstlineno + 1
    assert locked.reason == f"a size of 8 is fixed in the code (view) (test_shape_rules.py:{line})"
    assert locked.remedy == "export it to .pt2 and prune that"


def test_a_view_that_infers_the_width_is_free():
    group = groups_proven(a_then_b(lambda x: x.reshape(x.size(0) * x.size(1), -1)))["a"]
    assert group.bundles == one_each(8)


def test_an_expanded_scale_goes_with_what_it_scales():
    def forward(net, x):
        x = net.a(x)
        return net.b(x * net.gate(x.mean(1, keepdim=True)).expand(-1, -1, x.shape[-1]))

    groups = groups_proven(seeded(forward, TOKENS, a=nn.Linear(5, 8), gate=nn.Linear(8, 1), b=nn.Linear(8, 3)))
    assert slices_of(groups["a"])["gate.weight", 1, "in"] == one_each(8)


def test_a_buffer_of_zeros_that_is_filled_part_by_part():
    def forward(net, x):
        y = x.new_zeros(*x.shape[:-1], net.a.out_features + net.b.out_features)
        y[..., : net.a.out_features] = net.a(x)
        y[..., net.a.out_features :] = net.b(x)
        return net.c(y)

    groups = groups_proven(seeded(forward, TOKENS, a=nn.Linear(5, 4), b=nn.Linear(5, 6), c=nn.Linear(10, 3)))
    assert slices_of(groups["a"])["c.weight", 1, "in"] == one_each(4)
    assert slices_of(groups["b"])["c.weight", 1, "in"] == one_each(6, start=4)


def test_padded_channels_stay_fixed_and_their_neighbours_go():
    groups = groups_proven(a_then_b(lambda x: F.pad(x, (1, 2)), 8, 11))
    assert slices_of(groups["a"])["b.weight", 1, "in"] == one_each(8, start=1)


def test_patches_by_unfold_multiply_the_columns():
    net = seeded(
        lambda net, x: net.b(F.unfold(net.a(x), 2, stride=2).transpose(1, 2)), IMAGE,
        a=nn.Conv2d(3, 4, 1), b=nn.Linear(16, 3),
    )  # fmt: skip
    assert slices_of(groups_proven(net)["a"])["b.weight", 1, "in"] == blocks(4, 4)


# --- tables


def test_an_embedding_tied_to_a_head():
    embed, out = nn.Embedding(7, 6), nn.Linear(6, 7, bias=False)
    out.weight = embed.weight
    net = Lambda(lambda net, x: net.out(F.gelu(net.embed(x))), embed=embed, out=out).eval()
    ids = torch.tensor([[0, 3, 5, 6], [1, 1, 2, 4]])
    groups = groups_proven(Subject(net, (ids,), "net"))
    assert {piece[:2] for piece in slices_of(groups["embed"])} == {("embed.weight", 1)}
    assert attributes_of(groups["embed"]) == {("embed", "embedding_dim", None, 1), ("out", "in_features", None, 1)}
    (rows,) = (group for name, group in groups.items() if name != "embed")
    assert rows.locked is not None
    assert rows.full == 7


def test_a_table_read_by_slices_goes_with_what_it_is_added_to():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)
            self.places = nn.Parameter(torch.randn(1, 9, 8))

        def forward(self, x):
            return self.b(self.a(x) + self.places[:, : x.size(1)])

    group = groups_proven(Subject(Net().eval(), (TOKENS,), "net"))["a"]
    assert slices_of(group)["places", 2, "out"] == one_each(8)
