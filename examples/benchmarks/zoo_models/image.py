"""Networks on images and volumes, written out here as people write their own."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from zoo_models.entry import Entry


def conv_bn(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), act())


class UNet(nn.Module):
    """Contracting and expanding path, skips joined by cat."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256), classes: int = 4) -> None:
        super().__init__()
        self.down = nn.ModuleList(self.double(a, b) for a, b in pairwise((3, *widths)))
        backwards = widths[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(backwards))
        self.join = nn.ModuleList(self.double(2 * b, b) for b in backwards[1:])
        self.head = nn.Conv2d(widths[0], classes, 1)

    @staticmethod
    def double(c_in: int, c_out: int) -> nn.Sequential:
        return nn.Sequential(conv_bn(c_in, c_out), conv_bn(c_out, c_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for stage in self.down:
            x = stage(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


class SuperResolution(nn.Module):
    """Residual blocks without norms, a long skip, and pixel shuffle (the shape of EDSR)."""

    def __init__(self, width: int = 64, blocks: int = 4, scale: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.grow = nn.Conv2d(width, width * scale * scale, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = first = self.first(x)
        for block in self.blocks:
            x = x + 0.1 * block(x)
        return self.last(self.shuffle(self.grow(x + first)))


class C2f(nn.Module):
    """Split in two, a chain of blocks on the second half, all of them joined."""

    def __init__(self, c_in: int, c_out: int, blocks: int = 1) -> None:
        super().__init__()
        self.hidden = c_out // 2
        self.first = conv_bn(c_in, 2 * self.hidden, 1, act=nn.SiLU)
        self.last = conv_bn((2 + blocks) * self.hidden, c_out, 1, act=nn.SiLU)
        pairs = (
            (conv_bn(self.hidden, self.hidden, act=nn.SiLU), conv_bn(self.hidden, self.hidden, act=nn.SiLU))
            for _ in range(blocks)
        )
        self.blocks = nn.ModuleList(nn.Sequential(*pair) for pair in pairs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Pyramid(nn.Module):
    """Pooling at several sizes in a row, joined (SPPF)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = conv_bn(width, width // 2, 1), conv_bn(2 * width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.last(torch.cat(parts, 1))


class SmallYolo(nn.Module):
    """A YOLO of today in small: C2f stages, top-down path, two heads over two levels."""

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        act = nn.SiLU
        self.stem = nn.Sequential(conv_bn(3, 16, 3, 2, act), conv_bn(16, 32, 3, 2, act), C2f(32, 32))
        self.stage3 = nn.Sequential(conv_bn(32, 64, 3, 2, act), C2f(64, 64, 2))
        self.stage4 = nn.Sequential(conv_bn(64, 128, 3, 2, act), C2f(128, 128, 2), Pyramid(128))
        self.up = nn.Upsample(scale_factor=2)
        self.join3 = C2f(192, 64)
        self.down = conv_bn(64, 64, 3, 2, act)
        self.join4 = C2f(192, 128)
        self.boxes = nn.ModuleList(nn.Sequential(conv_bn(c, 64, act=act), nn.Conv2d(64, 64, 1)) for c in (64, 128))
        self.kinds = nn.ModuleList(nn.Sequential(conv_bn(c, 64, act=act), nn.Conv2d(64, classes, 1)) for c in (64, 128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three = self.stage3(self.stem(x))
        four = self.stage4(three)
        three = self.join3(torch.cat([self.up(four), three], 1))
        four = self.join4(torch.cat([self.down(three), four], 1))
        levels = [
            torch.cat([boxes(level), kinds(level)], 1).flatten(2)
            for boxes, kinds, level in zip(self.boxes, self.kinds, (three, four), strict=True)
        ]
        return torch.cat(levels, 2)


class TimeBlock(nn.Module):
    """A residual block with GroupNorm that a vector of time shifts."""

    def __init__(self, c_in: int, c_out: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(time, c_out)
        self.norm2, self.conv2 = nn.GroupNorm(8, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.short = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.short(x) + self.conv2(F.silu(self.norm2(y)))


class SpaceAttention(nn.Module):
    """Attention over positions; queries, keys and values of 1x1 convolutions."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = nn.GroupNorm(8, width), nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b * self.heads, 3, c // self.heads, h * w).unbind(1)
        weights = (q.transpose(1, 2) @ k / math.sqrt(c // self.heads)).softmax(-1)
        return x + self.out((v @ weights.transpose(1, 2)).reshape(b, c, h, w))


class DiffusionUNet(nn.Module):
    """Two levels, embedded time steps, attention at the bottom, skips joined by cat."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width, time = width, 4 * width
        self.embed = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down1, self.shrink = TimeBlock(width, width, time), nn.Conv2d(width, width, 3, 2, 1)
        self.down2 = TimeBlock(width, 2 * width, time)
        self.middle1, self.look = TimeBlock(2 * width, 2 * width, time), SpaceAttention(2 * width)
        self.middle2 = TimeBlock(2 * width, 2 * width, time)
        self.up2, self.grow = TimeBlock(4 * width, 2 * width, time), nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up1 = TimeBlock(3 * width, width, time)
        self.norm, self.last = nn.GroupNorm(8, width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        pace = torch.exp(torch.arange(self.width // 2, device=x.device) * (-math.log(1e4) / (self.width // 2)))
        angles = steps[:, None].to(x.dtype) * pace.to(x.dtype)
        time = self.embed(torch.cat([angles.sin(), angles.cos()], 1))
        one = self.down1(self.first(x), time)
        two = self.down2(self.shrink(one), time)
        y = self.middle2(self.look(self.middle1(two, time)), time)
        y = self.up2(torch.cat([y, two], 1), time)
        y = self.grow(F.interpolate(y, scale_factor=2.0))
        return self.last(F.silu(self.norm(self.up1(torch.cat([y, one], 1), time))))


def autoencoder() -> nn.Module:
    """Convolutions down to a vector of 64 and transposed ones back."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 64 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)),
        nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1),
        nn.Sigmoid(),
    )  # fmt: skip


def volumes() -> nn.Module:
    """3-D convolutions with InstanceNorm, as for medical images."""
    layers: list[nn.Module] = []
    for before, after in pairwise((1, 32, 64, 128)):
        layers += [nn.Conv3d(before, after, 3, 2, 1), nn.InstanceNorm3d(after, affine=True), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(128, 5))


class TwoInputs(nn.Module):
    """An image and a row of a table, joined late."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(conv_bn(3, 32, 3, 2), conv_bn(32, 64, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.table = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 7))

    def forward(self, picture: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.image(picture), self.table(table)], 1))


class Branching(nn.Module):
    """Values decide which branch runs: no tracer that only sees shapes can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 32, 3, 2), conv_bn(32, 64, 3, 2))
        self.light, self.heavy = conv_bn(64, 64, 1), nn.Sequential(conv_bn(64, 96), conv_bn(96, 64))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.light(x) if float(x.mean()) > 1e6 else self.heavy(x))


class FaceNet(nn.Module):
    """The shape of MTCNN's second and third networks: channels run fastest when the map is flattened."""

    def __init__(self, widths: tuple[int, ...], kernels: tuple[int, ...], positions: int, hidden: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for at, ((before, after), kernel) in enumerate(zip(pairwise((3, *widths)), kernels, strict=True)):
            layers += [nn.Conv2d(before, after, kernel), nn.PReLU(after)]
            layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] if at < 2 else []
        self.layers = nn.Sequential(*layers)
        self.dense, self.act = nn.Linear(widths[-1] * positions, hidden), nn.PReLU(hidden)
        self.face, self.box = nn.Linear(hidden, 2), nn.Linear(hidden, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.layers(x).permute(0, 3, 2, 1).contiguous()
        x = self.act(self.dense(x.view(x.shape[0], -1)))
        return self.box(x), self.face(x).softmax(1)


class Proposals(nn.Module):
    """The shape of MTCNN's first network: convolutions only, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 10, 3), nn.PReLU(10), nn.MaxPool2d(2, 2, ceil_mode=True), nn.Conv2d(10, 16, 3), nn.PReLU(16),
            nn.Conv2d(16, 32, 3), nn.PReLU(32),
        )  # fmt: skip
        self.face, self.box = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.layers(x)
        return self.box(x), self.face(x).softmax(1)


ENTRIES = {
    "unet": Entry("cnn", UNet, ("1,3,128,128",)),
    "super_resolution": Entry("cnn", SuperResolution, ("1,3,48,48",)),
    "yolo_c2f": Entry("cnn", SmallYolo, ("1,3,160,160",)),
    "diffusion_unet": Entry("other", DiffusionUNet, ("1,3,32,32", "1:int64")),
    "autoencoder": Entry("cnn", autoencoder),
    "volumes": Entry("cnn", volumes),
    "two_inputs": Entry("cnn", TwoInputs, ("1,3,64,64", "1,12")),
    "data_dependent_branch": Entry("cnn", Branching),
    "face_pnet": Entry("cnn", Proposals),
    "face_rnet": Entry("cnn", lambda: FaceNet((28, 48, 64), (3, 3, 2), 9, 128), ("1,3,24,24",)),
    "face_onet": Entry("cnn", lambda: FaceNet((32, 64, 64), (3, 3, 3), 64, 256), ("1,3,48,48",)),
}
