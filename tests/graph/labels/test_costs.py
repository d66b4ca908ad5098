"""Counts from the sizes that the label pass saw: polynomials worked out by hand, and as counted on cut networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.graph import cost
from peelcli.records import Costs, Subject
from tests.support.proofs import graph_proven, seeded

TOKENS = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def test_products_of_activations_fall_with_the_heads():
    # 4 tokens, heads of 2: q, k, v from 5 numbers, scores and sums of 4 x 4 for every head channel, then 3 outputs
    def forward(net, x):
        q, k, v = (part(x).unflatten(-1, (-1, 2)).transpose(1, 2) for part in (net.q, net.k, net.v))
        return net.out((torch.softmax(q @ k.transpose(-2, -1), -1) @ v).transpose(1, 2).flatten(2))

    graph = graph_proven(
        seeded(forward, TOKENS, q=nn.Linear(5, 8), k=nn.Linear(5, 8), v=nn.Linear(5, 8), out=nn.Linear(8, 3))
    )
    assert [(group.full, group.bundle_size) for group in graph.groups] == [(8, 2), (3, 1)]
    for w in (8, 6, 2):
        assert cost.costs(graph.cost, (w, 3)).macs == 3 * 4 * 5 * w + 2 * 16 * w + 4 * 3 * w


def test_a_product_between_two_groups_is_one_of_their_widths():
    # (channels a x 4 tokens) times (4 tokens x channels b): a contraction over the tokens
    def forward(net, x):
        return net.out(net.a(x).transpose(1, 2) @ net.b(x))

    graph = graph_proven(seeded(lambda net, x: forward(net, x).amax(1), TOKENS, a=nn.Linear(5, 8), b=nn.Linear(5, 6),
                                out=nn.Linear(6, 3)))  # fmt: skip
    free = [k for k, group in enumerate(graph.groups) if group.locked is None]
    assert len(free) == 2
    for a, b in ((8, 6), (5, 6), (5, 2)):
        assert cost.costs(graph.cost, (a, b, 3)).macs == 20 * a + 20 * b + 4 * a * b + 3 * a * b


def test_layer_by_layer_worked_by_hand():
    # tokens 4; a LayerNorm costs thop 4 for every element
    net = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 6, bias=False), nn.Linear(6, 3)).eval()
    graph = graph_proven(Subject(net, (TOKENS,), "net"))
    for a, b in ((8, 6), (5, 2)):
        assert cost.costs(graph.cost, (a, b, 3)) == Costs(
            macs=20 * a + 4 * a * b + 12 * b,
            params=6 * a + 2 * a + a * b + 3 * b + 3,
            thop_macs=20 * a + 16 * a + 4 * a * b + 12 * b,
        )


def test_convolutions_worked_by_hand():
    # 6 x 6 places; depthwise 3 x 3 to 4 x 4 places; transposed 2 x 2 back to 8 x 8; then 1 x 1
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(6, 2, 1)
    ).eval()
    graph = graph_proven(Subject(net, (IMAGE,), "net"))
    for a, b in ((8, 6), (3, 2)):
        costs = cost.costs(graph.cost, (a, b, 2))
        assert costs.macs == 36 * 3 * a + 16 * 9 * a + 16 * 4 * a * b + 64 * b * 2
        assert costs.params == 4 * a + 10 * a + 4 * a * b + b + 2 * b + 2


def test_a_tied_weight_is_one_weight_and_two_products():
    one, two = nn.Linear(5, 8), nn.Linear(5, 8)
    two.weight = one.weight
    graph = graph_proven(seeded(lambda net, x: net.out(net.one(x) + net.two(x * x)), TOKENS, one=one, two=two,
                                out=nn.Linear(8, 3)))  # fmt: skip
    for w in (8, 3):
        costs = cost.costs(graph.cost, (w, 3))
        assert (costs.macs, costs.params) == (2 * 20 * w + 12 * w, 5 * w + 2 * w + 3 * w + 3)


def test_a_layer_called_twice_costs_twice():
    graph = graph_proven(seeded(lambda net, x: net.out(F.relu(net.a(x)) + net.a(-x)), TOKENS, a=nn.Linear(5, 8),
                                out=nn.Linear(8, 3)))  # fmt: skip
    assert cost.costs(graph.cost, (5, 3)).macs == 2 * 20 * 5 + 12 * 5


def test_a_recurrent_layer_is_counted_gate_by_gate():
    # 4 steps of 4 gates, each with 5 inputs and h hidden units; thop adds 16 for every hidden unit and step
    graph = graph_proven(seeded(lambda net, x: net.out(net.rnn(x)[0]), TOKENS,
                                rnn=nn.LSTM(5, 6, batch_first=True), out=nn.Linear(6, 3)))  # fmt: skip
    for h in (6, 2):
        costs = cost.costs(graph.cost, (4 * h, 3))
        assert costs.macs == 4 * 4 * h * (5 + h) + 12 * h
        assert costs.thop_macs == costs.macs + 4 * 16 * h


def test_functions_with_weights_of_their_own_are_counted_as_thop_counts_them():
    # thop sees F.linear and no F.conv2d
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blur, self.mix = nn.Parameter(torch.randn(8, 1, 3, 3)), nn.Parameter(torch.randn(6, 8))
            self.a, self.out = nn.Conv2d(3, 8, 1), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.conv2d(self.a(x), self.blur, groups=self.blur.shape[0])
            return self.out(F.linear(x.movedim(1, -1), self.mix))

    torch.manual_seed(0)
    graph = graph_proven(Subject(Net().eval(), (IMAGE,), "net"))
    for a, b in ((8, 6), (3, 2)):
        costs = cost.costs(graph.cost, (a, b, 2))
        assert costs.macs == 36 * 3 * a + 16 * 9 * a + 16 * a * b + 16 * 2 * b
        assert costs.thop_macs == costs.macs - 16 * 9 * a


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_as_torch_has_it(heads):
    net = seeded(lambda net, x: net.out(net.attn(*[net.a(x)] * 3, need_weights=False)[0]), TOKENS, a=nn.Linear(5, 8),
                 attn=nn.MultiheadAttention(8, heads, batch_first=True), out=nn.Linear(8, 3))  # fmt: skip
    graph = graph_proven(net, counts=("macs", "params"))
    assert graph.groups[0].layers[0] == "a"


def test_counts_are_plain_integers():
    # The tracer's sizes remember where they came from; in a count they would remember every sum that they were part of.
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))
    graph = graph_proven(Subject(net.eval(), (torch.randn(1, 3, 9, 9),), "net"))
    for polynomial in (graph.cost.macs, graph.cost.params, graph.cost.thop):
        for term in polynomial:
            numbers = [term.coefficient, *(size.constant for size in term.sizes)]
            numbers += [number for size in term.sizes for share in size.shares for number in (share.num, share.den)]
            assert {type(number) for number in numbers} == {int}
