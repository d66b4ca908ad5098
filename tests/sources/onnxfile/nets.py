"""Small networks of the usual kinds, with weights that are nowhere zero."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Tokens(nn.Module):
    """A decoder with causal attention and a head tied to its embedding."""

    def __init__(self, width: int = 16, heads: int = 4, words: int = 40) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(words, width)
        self.places = nn.Embedding(12, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.up = nn.Linear(width, 48)
        self.down = nn.Linear(48, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        n, length = ids.shape
        x = self.embed(ids) + self.places(torch.arange(length, device=ids.device))
        q, k, v = (part.view(n, length, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(seen.transpose(1, 2).reshape(n, length, -1))
        x = x + self.down(functional.gelu(self.up(x)))
        return self.head(x)


class UNet(nn.Module):
    """Down, up by a transposed convolution and by interpolation, and skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.mix = nn.Conv2d(16, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        wide = self.first(x)
        deep = torch.relu(self.second(self.pool(wide)))
        mixed = self.mix(torch.cat([self.up(deep), wide], 1))
        return functional.interpolate(self.out(mixed), scale_factor=2.0, mode="bilinear", align_corners=False)


class Shuffled(nn.Module):
    """Grouped convolution, channel shuffle, squeeze-and-excitation, depthwise convolution and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.grouped = nn.Conv2d(16, 16, 1, groups=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.squeeze = nn.Conv2d(16, 4, 1)
        self.excite = nn.Conv2d(4, 16, 1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = functional.hardswish(self.stem(x))
        n, c, h, w = x.shape
        y = self.grouped(x).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = self.depthwise(functional.relu6(y))
        weight = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        x = x + y * weight
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def vision_transformer() -> nn.Module:
    """Torchvision's own, small; its head starts as zeros, which would show nothing."""
    from torchvision.models import VisionTransformer

    made = VisionTransformer(16, 8, 1, 4, 32, 64, num_classes=10)
    nn.init.normal_(made.heads.head.weight)
    return made


def resnet() -> nn.Module:
    """Torchvision's own blocks, narrow, with norms that do something."""
    from torchvision.models.resnet import BasicBlock

    wide = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
    made = nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        BasicBlock(16, 16), BasicBlock(16, 32, 2, wide), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return made


NETS = {
    "resnet": (resnet, (2, 3, 32, 32)),
    "shuffled": (Shuffled, (2, 3, 16, 16)),
    "unet": (UNet, (2, 3, 16, 16)),
    "vit": (vision_transformer, (2, 3, 16, 16)),
    "tokens": (Tokens, (2, 12)),
}
WAYS = ("new", "old", "fixed")


def example(name: str) -> torch.Tensor:
    """A batch for one of NETS."""
    shape = NETS[name][1]
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randint(0, 40, shape, generator=generator)
        if name == "tokens"
        else torch.randn(shape, generator=generator)
    )
