"""Four small networks in the idioms that pruning has to cope with; shape (batch, 1, 28, 28) in, (batch, 10) out."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

CLASSES = 10


def conv(before: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions beside an identity, or a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(before, after, stride=stride), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = conv(after, after), nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + identity)


class ResNet(nn.Module):
    """A stem, three stages of two blocks, global average, linear."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96), blocks: int = 2) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(1, widths[0], stride=2), nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages = []
        for before, after in pairwise((widths[0], *widths)):
            first = BasicBlock(before, after, 1 if before == after else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(after, after, 1) for _ in range(blocks - 1))))
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class VGG(nn.Module):
    """Pairs of convolutions between poolings, then two linear layers on the flattened map."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((1, *widths)):
            for entering in (before, after):
                layers += [conv(entering, after), nn.BatchNorm2d(after), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(widths[-1] * 9, 128), nn.ReLU(), nn.Linear(128, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class InvertedResidual(nn.Module):
    """Wide, depthwise, narrow; beside an identity where the shape stays."""

    def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = before * expand
        self.conv = nn.Sequential(
            conv(before, wide, 1), nn.BatchNorm2d(wide), nn.ReLU6(),
            conv(wide, wide, 3, stride, groups=wide), nn.BatchNorm2d(wide), nn.ReLU6(),
            conv(wide, after, 1), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.same = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.same else self.conv(x)


class MobileNet(nn.Module):
    """MobileNetV2's plan: a stem, inverted residuals, a 1x1 head, global average, linear."""

    plan = ((16, 1), (16, 1), (24, 2), (24, 1), (40, 2), (40, 1))

    def __init__(self, expand: int = 4, head: int = 128) -> None:
        super().__init__()
        before = self.plan[0][0]
        layers: list[nn.Module] = [conv(1, before, stride=2), nn.BatchNorm2d(before), nn.ReLU6()]
        for after, stride in self.plan:
            layers.append(InvertedResidual(before, after, stride, expand))
            before = after
        self.features = nn.Sequential(*layers, conv(before, head, 1), nn.BatchNorm2d(head), nn.ReLU6())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(head, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3; what it makes is put beside what came in."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), conv(before, 2 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), conv(2 * growth, growth)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.conv2(self.relu(self.norm2(self.conv1(self.relu(self.norm1(x))))))], 1)


class DenseNet(nn.Module):
    """Three dense blocks; a 1x1 convolution and an average pooling halve what passes between them."""

    def __init__(self, growth: int = 16, layers: int = 4, blocks: int = 3) -> None:
        super().__init__()
        width = 2 * growth
        parts: list[nn.Module] = [conv(1, width, stride=2), nn.BatchNorm2d(width), nn.ReLU()]
        for block in range(blocks):
            parts += [DenseLayer(width + layer * growth, growth) for layer in range(layers)]
            width += layers * growth
            if block < blocks - 1:
                parts += [nn.BatchNorm2d(width), nn.ReLU(), conv(width, width // 2, 1), nn.AvgPool2d(2)]
                width //= 2
        self.features = nn.Sequential(*parts, nn.BatchNorm2d(width), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
