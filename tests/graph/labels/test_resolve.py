"""What follows when a unit goes: the integers that modules keep, sizes that serve several tensors, and conflicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.graph.labels.resolve import entries_by_root
from peelcli.graph.labels.sizes import Attr
from peelcli.graph.labels.trace import find_units
from peelcli.records import Subject
from tests.support.proofs import groups_proven, reason_of, seeded
from tests.support.slices import attributes_of, blocks, one_each, slices_of

TOKENS = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))


def keeping(subject: Subject, **integers: object) -> Subject:
    """The network with integers that it keeps."""
    for name, value in integers.items():
        setattr(subject.module, name, value)
    return subject


def own(group) -> set[tuple[str, int | None, int]]:
    """Attributes of the network itself that fall with a bundle of the group: (name, item, loss)."""
    return {(name, item, loss) for module, name, item, loss in attributes_of(group) if not module}


def a_then_b(between, width: int = 8, read: int = 8, **integers: object) -> Subject:
    subject = seeded(lambda net, x: net.b(between(net, net.a(x))), TOKENS, a=nn.Linear(5, width), b=nn.Linear(read, 3))
    return keeping(subject, **integers)


# --- attributes that follow


@pytest.mark.parametrize(
    ("between", "integers", "falls"),
    [
        (lambda net, x: x.view(-1, net.hidden), {"hidden": 8}, {("hidden", None, 1)}),
        (lambda net, x: x.reshape(2, 4, net.half * 2), {"half": 4}, None),  # one channel of eight is no half
        (lambda net, x: F.layer_norm(x, net.shape), {"shape": (8,)}, {("shape", 0, 1)}),
        (lambda net, x: F.layer_norm(x, (net.dim,)), {"dim": 8}, {("dim", None, 1)}),
        (lambda net, x: F.layer_norm(x, [net.more - 2]), {"more": 10}, {("more", None, 1)}),
    ],
    ids=["hidden", "half", "a tuple", "normalized_shape", "arithmetic"],
)
def test_integers_of_the_module_fall_with_a_channel(between, integers, falls):
    group = groups_proven(a_then_b(between, **integers))["a"]
    if falls is None:
        assert group.locked.reason.startswith("a size of 8 is computed in the code (view) (test_resolve.py:")
    else:
        assert (group.locked, own(group)) == (None, falls)


def test_a_flatten_by_a_product_of_an_attribute():
    def forward(net, x):
        return net.b(net.a(x).transpose(1, 2).reshape(-1, net.channels * 4))

    subject = seeded(forward, TOKENS, a=nn.Linear(5, 6), b=nn.Linear(24, 3))
    group = groups_proven(keeping(subject, channels=6))["a"]
    assert own(group) == {("channels", None, 1)}
    assert slices_of(group)["b.weight", 1, "in"] == blocks(6, 4)


def test_split_sizes_fall_one_by_one():
    def forward(net, x):
        one, two = net.a(x).split(net.parts, -1)
        return net.b(one) + net.c(two)

    subject = seeded(forward, TOKENS, a=nn.Linear(5, 8), b=nn.Linear(3, 3), c=nn.Linear(5, 3))
    groups = groups_proven(keeping(subject, parts=[3, 5]))
    assert own(groups["a"]) == {("parts", 0, 1)}
    assert own(groups["a#2"]) == {("parts", 1, 1)}
    assert slices_of(groups["a#2"])["a.weight", 0, "out"] == one_each(5, start=3)


def test_one_split_size_for_all_parts_ties_them():
    def forward(net, x):
        one, two = net.a(x).split(net.size, -1)
        return net.b(one) + net.c(two)

    subject = seeded(forward, TOKENS, a=nn.Linear(5, 8), b=nn.Linear(4, 3), c=nn.Linear(4, 3))
    group = groups_proven(keeping(subject, size=4))["a"]
    assert group.bundles == tuple((c, c + 4) for c in range(4))
    assert own(group) == {("size", None, 1)}


def test_a_number_of_heads_falls_by_one_with_a_head():
    def forward(net, x):
        q = net.a(x).view(*x.shape[:-1], net.heads, net.each)
        return net.b(F.normalize(q, dim=-1).flatten(-2))

    subject = seeded(forward, TOKENS, a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    group = groups_proven(keeping(subject, heads=3, each=4))["a"]  # a norm over each head: heads go as a whole
    assert (group.bundles, own(group)) == (blocks(3, 4), {("heads", None, 1)})


def test_the_same_place_of_each_head_where_their_number_is_fixed():
    group = groups_proven(a_then_b(lambda net, x: x.view(*x.shape[:-1], 2, -1).flatten(-2)))["a"]
    assert (group.bundles, own(group)) == (tuple((c, c + 4) for c in range(4)), set())


def test_what_the_code_compares_with_a_size_follows_it():
    def between(net, x):
        if x.shape[-1] != net.expected:
            raise ValueError("another width")
        return x

    group = groups_proven(a_then_b(between, expected=8))["a"]
    assert (group.locked, own(group)) == (None, {("expected", None, 1)})


def test_integers_that_are_not_used_stay():
    group = groups_proven(a_then_b(lambda net, x: x, unused=8))["a"]
    assert own(group) == set()


# --- one size for several tensors


def test_a_size_of_one_tensor_used_for_another_ties_both():
    def forward(net, x):
        one, two = net.a(x), net.b(x)
        return net.c(one) + net.d(two.reshape(*one.shape))

    groups = groups_proven(
        seeded(forward, TOKENS, a=nn.Linear(5, 8), b=nn.Linear(5, 8), c=nn.Linear(8, 3), d=nn.Linear(8, 3))
    )
    assert slices_of(groups["a"])["b.weight", 0, "out"] == one_each(8)
    assert slices_of(groups["a"])["d.weight", 1, "in"] == one_each(8)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.out(y.reshape(batch, tokens, width))


def test_a_residual_stream_goes_by_heads_where_its_width_is_that_of_the_heads():
    def forward(net, x):
        x = net.stem(x)
        return net.head(x + net.attention(net.norm(x)))

    subject = seeded(
        forward, TOKENS, stem=nn.Linear(5, 12), norm=nn.LayerNorm(12), attention=Attention(12, 3), head=nn.Linear(12, 3)
    )
    groups = groups_proven(subject)
    stem = groups["stem"]
    assert (list(groups), stem.bundles) == (["stem", "head"], blocks(3, 4))
    assert ("attention", "heads", None, 1) in attributes_of(stem)
    assert ("attention.qkv", "out_features", None, 12) in attributes_of(stem)
    assert slices_of(stem)["attention.out.weight", 1, "in"] == one_each(12)


# --- conflicts


def test_an_integer_that_counts_two_unrelated_layers_locks_both_with_its_line():
    def forward(net, x):
        one = net.a(x).view(-1, net.width)
        two = net.b(x).view(-1, net.width)
        return net.c(one) + net.d(two)

    subject = seeded(forward, TOKENS, a=nn.Linear(5, 8), b=nn.Linear(5, 8), c=nn.Linear(8, 3), d=nn.Linear(8, 3))
    groups = groups_proven(keeping(subject, width=8))
    line = forward.__code__.co_firstlineno
    for name, wanted in (("a", line + 2), ("b", line + 1)):  # the line where it would no longer fit
        reason = groups[name].locked.reason
        assert reason == f"a size of 8 is computed in the code (view) (test_resolve.py:{wanted})"


def test_a_width_that_only_suits_whole_halves():
    reason = reason_of(a_then_b(lambda net, x: x[..., : x.shape[-1] // 2], 8, 4), "a")
    assert reason.startswith("a size of 4 is computed in the code (a slice) (test_resolve.py:")


# --- the units themselves


def units_of(subject: Subject):
    with torch.device("meta"):
        return find_units(subject.module.to("meta"), tuple(x.to("meta") for x in subject.inputs))


def test_units_count_their_entries_in_every_tensor():
    subject = keeping(
        seeded(lambda net, x: net.b(net.a(x).transpose(1, 2).reshape(-1, net.wide)), TOKENS, a=nn.Linear(5, 6),
               b=nn.Linear(24, 3)), wide=24,
    )  # fmt: skip
    first, last = units_of(subject).units
    assert {place[1:]: count for place, count in first.counts.items() if place[0] == "tensor"} == {
        ("a.weight", 0): 1, ("a.bias", 0): 1, ("b.weight", 1): 4,
    }  # fmt: skip
    assert (first.maker, len(first.roots), first.obstacle) == (("a.weight", 0), 6, None)
    assert first.attributes == {Attr("", "wide", None): 4}
    assert (last.maker, last.obstacle.reason) == (("b.weight", 0), "its channels are the model's output")


def test_units_are_in_the_order_in_which_their_makers_run():
    def forward(net, x):
        return net.out(net.late(net.early(x)))

    subject = seeded(forward, TOKENS, late=nn.Linear(6, 7), out=nn.Linear(7, 3), early=nn.Linear(5, 6))
    assert [units.maker[0] for units in units_of(subject).units] == ["early.weight", "late.weight", "out.weight"]


def test_a_pass_that_takes_too_long_is_given_up():
    subject = a_then_b(lambda net, x: x)
    with pytest.raises(TimeoutError):
        find_units(subject.module, subject.inputs, seconds=-1.0)


def test_entries_by_root():
    assert entries_by_root(np.array([3, 5, 3, 0])) == {3: [0, 2], 5: [1], 0: [3]}
