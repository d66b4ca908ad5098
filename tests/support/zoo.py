"""Small networks of many shapes, each a real architecture in miniature, and the input that each one takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.records import Subject

Made = tuple[nn.Module, tuple[Any, ...]]


class Lambda(nn.Module):
    """A module from a function of itself and its inputs."""

    def __init__(self, function: Callable[..., Any], **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def image(batch: int = 1, channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.randn(batch, channels, size, size)


def conv_bn(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
    )


def head(channels: int, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


# --- plain chains


def mlp() -> Made:
    return nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 10), nn.GELU(), nn.Linear(10, 3)), (
        torch.randn(2, 7),
    )


def sequence_mlp() -> Made:
    """Linear layers on (batch, tokens, channels), LayerNorm in between."""
    net = nn.Sequential(nn.Linear(7, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 10), nn.Linear(10, 3))
    return net, (torch.randn(2, 5, 7),)


def vgg_flatten() -> Made:
    """Flatten with 2 x 3 positions a channel in front of the first linear layer."""
    net = nn.Sequential(
        conv_bn(3, 8), nn.MaxPool2d(2), conv_bn(8, 12), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(),
        nn.Linear(72, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 5),
    )  # fmt: skip
    return net, (image(2),)


def view_flatten() -> Made:
    """The flatten of an older style: x.view(batch, -1)."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x))
        return self.fc(x.view(x.size(0), -1))

    return Lambda(forward, conv=nn.Conv2d(3, 8, 3, 2, 1), fc=nn.Linear(8 * 16, 5)), (image(2, size=8),)


def channels_last_flatten() -> Made:
    """Permuted before it is flattened: the channels are the fast-running part of the linear layer's columns."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x)).permute(0, 2, 3, 1)
        return self.fc(x.reshape(x.size(0), -1))

    return Lambda(forward, conv=nn.Conv2d(3, 8, 3, 2, 1), fc=nn.Linear(8 * 16, 5)), (image(2, size=8),)


def conv1d() -> Made:
    net = nn.Sequential(
        nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip
    return net, (torch.randn(2, 2, 20),)


def conv3d() -> Made:
    net = nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return net, (torch.randn(1, 1, 6, 6, 6),)


def prelu_instance() -> Made:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8),
        nn.Conv2d(8, 12, 3), nn.InstanceNorm2d(12), nn.PReLU(), nn.Conv2d(12, 6, 1), head(6),
    )  # fmt: skip
    return net, (image(),)


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


def mobilenet() -> Made:
    return nn.Sequential(conv_bn(3, 8, 3, 2), Inverted(8, 16, 8), Inverted(8, 24, 12, 2), nn.Hardswish(), head(12)), (
        image(),
    )


def depthwise_first() -> Made:
    """The first layer is depthwise over the input's channels, which can't go."""
    return nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1), nn.ReLU(), head(8)), (image(),)


def depthwise_multiplier() -> Made:
    """groups == in_channels, and two filters a channel."""
    return nn.Sequential(conv_bn(3, 6), conv_bn(6, 12, groups=6), nn.Conv2d(12, 8, 1), head(8)), (image(),)


def multiplier_first() -> Made:
    """The input's own channels with four filters each: no output channel may go without its input channel."""
    return nn.Sequential(nn.Conv2d(3, 12, 3, groups=3), nn.ReLU(), nn.Conv2d(12, 8, 1), head(8)), (image(),)


def narrow_groups() -> Made:
    """RegNet's and ResNeXt's conv: more groups than channels in one."""
    return nn.Sequential(conv_bn(3, 8), conv_bn(8, 12, 1), conv_bn(12, 12, groups=6), conv_bn(12, 10, 1), head(10)), (
        image(),
    )


def wide_groups() -> Made:
    """Two groups of eight: a share of each group goes."""
    return nn.Sequential(conv_bn(3, 8), conv_bn(8, 12, groups=2), conv_bn(12, 8, groups=2), head(8)), (image(),)


def widening_groups() -> Made:
    """in_channels != out_channels, more than one group."""
    return nn.Sequential(conv_bn(3, 6), conv_bn(6, 12, groups=3), conv_bn(12, 4, groups=2), head(4)), (image(),)


def group_norm() -> Made:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.GroupNorm(1, 12), nn.SiLU(),
        nn.Conv2d(12, 6, 1), nn.GroupNorm(6, 6), head(6),
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


def densenet() -> Made:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), Dense(8, 4), Dense(12, 4), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1), nn.AvgPool2d(2),
        Dense(8, 4), nn.BatchNorm2d(12), nn.ReLU(), head(12),
    )  # fmt: skip
    return net, (image(),)


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


def cat_flatten() -> Made:
    """Two branches of different sizes flattened and joined in front of one linear layer."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        one = torch.flatten(F.adaptive_avg_pool2d(self.one(x), 2), 1)
        two = torch.flatten(F.adaptive_avg_pool2d(self.two(x), 1), 1)
        return self.fc(torch.cat([one, two], 1))

    return Lambda(forward, one=conv_bn(3, 6), two=conv_bn(3, 8), fc=nn.Linear(32, 5)), (image(),)


def cat_then_add() -> Made:
    """A concatenation added to one wide stream: one component spans two producers with parts of the channels each."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.one(x), self.two(x)], 1) + self.wide(x)
        return self.head(F.relu(both))

    parts = {"one": nn.Conv2d(3, 6, 1), "two": nn.Conv2d(3, 8, 1), "wide": nn.Conv2d(3, 14, 1), "head": head(14)}
    return Lambda(forward, **parts), (image(),)


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


def transposed_groups() -> Made:
    net = nn.Sequential(
        conv_bn(3, 8), nn.ConvTranspose2d(8, 12, 2, 2, groups=2), nn.ReLU(), nn.ConvTranspose2d(12, 12, 3, groups=12),
        nn.ConvTranspose2d(12, 6, 2, groups=3), nn.Conv2d(6, 2, 1),
    )  # fmt: skip
    return net, (image(size=8),)


# --- shape operations


def chunks() -> Made:
    """A gated unit: one conv's channels halved, one half gates the other."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.both(x).chunk(2, 1)
        return self.head(value * torch.sigmoid(gate))

    return Lambda(forward, both=nn.Conv2d(3, 12, 3), head=head(6)), (image(),)


def split_branches() -> Made:
    """C2f's shape: halves of one conv go different ways and meet again in a concatenation."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        one, two = self.both(x).split([4, 8], 1)
        return self.head(torch.cat([one, two, F.relu(self.more(two))], 1))

    return Lambda(forward, both=nn.Conv2d(3, 12, 3), more=nn.Conv2d(8, 6, 1), head=head(18)), (image(),)


def shuffle() -> Made:
    """ShuffleNet's channel shuffle between two grouped convs."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.one(self.stem(x))
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.two(x))

    return Lambda(forward, stem=conv_bn(3, 12), one=conv_bn(12, 12, 1, groups=3), two=conv_bn(12, 12), head=head(12)), (
        image(),
    )


def pixel_shuffle() -> Made:
    net = nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 24, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(6, 3, 1))
    return net, (image(size=8),)


def padded_shortcut() -> Made:
    """CIFAR's ResNet with option A: the shortcut is padded with zero channels."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x)
        return self.head(F.relu(self.two(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))))

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(8, 12, 3, 2), head=head(12)), (image(),)


def mean_over_space() -> Made:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean([2, 3]))

    return Lambda(forward, conv=conv_bn(3, 8), fc=nn.Linear(8, 5)), (image(),)


def mean_over_channels() -> Made:
    """Spatial attention: a mean over the channels, whose number is part of the result."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        mask = torch.sigmoid(self.mask(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))
        return self.head(x * mask)

    return Lambda(forward, conv=conv_bn(3, 8), mask=nn.Conv2d(2, 1, 3, padding=1), head=head(8)), (image(),)


# --- odd uses of modules


def called_twice() -> Made:
    """One conv applied twice: its inputs and its outputs are the same channels."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.again(F.relu(self.again(x))))

    return Lambda(forward, stem=conv_bn(3, 8), again=nn.Conv2d(8, 8, 3, padding=1), head=head(8)), (image(),)


def shared_head() -> Made:
    """RetinaNet's shape: one head over two levels."""

    def forward(self: Any, x: torch.Tensor) -> list[torch.Tensor]:
        one = self.one(x)
        two = self.two(one)
        return [self.out(F.relu(self.tower(level))) for level in (self.lateral1(one), self.lateral2(two))]

    parts = {
        "one": conv_bn(3, 8), "two": conv_bn(8, 12, 3, 2), "lateral1": nn.Conv2d(8, 6, 1),
        "lateral2": nn.Conv2d(12, 6, 1), "tower": nn.Conv2d(6, 10, 3, padding=1), "out": nn.Conv2d(10, 4, 1),
    }  # fmt: skip
    return Lambda(forward, **parts), (image(),)


def tied_linears() -> Made:
    """An autoencoder whose two middle layers have one weight."""
    net = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10), nn.Linear(10, 3))
    net[4].weight = net[2].weight
    return net, (torch.randn(2, 6),)


def tied_embedding() -> Made:
    """A language model's shape: the output layer's weight is the embedding's."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.out(x + self.down(F.gelu(self.up(x))))

    parts = {"embed": nn.Embedding(11, 8), "up": nn.Linear(8, 12), "down": nn.Linear(12, 8)}
    net = Lambda(forward, **parts, out=nn.Linear(8, 11, bias=False))
    net.out.weight = net.embed.weight
    return net, (torch.randint(0, 11, (2, 6)),)


def embedding() -> Made:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.relu(self.embed(x)).mean(1))

    return Lambda(forward, embed=nn.Embedding(11, 8), fc=nn.Linear(8, 3)), (torch.randint(0, 11, (2, 6)),)


def two_inputs() -> Made:
    def forward(self: Any, x: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([self.pool(self.conv(x)), F.relu(self.table(extra))], 1))

    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts = {"conv": conv_bn(3, 8), "pool": pool, "table": nn.Linear(4, 6), "fc": nn.Linear(14, 5)}
    return Lambda(forward, **parts), (image(2), torch.randn(2, 4))


def tuple_output() -> Made:
    """What the second head reads is an output as well."""

    def forward(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        one = self.one(x)
        two = self.two(one)
        return two, {"classes": self.head(self.three(two))}

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(8, 10), three=conv_bn(10, 12), head=head(12)), (image(),)


def auxiliary() -> Made:
    """GoogLeNet's shape: a head that runs in training only."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        x = self.one(x)
        out = self.head(self.two(x))
        return (out, self.aux(x)) if self.training else out

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(8, 10), head=head(10), aux=head(8)), (image(2),)


def parameter_scale() -> Made:
    """Bare parameters per channel: a scale, a bias, and one that is a number."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.gamma = nn.Parameter(torch.randn(1, 8, 1, 1))
            self.beta = nn.Parameter(torch.randn(8, 1, 1))
            self.gain = nn.Parameter(torch.tensor(0.7))
            self.head = head(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.gain * self.gamma * F.relu(self.conv(x)) + self.beta)

    return Net(), (image(),)


def normalised_weights() -> Made:
    """weight_norm: the weight is computed, so that its layer can't be cut."""
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    return nn.Sequential(conv, nn.ReLU(), conv_bn(8, 12), head(12)), (image(),)


def attention() -> Made:
    """A transformer's block: its width and its heads stay, the hidden layer of its MLP can go."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.out(x.mean(1))

    parts = {
        "embed": nn.Linear(5, 8), "norm1": nn.LayerNorm(8), "attn": nn.MultiheadAttention(8, 2, batch_first=True),
        "norm2": nn.LayerNorm(8), "up": nn.Linear(8, 16), "down": nn.Linear(16, 8), "out": nn.Linear(8, 3),
    }  # fmt: skip
    return Lambda(forward, **parts), (torch.randn(2, 6, 5),)


def batch_of_two() -> Made:
    """A forward that compares samples and can't run on one."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.fc1(x)
        one, two = x[0::2], x[1::2]
        if len(one) != len(two):
            raise ValueError("samples come in pairs")
        return self.fc2(F.relu(torch.cat([one, two], 1)))

    return Lambda(forward, fc1=nn.Linear(5, 8), fc2=nn.Linear(16, 3)), (torch.randn(4, 5),)


def functional_weights() -> Made:
    """Weights that functions apply: F.conv2d and F.linear on bare parameters."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv_bn(3, 8)
            self.kernel = nn.Parameter(torch.randn(10, 8, 3, 3))
            self.two = conv_bn(10, 12)
            self.head = head(12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.two(F.conv2d(self.stem(x), self.kernel)))

    return Net(), (image(),)


def bilinear_product() -> Made:
    """A product of two activations over their channels: what it costs is no weight's."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.out(torch.softmax(q @ k.transpose(1, 2), -1) @ v)

    parts = {name: nn.Linear(5, 8) for name in ("q", "k", "v")}
    return Lambda(forward, **parts, out=nn.Linear(8, 3)), (torch.randn(2, 6, 5),)


def no_batch() -> Made:
    """Inputs without a batch dimension at all."""
    return nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 3)), (torch.randn(7),)


ZOO: dict[str, Callable[[], Made]] = {
    maker.__name__: maker
    for maker in (
        mlp, sequence_mlp, vgg_flatten, view_flatten, channels_last_flatten, conv1d, conv3d, prelu_instance,
        instance_stats, resnet, mobilenet, depthwise_first, depthwise_multiplier, multiplier_first, narrow_groups,
        wide_groups, widening_groups, group_norm, convnext, densenet, squeezenet, cat_flatten, cat_then_add, unet,
        transposed_groups, chunks, split_branches, shuffle, pixel_shuffle, padded_shortcut, mean_over_space,
        mean_over_channels, called_twice, shared_head, tied_linears, tied_embedding, embedding, two_inputs,
        tuple_output, auxiliary, parameter_scale, normalised_weights, attention, batch_of_two, functional_weights,
        bilinear_product, no_batch,
    )
}  # fmt: skip


def subject(name: str, seed: int = 0) -> Subject:
    """One of the networks with weights that the seed decides and running statistics that are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module, inputs = ZOO[name]()
        for norm in module.modules():
            if isinstance(norm, nn.modules.batchnorm._NormBase) and norm.running_mean is not None:
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
            if isinstance(norm, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)) and norm.weight is not None:
                nn.init.normal_(norm.weight, 1.0, 0.3)
                nn.init.normal_(norm.bias)
    return Subject(module.eval(), inputs, name)
