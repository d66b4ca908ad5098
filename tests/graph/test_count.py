"""Independent counters: what they count, to which parameter they attribute it, and what they can't count."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.graph import count
from peelcli.graph.rehearsal import Rehearsal
from peelcli.records import Costs
from peelcli.tensors import to_meta, tracing_copy
from tests.support import zoo
from tests.support.parts import Lambda


def on_meta(net: nn.Module, *inputs: torch.Tensor) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return tracing_copy(net), to_meta(inputs)


def log_of(net: nn.Module, *inputs: torch.Tensor) -> count.OpLog:
    with torch.device("meta"):
        return count.record_ops(*on_meta(net, *inputs))


def test_a_conv_and_a_linear_layer_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    log = log_of(net, torch.zeros(1, 3, 4, 4))
    assert log.weights == {"0.weight": 4 * 8 * 27, "3.weight": 160}
    assert (log.convolved, log.products, log.uncounted) == ({"0.weight"}, {}, set())
    costs = count.count_all(*on_meta(net, torch.zeros(1, 3, 4, 4)))
    assert costs == Costs(macs=4 * 8 * 27 + 160, params=8 * 28 + 33 * 5, thop_macs=4 * 8 * 27 + 160)


def test_every_sample_counts():
    net = nn.Linear(3, 4)
    assert count.count_macs(*on_meta(net, torch.zeros(5, 3))) == 5 * 12


def test_a_weight_used_twice_counts_twice_and_is_one_parameter():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert log_of(net, torch.zeros(1, 4)).weights == {"0.weight": 32}
    assert count.count_params(net) == 16 + 8


def test_products_of_activations_belong_to_no_parameter():
    log = log_of(Lambda(lambda self, x: F.relu(x) @ x.mT), torch.zeros(2, 3, 5))
    assert log.weights == {}
    assert log.products == {"aten.bmm": 2 * 3 * 3 * 5}


def test_attention_is_counted_whole():
    net = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.zeros(1, 6, 8)
    wrapped = Lambda(lambda self, x: self.attn(x, x, x, need_weights=False)[0], attn=net)
    log = log_of(wrapped, x)
    assert log.weights == {"attn.in_proj_weight": 6 * 8 * 24, "attn.out_proj.weight": 6 * 64}
    assert sum(log.products.values()) == 2 * 2 * 6 * 6 * 4
    with torch.device("meta"):
        assert count.count_macs(*on_meta(wrapped, x)) == sum(log.weights.values()) + sum(log.products.values())
    # on a real copy too: attention there is products that can be counted
    real = Rehearsal((x,), weightless=False).perform(wrapped, count.count_macs)
    assert real == sum(log.weights.values()) + sum(log.products.values())


def test_a_recurrent_layer_is_made_of_ops_that_can_be_counted():
    log = log_of(nn.LSTM(3, 4), torch.zeros(5, 1, 3))
    assert log.weights == {"weight_ih_l0": 5 * 16 * 3, "weight_hh_l0": 5 * 16 * 4}
    assert log.uncounted == set()


@pytest.mark.parametrize(
    ("net", "shape", "op"),
    [
        (Lambda(lambda self, x: torch.fft.fft(x).real), (2, 8), "fft"),
        (
            Lambda(lambda self, x: F.grid_sample(x, x.new_zeros(1, 4, 4, 2), align_corners=False)),
            (1, 3, 4, 4),
            "grid_sampler",
        ),
        (Lambda(lambda self, x: torch.linalg.inv(x)), (3, 3), "linalg"),
    ],
)
def test_ops_without_a_formula_are_named(net, shape, op):
    assert any(op in name for name in log_of(net, torch.zeros(shape)).uncounted)


def test_thop_call_by_call():
    subject = zoo.subject("shared_pool")
    total, charged = count.thop_by_layer(*on_meta(subject.module, *subject.inputs))
    # 2 x 2 windows: an add for each input and a division for each output
    assert charged["pool"] == [
        count.LayerOps(8 * (256 + 64), (1, 8, 16, 16)), count.LayerOps(12 * (64 + 16), (1, 12, 8, 8))
    ]  # fmt: skip
    assert charged["one.1"] == [count.LayerOps(4 * 8 * 256, (1, 8, 16, 16))]
    assert "one.2" not in charged  # ReLU is free
    assert total == sum(call.ops for calls in charged.values() for call in calls)


def test_thop_leaves_nothing_behind():
    net = zoo.subject("resnet").module
    before = {name: (set(vars(m)), len(m._forward_hooks), m.training) for name, m in net.named_modules()}
    count.thop_by_layer(net, zoo.subject("resnet").inputs)
    assert {name: (set(vars(m)), len(m._forward_hooks), m.training) for name, m in net.named_modules()} == before


def test_a_layer_that_puts_out_a_tuple_is_not_charged():
    class Pair(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return super().forward(x), x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.last = Pair(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.pair(x)[0])

    total, charged = count.thop_by_layer(Net().eval(), (torch.randn(1, 3, 5, 5),))
    assert total == 5 * 5 * 4 * 2
    assert charged["pair"][0].ops == 0
