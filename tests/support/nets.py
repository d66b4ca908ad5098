"""Ordinary architectures in miniature: chains, residual, depthwise, grouped, concatenated."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.support.parts import Lambda, Made, conv_bn, head, image, net

# --- plain chains


@net
def mlp() -> Made:
    return nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 10), nn.GELU(), nn.Linear(10, 3)), (
        torch.randn(2, 7),
    )


@net
def sequence_mlp() -> Made:
    """Linear layers on (batch, tokens, channels), LayerNorm in between."""
    net = nn.Sequential(nn.Linear(7, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 10), nn.Linear(10, 3))
    return net, (torch.randn(2, 5, 7),)


@net
def vgg_flatten() -> Made:
    """Flatten with 2 x 3 positions a channel in front of the first linear layer."""
    net = nn.Sequential(
        conv_bn(3, 8), nn.MaxPool2d(2), conv_bn(8, 12), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(),
        nn.Linear(72, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 5),
    )  # fmt: skip
    return net, (image(2),)


@net
def view_flatten() -> Made:
    """The flatten of an older style: x.view(batch, -1)."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x))
        return self.fc(x.view(x.size(0), -1))

    return Lambda(forward, conv=nn.Conv2d(3, 8, 3, 2, 1), fc=nn.Linear(8 * 16, 5)), (image(2, size=8),)


@net
def channels_last_flatten() -> Made:
    """Permuted before it is flattened: the channels are the fast-running part of the linear layer's columns."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x)).permute(0, 2, 3, 1)
        return self.fc(x.reshape(x.size(0), -1))

    return Lambda(forward, conv=nn.Conv2d(3, 8, 3, 2, 1), fc=nn.Linear(8 * 16, 5)), (image(2, size=8),)


@net
def conv1d() -> Made:
    net = nn.Sequential(
        nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip
    return net, (torch.randn(2, 2, 20),)


@net
def conv3d() -> Made:
    net = nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return net, (torch.randn(1, 1, 6, 6, 6),)


@net
def prelu_instance() -> Made:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8),
        nn.Conv2d(8, 12, 3), nn.InstanceNorm2d(12), nn.PReLU(), nn.Conv2d(12, 6, 1), head(6),
    )  # fmt: skip
    return net, (image(),)


@net
def instance_stats() -> Made:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True, track_running_stats=True), nn.ReLU(), head(8)
    )
    return net, (image(),)


# --- residual, depthwise, grouped


class Residual(nn.Module):
    def __init__(self, c_in: int, inner: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.short = None if stride == 1 and c_in == c_out else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.short is None else self.short(x)))


@net
def resnet() -> Made:
    return nn.Sequential(conv_bn(3, 8), Residual(8, 6, 8), Residual(8, 12, 10, 2), Residual(10, 12, 10), head(10)), (
        image(2),
    )


class Inverted(nn.Module):
    """MobileNetV3's block: expand, depthwise, squeeze and excite, project."""

    def __init__(self, c_in: int, inner: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.expand = conv_bn(c_in, inner, 1)
        self.depthwise = conv_bn(inner, inner, 3, stride, groups=inner)
        self.squeeze = nn.Conv2d(inner, 4, 1)
        self.excite = nn.Conv2d(4, inner, 1)
        self.project = nn.Sequential(nn.Conv2d(inner, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
        self.add = stride == 1 and c_in == c_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.expand(x))
        scale = F.adaptive_avg_pool2d(y, 1)
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(scale))))
        y = self.project(y)
        return x + y if self.add else y


@net
def mobilenet() -> Made:
    return nn.Sequential(conv_bn(3, 8, 3, 2), Inverted(8, 16, 8), Inverted(8, 24, 12, 2), nn.Hardswish(), head(12)), (
        image(),
    )


@net
def depthwise_first() -> Made:
    """The first layer is depthwise over the input's channels, which can't go."""
    return nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1), nn.ReLU(), head(8)), (image(),)


@net
def depthwise_multiplier() -> Made:
    """Groups == in_channels, and two filters a channel."""
    return nn.Sequential(conv_bn(3, 6), conv_bn(6, 12, groups=6), nn.Conv2d(12, 8, 1), head(8)), (image(),)


@net
def multiplier_first() -> Made:
    """The input's own channels with four filters each: no output channel may go without its input channel."""
    return nn.Sequential(nn.Conv2d(3, 12, 3, groups=3), nn.ReLU(), nn.Conv2d(12, 8, 1), head(8)), (image(),)


@net
def narrow_groups() -> Made:
    """RegNet's and ResNeXt's conv: more groups than channels in one."""
    return nn.Sequential(conv_bn(3, 8), conv_bn(8, 12, 1), conv_bn(12, 12, groups=6), conv_bn(12, 10, 1), head(10)), (
        image(),
    )


@net
def wide_groups() -> Made:
    """Two groups of eight: a share of each group goes."""
    return nn.Sequential(conv_bn(3, 8), conv_bn(8, 12, groups=2), conv_bn(12, 8, groups=2), head(8)), (image(),)


@net
def widening_groups() -> Made:
    """in_channels != out_channels, more than one group."""
    return nn.Sequential(conv_bn(3, 6), conv_bn(6, 12, groups=3), conv_bn(12, 4, groups=2), head(4)), (image(),)


@net
def group_norm() -> Made:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.GroupNorm(1, 12), nn.SiLU(),
        nn.Conv2d(12, 6, 1), nn.GroupNorm(6, 6), nn.ReLU(), head(6),
    )  # fmt: skip
    return net, (image(),)


class Norm2d(nn.LayerNorm):
    """torchvision's LayerNorm2d."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class Next(nn.Module):
    """ConvNeXt's block, with its layer scale."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.wide = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.narrow(F.gelu(self.wide(self.norm(y)))).permute(0, 3, 1, 2)
        return x + self.scale * y


@net
def convnext() -> Made:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 2, 2), Norm2d(8), Next(8, 16), Norm2d(8), nn.Conv2d(8, 12, 2, 2), Next(12, 20), head(12)
    )
    return net, (image(),)


# --- concatenation


class Dense(nn.Module):
    """DenseNet's layer: the input and what was made from it, side by side."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, 2 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


@net
def densenet() -> Made:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), Dense(8, 4), Dense(12, 4), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1), nn.AvgPool2d(2),
        Dense(8, 4), nn.BatchNorm2d(12), nn.ReLU(), head(12),
    )  # fmt: skip
    return net, (image(),)


@net
def squeezenet() -> Made:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.squeeze(F.relu(self.stem(x))))
        x = torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)
        return torch.flatten(F.adaptive_avg_pool2d(self.classifier(x), 1), 1)

    parts = {
        "stem": nn.Conv2d(3, 8, 3, 2), "squeeze": nn.Conv2d(8, 4, 1), "one": nn.Conv2d(4, 6, 1),
        "three": nn.Conv2d(4, 8, 3, padding=1), "classifier": nn.Conv2d(14, 5, 1),
    }  # fmt: skip
    return Lambda(forward, **parts), (image(),)


@net
def cat_flatten() -> Made:
    """Two branches of different sizes flattened and joined in front of one linear layer."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        one = torch.flatten(F.adaptive_avg_pool2d(self.one(x), 2), 1)
        two = torch.flatten(F.adaptive_avg_pool2d(self.two(x), 1), 1)
        return self.fc(torch.cat([one, two], 1))

    return Lambda(forward, one=conv_bn(3, 6), two=conv_bn(3, 8), fc=nn.Linear(32, 5)), (image(),)


@net
def cat_then_add() -> Made:
    """A concatenation added to one wide stream: one component spans two producers with parts of the channels each."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.one(x), self.two(x)], 1) + self.wide(x)
        return self.head(F.relu(both))

    parts = {"one": nn.Conv2d(3, 6, 1), "two": nn.Conv2d(3, 8, 1), "wide": nn.Conv2d(3, 14, 1), "head": head(14)}
    return Lambda(forward, **parts), (image(),)


@net
def unet() -> Made:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        return self.out(self.join(torch.cat([self.up(two), one], 1)))

    parts = {
        "down1": conv_bn(3, 8), "down2": conv_bn(8, 12), "up": nn.ConvTranspose2d(12, 6, 2, 2), "join": conv_bn(14, 8),
        "out": nn.Conv2d(8, 2, 1),
    }  # fmt: skip
    return Lambda(forward, **parts), (image(),)


@net
def transposed_groups() -> Made:
    net = nn.Sequential(
        conv_bn(3, 8), nn.ConvTranspose2d(8, 12, 2, 2, groups=2), nn.ReLU(), nn.ConvTranspose2d(12, 12, 3, groups=12),
        nn.ConvTranspose2d(12, 6, 2, groups=3), nn.Conv2d(6, 2, 1),
    )  # fmt: skip
    return net, (image(size=8),)
