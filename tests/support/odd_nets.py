"""Modules used in odd ways, each as some real model does it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.support.parts import Lambda, Made, conv_bn, head, image, net


@net
def called_twice() -> Made:
    """One conv applied twice: its inputs and its outputs are the same channels."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.again(F.relu(self.again(x))))

    return Lambda(forward, stem=conv_bn(3, 8), again=nn.Conv2d(8, 8, 3, padding=1), head=head(8)), (image(),)


@net
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


@net
def tied_linears() -> Made:
    """An autoencoder whose two middle layers have one weight."""
    net = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10), nn.Linear(10, 3))
    net[4].weight = net[2].weight
    return net, (torch.randn(2, 6),)


@net
def tied_embedding() -> Made:
    """A language model's shape: the output layer's weight is the embedding's."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.out(x + self.down(F.gelu(self.up(x))))

    parts = {"embed": nn.Embedding(11, 8), "up": nn.Linear(8, 12), "down": nn.Linear(12, 8)}
    net = Lambda(forward, **parts, out=nn.Linear(8, 11, bias=False))
    net.out.weight = net.embed.weight
    return net, (torch.randint(0, 11, (2, 6)),)


@net
def embedding() -> Made:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.relu(self.embed(x)).mean(1))

    return Lambda(forward, embed=nn.Embedding(11, 8), fc=nn.Linear(8, 3)), (torch.randint(0, 11, (2, 6)),)


@net
def two_inputs() -> Made:
    def forward(self: Any, x: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([self.pool(self.conv(x)), F.relu(self.table(extra))], 1))

    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts = {"conv": conv_bn(3, 8), "pool": pool, "table": nn.Linear(4, 6), "fc": nn.Linear(14, 5)}
    return Lambda(forward, **parts), (image(2), torch.randn(2, 4))


@net
def tuple_output() -> Made:
    """What the second head reads is an output as well."""

    def forward(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        one = self.one(x)
        two = self.two(one)
        return two, {"classes": self.head(self.three(two))}

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(8, 10), three=conv_bn(10, 12), head=head(12)), (image(),)


@net
def auxiliary() -> Made:
    """GoogLeNet's shape: a head that runs in training only."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        x = self.one(x)
        out = self.head(self.two(x))
        return (out, self.aux(x)) if self.training else out

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(8, 10), head=head(10), aux=head(8)), (image(2),)


@net
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


@net
def normalised_weights() -> Made:
    """weight_norm: the weight is computed from a direction and a length."""
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    return nn.Sequential(conv, nn.ReLU(), conv_bn(8, 12), head(12)), (image(),)


@net
def attention() -> Made:
    """A transformer's block: its stream goes by whole heads, the hidden layer of its MLP channel by channel."""

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


@net
def batch_of_two() -> Made:
    """A forward that compares samples and can't run on one."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.fc1(x)
        one, two = x[0::2], x[1::2]
        if len(one) != len(two):
            raise ValueError("samples come in pairs")
        return self.fc2(F.relu(torch.cat([one, two], 1)))

    return Lambda(forward, fc1=nn.Linear(5, 8), fc2=nn.Linear(16, 3)), (torch.randn(4, 5),)


@net
def bilinear_product() -> Made:
    """A product of two activations over their channels: what it costs is no weight's."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.out(torch.softmax(q @ k.transpose(1, 2), -1) @ v)

    parts = {name: nn.Linear(5, 8) for name in ("q", "k", "v")}
    return Lambda(forward, **parts, out=nn.Linear(8, 3)), (torch.randn(2, 6, 5),)


@net
def no_batch() -> Made:
    """Inputs without a batch dimension at all."""
    return nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 3)), (torch.randn(7),)


@net
def batch_norm_mlp() -> Made:
    """BatchNorm1d and PReLU on (batch, channels)."""
    net = nn.Sequential(
        nn.Linear(7, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10), nn.BatchNorm1d(10), nn.PReLU(10),
        nn.Linear(10, 3),
    )  # fmt: skip
    return net, (torch.randn(2, 7),)


@net
def prelu_tokens() -> Made:
    """One PReLU slope on (batch, tokens, channels): thop charges it, and the channels come last."""
    return nn.Sequential(nn.Linear(7, 12), nn.PReLU(), nn.Linear(12, 3)), (torch.randn(2, 20, 7),)


@net
def rms_norm() -> Made:
    net = nn.Sequential(nn.Linear(7, 12), nn.RMSNorm(12), nn.GELU(), nn.Linear(12, 10), nn.GELU(), nn.Linear(10, 3))
    return net, (torch.randn(2, 7),)


@net
def shared_pool() -> Made:
    """One pooling layer called on two widths."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.two(self.pool(self.one(x)))))

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(8, 12), pool=nn.AvgPool2d(2), head=head(12)), (image(),)


@net
def shared_norm() -> Made:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(self.one(x)) + self.norm(self.two(x))))

    parts = {"one": nn.Conv2d(3, 8, 1), "two": nn.Conv2d(3, 8, 3, padding=1), "norm": nn.BatchNorm2d(8)}
    return Lambda(forward, **parts, head=head(8)), (image(),)


@net
def shared_weight() -> Made:
    """Two convs with one weight: what one makes, the other reads."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(F.relu(self.one(self.stem(x)))))

    net = Lambda(forward, stem=conv_bn(3, 8), one=nn.Conv2d(8, 8, 3), two=nn.Conv2d(8, 8, 3), head=head(8))
    net.two.weight = net.one.weight
    return net, (image(),)


@net
def fewer_outputs_than_inputs() -> Made:
    """Groups == out_channels != in_channels."""
    net = nn.Sequential(conv_bn(3, 12), nn.Conv2d(12, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 8, 1), head(8))
    return net, (image(),)


@net
def detached() -> Made:
    """A branch that gradients don't reach: torch-pruning can't see that it reads the channels."""

    def forward(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.one(x)
        return self.head1(x), self.head2(self.two(x.detach()))

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(8, 10), head1=head(8), head2=head(10)), (image(),)


@net
def makes_tensors() -> Made:
    """Coordinates made in forward without a word on the device, and statistics kept in a plain attribute."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = x.shape
        axes = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        grid = torch.stack(axes)[None].expand(batch, -1, -1, -1)
        return self.head(self.conv(torch.cat([(x - self.mean) / 0.2, grid], 1)))

    net = Lambda(forward, conv=conv_bn(5, 8), head=head(8))
    net.mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    return net, (image(2),)


@net
def looks_at_values() -> Made:
    """A forward that branches on what it is given; it can't run without values."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if float(x.abs().max()) > 1e9:
            raise ValueError("not normalised")
        return self.head(self.two(self.one(x)))

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(8, 6), head=head(6)), (image(2),)


@net
def recurrent() -> Made:
    """A convolution in front of an LSTM."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.two(F.relu(self.one(x)))).transpose(1, 2)
        return self.fc(self.lstm(x)[0][:, -1])

    parts = {"one": nn.Conv1d(3, 8, 3), "two": nn.Conv1d(8, 6, 3), "lstm": nn.LSTM(6, 6, batch_first=True)}
    return Lambda(forward, **parts, fc=nn.Linear(6, 3)), (torch.randn(1, 3, 12),)


@net
def old_weight_norm() -> Made:
    """The deprecated weight_norm keeps a computed tensor in a plain attribute, which deepcopy refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        conv = nn.utils.weight_norm(nn.Conv2d(3, 8, 3))
    return nn.Sequential(conv, nn.ReLU(), conv_bn(8, 12), head(12)), (image(),)


@net
def functional_convolution() -> Made:
    """A fixed filter that a function applies: thop does not see it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv_bn(3, 8)
            self.blur = nn.Parameter(torch.randn(1, 1, 3, 3))
            self.mix = nn.Parameter(torch.randn(4, 3))
            self.head = head(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.conv2d(x, self.blur.expand(3, 1, 3, 3), groups=3)
            x = F.linear(x.movedim(1, -1), self.mix)[..., :3].movedim(-1, 1)
            return self.head(self.conv(x))

    return Net(), (image(),)


@dataclass
class Result:
    logits: torch.Tensor


@net
def dataclass_output() -> Made:
    def forward(self: Any, x: torch.Tensor) -> Result:
        return Result(self.head(self.conv(x)))

    return Lambda(forward, conv=conv_bn(3, 8), head=head(8)), (image(),)


@net
def argmax_output() -> Made:
    """No gradient reaches an index: nothing can be followed from there."""
    return Lambda(lambda self, x: self.net(x).argmax(1), net=nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 4, 1))), (
        image(),
    )


@net
def zero_head() -> Made:
    """A head before training, as in torchvision's ViT: whatever comes in, zeros come out."""
    net = nn.Sequential(conv_bn(3, 8), conv_bn(8, 6), head(6))
    nn.init.zeros_(net[2][2].weight)
    nn.init.zeros_(net[2][2].bias)
    return net, (image(),)


@net
def random_forward() -> Made:
    """Dropout that never rests."""
    return Lambda(lambda self, x: self.head(F.dropout(self.conv(x))), conv=conv_bn(3, 8), head=head(8)), (image(),)


@net
def response_norm() -> Made:
    """A norm over neighbouring channels."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.LocalResponseNorm(3, alpha=1.0), nn.Conv2d(8, 6, 1), nn.ReLU(), head(6)
    )
    return net, (image(),)


@net
def plain_layer_norm() -> Made:
    """A LayerNorm without weights: nothing tells which of its entries are whose."""
    net = nn.Sequential(nn.Linear(7, 12), nn.LayerNorm(12, elementwise_affine=False), nn.Linear(12, 9), nn.Linear(9, 3))
    return net, (torch.randn(2, 7),)
