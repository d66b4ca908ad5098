"""The closed form on really cut networks: the same figures as independent counters give. By hand: test_cost.py."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from peelcli import proving
from peelcli.graph import cost
from peelcli.records import Costs, Subject
from peelcli.surgery.prune import apply_cuts
from tests.support import zoo
from tests.support.parts import conv_bn


def test_two_convs_and_a_linear_layer_worked_by_hand():
    # 3 -> a channels, 3x3 on 4x4 positions; a -> b, 1x1 on 2x2 positions after pooling; then 4 b features -> 5 classes
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Conv2d(8, 6, 1, bias=False), nn.Flatten(),
        nn.Linear(24, 5),
    ).eval()  # fmt: skip
    graph = zoo.graph_of(Subject(net, (torch.randn(1, 3, 4, 4),), "net"))
    for a, b in ((8, 6), (5, 2), (1, 1)):
        assert cost.costs(graph.cost, (a, b, 5)) == Costs(
            macs=16 * 27 * a + 4 * a * b + 4 * b * 5,
            params=27 * a + a + 2 * a + a * b + 4 * b * 5 + 5,
            thop_macs=16 * 27 * a + 16 * 4 * a + 4 * a * b + 4 * b * 5,  # BatchNorm with weights: 4 an element
        )


def test_depthwise_and_grouped_convolutions_worked_by_hand():
    net = nn.Sequential(
        conv_bn(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1, groups=2), nn.Conv2d(4, 2, 1)
    )
    graph = zoo.graph_of(Subject(net.eval(), (torch.randn(1, 3, 6, 6),), "net"))
    for a, b in ((8, 4), (6, 2)):
        macs = 36 * 3 * a + 16 * 9 * a + 16 * (a // 2) * b + 16 * b * 2
        params = 3 * a + 2 * a + 10 * a + (a // 2) * b + b + 2 * b + 2
        assert (cost.costs(graph.cost, (a, b, 2)).macs, cost.costs(graph.cost, (a, b, 2)).params) == (macs, params)


@pytest.mark.parametrize("name", zoo.SOUND)
def test_predicted_is_counted(name):
    """The invariant of the whole tool, for all three counts."""
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject)
    assert cost.costs(graph.cost, graph.full) == proving.counted(subject, subject.module)

    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
    @given(st.tuples(*(st.sampled_from(group.legal_widths()) for group in graph.groups)), st.integers(0, 99))
    def at_any_widths(widths, seed):
        slim = apply_cuts(subject.module, zoo.cuts_at(graph, widths, seed))
        assert cost.costs(graph.cost, widths) == proving.counted(subject, slim)

    at_any_widths()
