"""Networks that cut, join, move or flatten channels between their layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.support.parts import Lambda, Made, conv_bn, head, image, net


@net
def chunks() -> Made:
    """A gated unit: one conv's channels halved, one half gates the other."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.both(x).chunk(2, 1)
        return self.head(value * torch.sigmoid(gate))

    return Lambda(forward, both=nn.Conv2d(3, 12, 3), head=head(6)), (image(),)


@net
def split_branches() -> Made:
    """C2f's shape: halves of one conv go different ways and meet again in a concatenation."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        one, two = self.both(x).split([4, 8], 1)
        return self.head(torch.cat([one, two, F.relu(self.more(two))], 1))

    return Lambda(forward, both=nn.Conv2d(3, 12, 3), more=nn.Conv2d(8, 6, 1), head=head(18)), (image(),)


@net
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


@net
def pixel_shuffle() -> Made:
    net = nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 24, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(6, 3, 1))
    return net, (image(size=8),)


@net
def padded_shortcut() -> Made:
    """CIFAR's ResNet with option A: the shortcut is padded with zero channels."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x)
        return self.head(F.relu(self.two(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))))

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(8, 12, 3, 2), head=head(12)), (image(),)


@net
def mean_over_space() -> Made:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean([2, 3]))

    return Lambda(forward, conv=conv_bn(3, 8), fc=nn.Linear(8, 5)), (image(),)


@net
def mean_over_channels() -> Made:
    """Spatial attention: a mean over the channels, whose number is part of the result."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        mask = torch.sigmoid(self.mask(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))
        return self.head(x * mask)

    return Lambda(forward, conv=conv_bn(3, 8), mask=nn.Conv2d(2, 1, 3, padding=1), head=head(8)), (image(),)


@net
def slice_and_join() -> Made:
    """The first channels go through another layer, the others around it."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.both(x)
        return self.head(torch.cat([self.more(x[:, :4]), x[:, 4:]], 1))

    return Lambda(forward, both=conv_bn(3, 12), more=conv_bn(4, 6), head=head(14)), (image(),)


@net
def c2f() -> Made:
    """YOLOv8's block: two halves, the second goes on, and all that was made on the way is joined."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        parts.append(self.m1(parts[-1]))
        parts.append(parts[-1] + self.m2(parts[-1]))
        return self.head(self.cv2(torch.cat(parts, 1)))

    modules = {"cv1": conv_bn(3, 12), "m1": conv_bn(6, 6), "m2": conv_bn(6, 6), "cv2": conv_bn(24, 8), "head": head(8)}
    return Lambda(forward, **modules), (image(),)


@net
def wide_first() -> Made:
    """Added to a concatenation, but run before the layers that are joined."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        wide = self.wide(x)
        return self.head(F.relu(torch.cat([self.one(x), self.two(x)], 1) + wide))

    parts = {"wide": nn.Conv2d(3, 14, 1), "one": nn.Conv2d(3, 6, 1), "two": nn.Conv2d(3, 8, 1), "head": head(14)}
    return Lambda(forward, **parts), (image(),)


@net
def input_joined() -> Made:
    """CoordConv's and many U-Nets' shape: the network's own input beside what was made from it."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(torch.cat([x, self.one(x)], 1)))

    return Lambda(forward, one=conv_bn(3, 8), two=conv_bn(11, 6), head=head(6)), (image(),)


@net
def fixed_view() -> Made:
    """The size of a view is a number in the code, as in PyTorch's own tutorial."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(x))
        return self.fc2(F.relu(self.fc1(x.view(-1, 8 * 4 * 4))))

    parts = {"one": conv_bn(3, 6), "two": conv_bn(6, 8, 3, 4), "fc1": nn.Linear(128, 10), "fc2": nn.Linear(10, 3)}
    return Lambda(forward, **parts), (image(),)


@net
def unflatten() -> Made:
    """A decoder: a linear layer's outputs become channels of an image."""
    net = nn.Sequential(
        nn.Linear(10, 32), nn.ReLU(), nn.Unflatten(1, (8, 2, 2)), nn.ConvTranspose2d(8, 6, 2, 2), nn.BatchNorm2d(6),
        nn.ReLU(), nn.ConvTranspose2d(6, 3, 2, 2),
    )  # fmt: skip
    return net, (torch.randn(2, 10),)


@net
def gated() -> Made:
    """nn.GLU: one half of the channels gates the other."""
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.GLU(1), conv_bn(6, 8), head(8)), (image(),)


@net
def flipped() -> Made:
    """Channels meet their mirror images."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.head(F.relu(x + x.flip(1)))

    return Lambda(forward, conv=conv_bn(3, 12), head=head(12)), (image(),)


@net
def pixel_unshuffle() -> Made:
    net = nn.Sequential(conv_bn(3, 8), nn.PixelUnshuffle(2), nn.Conv2d(32, 10, 1), nn.ReLU(), head(10))
    return net, (image(),)
