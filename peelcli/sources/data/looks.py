"""How a model wants its pictures: size, channels, mean and deviation, as its config, the flags or its input say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from peelcli.config import Calibration
from peelcli.errors import InputError, UsageError
from peelcli.records import Subject
from peelcli.tensors import is_list_of_samples, tensors_in

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5,), (0.5,))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_BARE = ((0.0,), (1.0,))
# What the image processors of transformers have by default; a config seldom says it. Others have ImageNet's.
_BY_TYPE = {
    **dict.fromkeys(("vit", "beit", "data2vec-vision", "siglip", "siglip_vision_model"), _HALF),
    **dict.fromkeys(("mobilenet_v1", "mobilenet_v2"), _HALF),
    **dict.fromkeys(("clip", "clip_vision_model", "chinese_clip", "altclip"), _CLIP),
    **dict.fromkeys(("mobilevit", "mobilevitv2"), _BARE),
}
_SHARE = 0.875  # of the resized picture that the crop leaves: 224 of 256
# Resized without a crop, and squeezed where their sides differ: (share, filter, squash), also of those processors.
_Frame = tuple[float, str, bool]
_SQUEEZED: _Frame = (1.0, "bilinear", True)
_UNCUT: _Frame = (1.0, "bicubic", False)
_FRAMES: dict[str, _Frame] = {
    **dict.fromkeys(("vit", "vit_mae", "vit_msn", "swin", "swinv2", "segformer"), _SQUEEZED),
    **dict.fromkeys(
        ("beit", "data2vec-vision", "siglip", "siglip_vision_model", "pvt", "efficientnet"), (1.0, "bicubic", True)
    ),
    **dict.fromkeys(("clip", "clip_vision_model", "chinese_clip", "altclip", "levit"), _UNCUT),
}
_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

_BY_CONFIG = "as the model's config says"

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What is done to a picture.

    Attributes:
        place: which of the tensors in the model's example input, in order, the picture takes the place of.
        height: in pixels, after the crop.
        width: the same.
        channels: 1 for gray, 3 for RGB, 4 for RGBA.
        mean: of each channel in 0..1, taken off.
        std: by which each channel is divided then.
        share: of the resized picture that the centre crop leaves.
        filter: of the resize, as Pillow calls it.
        squash: whether the picture is resized to the size without keeping its sides' ratio.
        last: whether channels are the last dimension.
        notes: what was assumed.
    """

    place: int
    height: int
    width: int
    channels: int
    mean: Numbers
    std: Numbers
    share: float = _SHARE
    filter: str = "bilinear"
    squash: bool = False
    last: bool = False
    notes: tuple[str, ...] = ()


def look(subject: Subject, options: Calibration) -> Look:
    """How pictures are brought to a model.

    Flags come first, then the model's own config, then ImageNet's numbers. The size is that of the example input,
    which was the config's unless the user said otherwise.

    Raises:
        InputError: the model takes no pictures.
        UsageError: --mean or --std don't have a number for each channel.
    """
    place, shape = _picture(subject)
    last = shape[0] not in (1, 3, 4) and shape[-1] in (1, 3, 4)
    channels, height, width = (shape[-1], *shape[:2]) if last else shape
    if channels not in (1, 3, 4):
        raise InputError(
            f"{subject.name} takes {channels} channels, and images have 1, 3 or 4",
            hint="give the samples as .npy, or from a function: --data file.py:function",
        )
    config = _config(subject.module)
    side = options.image_size
    resized = side is not None and (side, side) != (height, width)
    height, width = (side, side) if side is not None else (height, width)
    usual = _IMAGENET if channels > 1 else _BARE
    mean = _for_channels(options.mean, channels, "--mean") or _fitted(config.mean or usual[0], channels, 0.0)
    std = _for_channels(options.std, channels, "--std") or _fitted(config.std or usual[1], channels, 1.0)
    notes = [] if not resized else [f"images are brought to {side}x{side}, as --image-size says"]
    told = [f"mean {_text(mean)}"] * (options.mean is None) + [f"std {_text(std)}"] * (options.std is None)
    if told:
        origin = config.origin or ("as for ImageNet" if channels > 1 else "as they are, in 0..1")
        advice = "" if config.sure else "; give --mean and --std if the model was trained with others"
        notes.append(f"images are normalised with {' and '.join(told)}, {origin}{advice}")
    if not resized:
        notes.append(f"images are brought to {height}x{width}{config.how}, which is what the model takes")
    return Look(
        place, height, width, channels, mean, std, config.share, config.filter, config.squash, last, tuple(notes)
    )


def _picture(subject: Subject) -> tuple[int, tuple[int, int, int]]:
    """Where the first picture is among the tensors of the example, and its shape without the batch."""
    listed = next((value[0] for value in subject.inputs if is_list_of_samples(value)), None)
    for place, tensor in enumerate(tensors_in(subject.inputs)):
        shape = tuple(tensor.shape) if tensor is listed else tuple(tensor.shape[1:])
        if tensor.is_floating_point() and len(shape) == 3:
            return place, (shape[0], shape[1], shape[2])
    shapes = " and ".join("x".join(map(str, t.shape)) for t in tensors_in(subject.inputs))
    raise InputError(
        f"{subject.name} takes {shapes}, which is no image",
        hint="give the samples as .npy or .npz, or from a function: --data file.py:function",
    )


@dataclass(frozen=True, slots=True)
class _Config:
    mean: Numbers = ()
    std: Numbers = ()
    share: float = _SHARE
    filter: str = "bilinear"
    squash: bool = False
    origin: str = ""  # in words
    sure: bool = False  # whether the model itself says it

    @property
    def how(self) -> str:
        """What is done beside the usual crop."""
        return " whole, whatever the ratio of their sides" if self.squash else ""


def _config(module: Any) -> _Config:
    """What timm or transformers keep with a model; nothing where it is neither's."""
    for name in ("pretrained_cfg", "default_cfg"):
        timm = getattr(module, name, None)
        if isinstance(timm, Mapping) and _numbers(timm.get("mean")):
            share, kind = timm.get("crop_pct"), str(timm.get("interpolation"))
            return _Config(
                _numbers(timm.get("mean")),
                _numbers(timm.get("std")),
                float(share) if isinstance(share, (int, float)) and 0 < share <= 1 else _SHARE,
                kind if kind in _FILTERS else "bilinear",
                timm.get("crop_mode") == "squash",
                _BY_CONFIG,
                sure=True,
            )
    config = getattr(module, "config", None)
    family = getattr(config, "model_type", None)
    if not isinstance(family, str):
        return _Config()
    mean, std = _BY_TYPE.get(family, ((), ()))
    own = _numbers(getattr(config, "image_mean", None)), _numbers(getattr(config, "image_std", None))
    share, kind, squash = _FRAMES.get(family, (_SHARE, "bilinear", False))
    if all(own):
        return _Config(*own, share, kind, squash, _BY_CONFIG, sure=True)
    return _Config(mean, std, share, kind, squash, f"as is usual for {family}" if mean else "")


def _numbers(value: Any) -> Numbers:
    if not isinstance(value, (list, tuple)) or not all(isinstance(n, (int, float)) for n in value):
        return ()
    return tuple(float(n) for n in value)


def _for_channels(given: Numbers | None, channels: int, flag: str) -> Numbers | None:
    """What the user said: one number, or one for each channel."""
    if given is None or len(given) in (1, channels):
        return given * channels if given is not None and len(given) == 1 else given
    raise UsageError(
        f"{flag} {_text(given)}: {len(given)} numbers for {channels} channels", hint=f"give {channels} numbers, or one"
    )


def _fitted(numbers: Numbers, channels: int, alpha: float) -> Numbers:
    """Numbers for RGB where a model takes gray (their mean), or has an alpha channel too (left as it is)."""
    if len(numbers) == channels:
        return numbers
    if len(numbers) == 3 and channels == 4:
        return (*numbers, alpha)
    return (math.fsum(numbers) / len(numbers),) * channels


def _text(numbers: Numbers) -> str:
    return ",".join(f"{number:.4g}" for number in numbers)


def example_of(subject: Subject, picture: Tensor, place: int) -> tuple[Any, ...]:
    """The arguments of the example with a picture in its place; the others stay, cut to one sample.

    Args:
        subject: its example is not changed.
        picture: shape (1, channels, height, width), or channels last.
        place: see `Look`.
    """
    wanted = tensors_in(subject.inputs)[place]
    batch = len(wanted)

    def placed(value: Any) -> Any:
        if is_list_of_samples(value):
            return [picture[0]] if any(t is wanted for t in value) else value[:1]
        if isinstance(value, Tensor):
            return picture if value is wanted else value[:1] if value.dim() and len(value) == batch else value
        if isinstance(value, Mapping):
            return {key: placed(inner) for key, inner in value.items()}
        if type(value) in (list, tuple):
            return type(value)(placed(inner) for inner in value)
        return value

    return tuple(placed(value) for value in subject.inputs)
