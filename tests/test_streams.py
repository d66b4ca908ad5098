"""Which groups are linear streams: what is only added, normed one by one and read by dense products."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.records import Subject
from peelcli.streams import Stream, find
from tests.support import zoo
from tests.support.parts import Lambda, conv_bn, head

PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def streams(net: nn.Module, x: torch.Tensor = PICTURE) -> tuple[Stream, ...]:
    net.eval()
    return find(net, zoo.graph_of(Subject(net, (x[:1],), "net")).groups, (x,))


def names(net: nn.Module, x: torch.Tensor = PICTURE) -> list[str]:
    return [stream.group.name for stream in streams(net, x)]


def bottleneck(channels: int) -> nn.Module:
    """An inverted residual with a linear end."""

    def forward(self, x):
        return x + self.norm(self.narrow(self.deep(self.wide(x))))

    return Lambda(
        forward,
        wide=conv_bn(channels, 12, 1),
        deep=conv_bn(12, 12, groups=12),
        narrow=nn.Conv2d(12, channels, 1, bias=False),
        norm=nn.BatchNorm2d(channels),
    )


def test_the_stream_between_linear_bottlenecks():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), bottleneck(6), bottleneck(6), conv_bn(6, 8, 1), head(8))
    (stream,) = streams(net)
    assert stream.group.name == "0"
    told = {writer.weight.tensor: (writer.bias, writer.norm) for writer in stream.writers}
    assert told == {
        "0.weight": ("0.bias", "1"),
        "2.narrow.weight": (None, "2.norm"),
        "3.narrow.weight": (None, "3.norm"),
    }
    assert {piece.tensor for piece in stream.readers} == {"2.wide.0.weight", "3.wide.0.weight", "4.0.weight"}


def test_two_dense_layers_without_anything_between():
    net = nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    assert names(net, torch.randn(2, 4)) == ["0"]


def test_a_flatten_is_read_at_several_places():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2))
    (stream,) = streams(net)
    assert {len(its) for its in stream.readers[0].indices} == {4}


BENT = {
    "relu": nn.ReLU(),
    "silu": nn.SiLU(),
    "max_pool": nn.MaxPool2d(2),
    "softmax": nn.Softmax2d(),
    "instance_norm": nn.InstanceNorm2d(6, affine=True),
    "depthwise": nn.Conv2d(6, 6, 3, groups=6),
    "transposed": nn.ConvTranspose2d(6, 6, 3),
    "norm_of_its_own": nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(6)),
    "scaled_by_itself": Lambda(lambda self, x: x * x.mean((2, 3), keepdim=True)),
    "read_twice": Lambda(lambda self, x: self.conv(x) + self.conv(2 * x), conv=nn.Conv2d(6, 6, 1)),
    "in_groups": nn.GroupNorm(2, 6),
}


@pytest.mark.parametrize("name", BENT)
def test_what_is_bent_on_its_way_is_none(name):
    net = nn.Sequential(nn.Conv2d(3, 6, 3), BENT[name], nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), head(4))
    assert names(net) == []


def test_a_residual_stream_behind_a_relu_is_none():
    block = Lambda(lambda self, x: F.relu(x + self.body(x)), body=nn.Conv2d(6, 6, 3, padding=1))
    assert names(nn.Sequential(conv_bn(3, 6), block, head(6))) == []


def test_what_the_model_puts_out_is_none():
    net = Lambda(
        lambda self, x: (seen := self.first(x), self.last(seen)),
        first=nn.Conv2d(3, 6, 3),
        last=nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), head(4)),
    )
    assert names(net) == []


def test_a_norm_that_learns_nothing_has_nowhere_to_put_a_shift():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False), nn.Conv2d(6, 4, 1), nn.ReLU(), head(4))
    assert names(net) == []
