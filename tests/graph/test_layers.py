"""What each kind of layer loses with its channels, by hand."""

from __future__ import annotations

import pytest
from torch import nn

from peelcli.graph.depgraph import removes_whole_groups
from peelcli.graph.layers import loss_of

OUT = (("weight", 0, "out", 0), ("bias", 0, "out", 0))
NORM = (*OUT, ("running_mean", 0, "out", 0), ("running_var", 0, "out", 0))


@pytest.mark.parametrize(
    ("layer", "role", "tensors", "attributes"),
    [
        (nn.Conv2d(4, 6, 3), "out", OUT, (("out_channels", None, 1),)),
        (nn.Conv1d(4, 6, 3), "in", (("weight", 1, "in", 0),), (("in_channels", None, 1),)),
        (nn.ConvTranspose3d(4, 6, 3), "out", (("weight", 1, "out", 0), OUT[1]), (("out_channels", None, 1),)),
        (nn.ConvTranspose2d(4, 6, 3), "in", (("weight", 0, "in", 0),), (("in_channels", None, 1),)),
        (nn.Linear(4, 6), "out", OUT, (("out_features", None, 1),)),
        (nn.Linear(4, 6), "in", (("weight", 1, "in", 0),), (("in_features", None, 1),)),
        (nn.BatchNorm1d(4), "out", NORM, (("num_features", None, 1),)),
        (nn.InstanceNorm2d(4), "out", NORM, (("num_features", None, 1),)),
        (nn.LayerNorm(4), "out", OUT, (("normalized_shape", 0, 1),)),
        (nn.RMSNorm(4), "out", OUT, (("normalized_shape", 0, 1),)),
        (nn.GroupNorm(1, 4), "out", OUT, (("num_channels", None, 1),)),
        (nn.PReLU(4), "out", (OUT[0],), (("num_parameters", None, 1),)),
        (nn.PReLU(), "out", (), ()),
        (nn.Embedding(9, 4), "out", (("weight", 1, "out", 0),), (("embedding_dim", None, 1),)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_plain_layers(layer, role, tensors, attributes):
    loss = loss_of(layer, role)
    assert (loss.tensors, loss.attributes, loss.rows) == (tensors, attributes, ())


def test_a_depthwise_conv_loses_everything_on_its_output_side():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    loss = loss_of(conv, "out")
    assert loss.tensors == OUT
    assert loss.attributes == (("in_channels", None, 1), ("out_channels", None, 1), ("groups", None, 1))
    assert loss.rows == ()
    assert loss_of(conv, "in").tensors == ()


def test_many_narrow_groups_go_as_a_whole():
    conv = nn.Conv2d(12, 12, 3, groups=6)
    loss = loss_of(conv, "out")
    assert loss.rows == ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11))
    assert loss.attributes == (("in_channels", None, 1), ("out_channels", None, 1), ("groups", None, 2))


def test_of_few_wide_groups_each_gives_the_same_share():
    conv = nn.Conv2d(8, 12, 3, groups=2)
    out, into = loss_of(conv, "out"), loss_of(conv, "in")
    assert out.rows == ((0, 6), (1, 7), (2, 8), (3, 9), (4, 10), (5, 11))
    assert out.tensors == OUT
    assert into.rows == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert into.tensors == (("weight", 1, "in", 4),)  # an input's column is its place inside the group


def test_a_transposed_grouped_conv_spans_one_group_on_its_output_side():
    conv = nn.ConvTranspose2d(8, 12, 3, groups=2)
    assert loss_of(conv, "out").tensors == (("weight", 1, "out", 6), ("bias", 0, "out", 0))
    assert loss_of(conv, "in").tensors == (("weight", 0, "in", 0),)


def test_group_norm_keeps_its_groups_equal():
    assert loss_of(nn.GroupNorm(2, 6), "out").rows == ((0, 3), (1, 4), (2, 5))


def test_what_is_not_known():
    assert loss_of(nn.LayerNorm((3, 4)), "out") is None
    assert loss_of(nn.Bilinear(3, 4, 5), "out") is None


@pytest.mark.parametrize(
    ("conv", "whole"),
    [
        (nn.Conv2d(8, 8, 3), False),
        (nn.Conv2d(8, 8, 3, groups=8), True),
        (nn.Conv2d(12, 12, 3, groups=6), True),
        (nn.Conv2d(16, 16, 3, groups=4), False),  # as many groups as channels in each
        (nn.Conv2d(12, 24, 3, groups=12), False),
        (nn.ConvTranspose2d(8, 8, 3, groups=8), False),
        (nn.Linear(8, 8), False),
    ],
)
def test_which_convs_lose_whole_groups(conv, whole):
    assert removes_whole_groups(conv) is whole
