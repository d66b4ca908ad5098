"""Ops that contract, mix or normalise channels: units worked out by hand, cuts proven, costs as predicted."""

from __future__ import annotations

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


def a_then_b(between, width: int = 8, read: int = 8, **more: nn.Module) -> Subject:
    """Linear a, what stands between, linear b."""
    parts = {"a": nn.Linear(5, width), "b": nn.Linear(read, 3), **more}
    return seeded(lambda net, x: net.b(between(net, net.a(x))), TOKENS, **parts)


def image_net(*layers: nn.Module) -> Subject:
    return Subject(nn.Sequential(*layers).eval(), (IMAGE,), "net")


# --- attention


class Attention(nn.Module):
    """Three heads of four; the queries, keys and values are told apart in one of three ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.width, self.heads = way, 12, 3
        self.qkv, self.out = nn.Linear(5, 36), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        if self.way == "unbind":
            q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            parts = self.qkv(x).chunk(3, -1) if self.way == "chunk" else self.qkv(x).split(self.width, -1)
            q, k, v = (part.view(batch, tokens, self.heads, -1).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("way", "attributes"),
    [("unbind", {"heads": 1}), ("chunk", {"heads": 1}), ("split", {"heads": 1, "width": 4})],
)
def test_attention_goes_by_whole_heads(way, attributes):
    group = groups_proven(Subject(Attention(way).eval(), (TOKENS,), "net"))["qkv"]
    heads = [tuple(part * 12 + 4 * h + k for part in range(3) for k in range(4)) for h in range(3)]
    assert list(group.bundles) == heads
    assert {name: loss for layer, name, _, loss in attributes_of(group) if not layer} == attributes
    columns = slices_of(group)["out.weight", 1, "in"]
    assert [sum((columns[c] for c in bundle), ()) for bundle in group.bundles] == list(blocks(3, 4))


def test_attention_written_out_with_a_scale_kept_as_a_number():
    def forward(net, x):
        q, k, v = (part(x).unflatten(-1, (net.heads, -1)).transpose(1, 2) for part in (net.q, net.k, net.v))
        weights = (q @ k.transpose(-2, -1) * net.scale).softmax(-1)
        return net.out((weights @ v).transpose(1, 2).flatten(2))

    subject = seeded(forward, TOKENS, q=nn.Linear(5, 6), k=nn.Linear(5, 6), v=nn.Linear(5, 6), out=nn.Linear(6, 3))
    subject.module.heads, subject.module.scale = 2, 0.7
    group = groups_proven(subject)["q"]
    assert group.bundles == blocks(2, 3)
    assert {piece[0] for piece in slices_of(group)} >= {"q.weight", "k.weight", "v.weight", "out.weight"}


def test_grouped_query_attention_takes_a_key_head_with_all_its_query_heads():
    def forward(net, x):
        batch, tokens, _ = x.shape
        q = net.q(x).view(batch, tokens, net.heads, net.each).transpose(1, 2)
        k, v = (part(x).view(batch, tokens, net.kv, net.each).transpose(1, 2) for part in (net.k, net.v))
        shape = (batch, net.kv, net.heads // net.kv, tokens, net.each)
        k, v = (t[:, :, None].expand(shape).reshape(batch, net.heads, tokens, net.each) for t in (k, v))
        return net.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, -1))

    subject = seeded(forward, TOKENS, q=nn.Linear(5, 12), k=nn.Linear(5, 6), v=nn.Linear(5, 6), out=nn.Linear(12, 3))
    subject.module.heads, subject.module.kv, subject.module.each = 4, 2, 3
    group = groups_proven(subject)["q"]
    assert group.bundles == blocks(2, 6)
    keys = slices_of(group)["k.weight", 0, "out"]
    assert [sum((keys[c] for c in bundle), ()) for bundle in group.bundles] == list(blocks(2, 3))
    assert {(name, loss) for layer, name, _, loss in attributes_of(group) if not layer} == {("heads", 2), ("kv", 1)}


def test_a_product_over_single_heads_ties_both_sides_channel_by_channel():
    def forward(net, x):
        return net.c((net.q(x) @ net.k(x).transpose(1, 2)).softmax(-1) @ net.v(x))

    groups = groups_proven(
        seeded(forward, TOKENS, q=nn.Linear(5, 8), k=nn.Linear(5, 8), v=nn.Linear(5, 6), c=nn.Linear(6, 3))
    )
    assert list(groups) == ["q", "v", "c"]
    assert slices_of(groups["q"])["k.weight", 0, "out"] == one_each(8)
    assert slices_of(groups["v"])["c.weight", 1, "in"] == one_each(6)


def test_attention_over_the_channels_themselves():
    def forward(net, x):
        weights = (net.q(x).transpose(1, 2) @ net.k(x)).softmax(-1)
        return net.c((weights @ net.v(x).transpose(1, 2)).transpose(1, 2))

    parts = {"q": nn.Linear(5, 8), "k": nn.Linear(5, 6), "v": nn.Linear(5, 6), "c": nn.Linear(8, 3)}
    queries, keys, _ = groups_proven(seeded(forward, TOKENS, **parts)).values()
    assert slices_of(queries)["c.weight", 1, "in"] == one_each(8)
    assert slices_of(keys)["v.weight", 0, "out"] == one_each(6)
    assert [blend.op for blend in keys.blends] == ["_softmax", "bmm"]


def test_rotation_of_pairs_as_complex_numbers():
    def rotate(net, x):
        turns = torch.polar(torch.ones(4, 1), torch.arange(4.0)[:, None]).to(x.device)
        pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)

    assert groups_proven(a_then_b(rotate))["a"].bundles == blocks(4, 2)


# --- norms


def test_layer_norm_takes_its_scale_bias_and_shape():
    group = groups_proven(a_then_b(lambda net, x: net.norm(x), norm=nn.LayerNorm(8)))["a"]
    assert {("norm.weight", 0, "out"), ("norm.bias", 0, "out")} <= slices_of(group).keys()
    assert ("norm", "normalized_shape", 0, 1) in attributes_of(group)
    assert [(blend.op, blend.operands, blend.indices) for blend in group.blends] == [
        ("native_layer_norm", ((0, -1), (2, -1), (3, -1)), one_each(8))
    ]


def test_group_norm_takes_the_same_position_of_each_group():
    group = groups_proven(image_net(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 1)))["0"]
    assert group.bundles == tuple((c, c + 4) for c in range(4))
    assert ("1", "num_channels", None, 2) in attributes_of(group)
    assert not any(name == "num_groups" for _, name, *_ in attributes_of(group))


def test_instance_norm_by_group_norm_loses_groups():
    group = groups_proven(image_net(nn.Conv2d(3, 6, 1), nn.GroupNorm(6, 6), nn.Conv2d(6, 2, 1)))["0"]
    assert group.bundles == one_each(6)
    assert {a for a in attributes_of(group) if a[0] == "1"} == {
        ("1", "num_channels", None, 1), ("1", "num_groups", None, 1)
    }  # fmt: skip


class RMS(nn.Module):
    """As language models write it themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x.float() if x.dtype is torch.half else x) * torch.rsqrt(x.pow(2).mean(-1, True) + 1e-6)


class Response(nn.Module):
    """ConvNeXt V2's global response normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(1, 1, width)), nn.Parameter(torch.rand(1, 1, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.norm(p=2, dim=1, keepdim=True)
        return x + self.gamma * (x * size / (size.mean(-1, keepdim=True) + 1e-6)) + self.beta


@pytest.mark.parametrize(
    ("norm", "tensors", "ops"),
    [
        (RMS(8), {"norm.weight"}, ["mean"]),
        (nn.RMSNorm(8), {"norm.weight"}, ["mean"]),
        (Response(8), {"norm.gamma", "norm.beta"}, ["mean"]),
        (nn.Softmax(-1), set(), ["_softmax"]),
        (nn.LogSoftmax(-1), set(), ["_log_softmax"]),
    ],
)
def test_what_mixes_all_channels_is_noted(norm, tensors, ops):
    # thop's softmax is 3 n - 1 for n channels, no multiple of its width: its count is not asked for here
    group = groups_proven(a_then_b(lambda net, x: net.norm(x), norm=norm), counts=("macs", "params"))["a"]
    assert {piece.tensor for piece in group.slices} == {"a.weight", "a.bias", "b.weight"} | tensors
    assert [(blend.op, blend.call, blend.indices) for blend in group.blends] == [(op, 0, one_each(8)) for op in ops]


@pytest.mark.parametrize(
    ("mix", "op"),
    [
        (lambda net, x: x - x.mean(-1, keepdim=True), "mean"),
        (lambda net, x: x / x.std(-1, keepdim=True), "std"),
        (lambda net, x: x / x.abs().amax(-1, keepdim=True), "amax"),
        (lambda net, x: x * x.sum(-1, keepdim=True), "sum"),
        (lambda net, x: F.normalize(x, dim=-1), "linalg_vector_norm"),
        (lambda net, x: x * x.logsumexp(-1, keepdim=True), "logsumexp"),
    ],
)
def test_reductions_over_the_channels(mix, op):
    group = groups_proven(a_then_b(mix))["a"]
    assert (group.bundles, group.locked) == (one_each(8), None)
    assert [(blend.op, blend.operands, blend.out) for blend in group.blends] == [(op, ((0, 2),), -1)]


@pytest.mark.parametrize(
    "reduce", [lambda net, x: x.mean(1), lambda net, x: x.amax((0, 1)), lambda net, x: x.cumsum(1)]
)
def test_reductions_beside_the_channels_note_nothing(reduce):
    group = groups_proven(a_then_b(reduce))["a"]
    assert (group.locked, group.blends) == (None, ())


@pytest.mark.parametrize(
    ("op", "mix"),
    [("cumsum", lambda net, x: x.cumsum(-1)), ("sort", lambda net, x: x.sort(-1).values),
     ("argmax", lambda net, x: x * x.argmax(-1, keepdim=True))],
)  # fmt: skip
def test_what_depends_on_the_order_of_the_channels_is_locked_by_name(op, mix):
    assert reason_of(a_then_b(mix), "a").startswith(f"{op} goes over all its channels (test_math_rules.py:")


# --- convolutions


def test_a_depthwise_convolution_goes_with_its_inputs():
    group = groups_proven(image_net(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 2, 1)))["0"]
    assert slices_of(group)["1.weight", 0, "out"] == slices_of(group)["2.weight", 1, "in"] == one_each(6)
    assert {a for a in attributes_of(group) if a[0] == "1"} == {
        ("1", name, None, 1) for name in ("in_channels", "out_channels", "groups")
    }


def test_a_grouped_convolution_gives_a_share_of_each_group():
    first, second, _ = groups_proven(
        image_net(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 3, groups=2), nn.Conv2d(6, 2, 1))
    ).values()
    assert first.bundles == tuple((c, c + 4) for c in range(4))
    assert second.bundles == tuple((c, c + 3) for c in range(3))


def test_a_transposed_convolution_has_its_dimensions_the_other_way_round():
    first, second, _ = groups_proven(
        image_net(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 2, 2), nn.Conv2d(6, 2, 1))
    ).values()
    assert slices_of(first)["1.weight", 0, "in"] == one_each(4)
    assert slices_of(second)["1.weight", 1, "out"] == one_each(6)
    assert attributes_of(second) == {("1", "out_channels", None, 1), ("2", "in_channels", None, 1)}


def test_a_transposed_depthwise_convolution():
    group = groups_proven(image_net(nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 6, 2, 2, groups=6), nn.Conv2d(6, 2, 1)))[
        "0"
    ]
    assert slices_of(group)["1.weight", 0, "out"] == one_each(6)
    assert {a for a in attributes_of(group) if a[0] == "1"} == {
        ("1", name, None, 1) for name in ("in_channels", "out_channels", "groups")
    }


@pytest.mark.parametrize("way", ["by batch_norm", "by mean and var"])
def test_standardised_weights(way):
    class Standardised(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if way == "by batch_norm":
                flat = self.weight.reshape(1, self.out_channels, -1)
                weight = F.batch_norm(flat, None, None, training=True).reshape_as(self.weight)
            else:
                var, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
                weight = (self.weight - mean) / torch.sqrt(var + 1e-5)
            return F.conv2d(x, weight, self.bias)

    first, second, _ = groups_proven(image_net(nn.Conv2d(3, 6, 1), Standardised(6, 8, 3), nn.Conv2d(8, 2, 1))).values()
    assert slices_of(first)["1.weight", 1, "in"] == one_each(6)
    assert slices_of(second)["1.weight", 0, "out"] == one_each(8)


# --- recurrent layers


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [False, True], ids=["one way", "both ways"])
def test_recurrent_layers_lose_hidden_units_in_all_gates(kind, both):
    layer = kind(6, 4, num_layers=2, batch_first=True, bidirectional=both)
    net = a_then_b(lambda net, x: net.rnn(x)[0], 6, 8 if both else 4, rnn=layer)
    groups = groups_proven(net, counts=("macs", "params"))
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    assert groups["rnn"].bundles == tuple(tuple(c + 4 * gate for gate in range(gates)) for c in range(4))
    assert ("rnn", "hidden_size", None, 1) in attributes_of(groups["rnn"])
    assert ("rnn", "input_size", None, 1) in attributes_of(groups["a"])
    assert slices_of(groups["a"])["rnn.weight_ih_l0", 1, "in"] == one_each(6)


# --- what meets element by element, and what is not known


def test_additions_in_place():
    def forward(net, x):
        y = net.a(x)
        y += net.b(x)
        y.relu_()
        return net.c(y)

    group = groups_proven(seeded(forward, TOKENS, a=nn.Linear(5, 8), b=nn.Linear(5, 8), c=nn.Linear(8, 3)))["a"]
    assert slices_of(group)["b.weight", 0, "out"] == slices_of(group)["c.weight", 1, "in"] == one_each(8)


def test_what_meets_a_fixed_tensor_is_locked():
    reason = reason_of(a_then_b(lambda net, x: x + torch.arange(8, device=x.device)), "a")
    assert reason.startswith("it meets a tensor of fixed size (test_math_rules.py:")


def test_one_gate_for_all_channels_is_free():
    group = groups_proven(a_then_b(lambda net, x: x * torch.sigmoid(net.gate(x)), gate=nn.Linear(8, 1)))["a"]
    assert group.bundles == one_each(8)


@torch.library.custom_op("peeltests::twist", mutates_args=())
def twist(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1).clone()


@twist.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def test_an_op_without_a_rule_is_locked_by_name():
    reason = reason_of(a_then_b(lambda net, x: torch.ops.peeltests.twist(x)), "a")
    assert reason.startswith("it goes through twist, which is not followed (test_math_rules.py:")


def test_a_branch_on_values_is_followed_as_the_example_takes_it():
    group = groups_proven(a_then_b(lambda net, x: x * 2 if float(x.sum()) < 1e9 else x[..., :1]))["a"]
    assert (group.bundles, group.locked) == (one_each(8), None)


@pytest.mark.parametrize(
    "formula",
    [
        lambda net, x: x * x.size(-1) ** -0.5,
        lambda net, x: x * x.shape[-1],
        lambda net, x: x / x.size(-1),
        lambda net, x: x + 1 if x.size(-1) > 6 else x,
    ],
    ids=["power", "factor", "divisor", "comparison"],
)
def test_a_width_used_as_a_number_is_locked(formula):
    assert reason_of(a_then_b(formula), "a").startswith("the number of its channels is used in a formula")


def test_a_weight_read_by_two_layers_in_two_ways():
    net = Lambda(lambda net, x: net.b(F.linear(net.a(x), net.c.weight)), a=nn.Linear(5, 8), b=nn.Linear(6, 3),
                 c=nn.Linear(8, 6, bias=False)).eval()  # fmt: skip
    groups = groups_proven(Subject(net, (TOKENS,), "net"))
    assert slices_of(groups["a"])["c.weight", 1, "in"] == one_each(8)
    assert slices_of(groups["c"])["c.weight", 0, "out"] == one_each(6)
