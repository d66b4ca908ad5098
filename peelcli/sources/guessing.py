"""Which inputs are worth a try: what the model says of itself, then its first layer's channels at usual sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from torch import nn

_IMAGES = (224, 32, 28, 64, 96, 128, 299, 256, 384, 512, 48, 16, 8)
_SIGNALS = (1024, 128, 256, 512, 4096, 16000, 64, 32, 16)
_VOLUMES = ((16, 112, 112), (16, 224, 224), (32, 32, 32), (64, 64, 64), (8, 56, 56), (16, 16, 16), (8, 8, 8))
_TOKENS = (16, 77, 128, 512)
_FIRST_LAYERS = 3  # layers are listed as they were defined, not as they run: try more than the first


@dataclass(frozen=True, slots=True)
class Candidate:
    """One input to try, the batch first; dtype None is the model's own."""

    shape: tuple[int, ...]
    origin: str
    dtype: str | None = None


def candidates(module: nn.Module) -> Iterator[Candidate]:
    """Inputs in the order in which they should be tried."""
    yield from _timm(module)
    yield from _transformers(module)
    yield from _first_layers(module)


def _timm(module: nn.Module) -> Iterator[Candidate]:
    for name in ("pretrained_cfg", "default_cfg"):
        settings = getattr(module, name, None)
        size = settings.get("input_size") if isinstance(settings, dict) else getattr(settings, "input_size", None)
        if _is_shape(size):
            yield Candidate((1, *size), f"timm's {name}")


def _transformers(module: nn.Module) -> Iterator[Candidate]:
    config = getattr(module, "config", None)
    if not hasattr(config, "model_type"):
        return
    if getattr(module, "main_input_name", "") == "input_ids":
        yield from (Candidate((1, length), "transformers' config", "int64") for length in _TOKENS)
        return
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    if isinstance(size, int):
        size = (size, size)
    if _is_shape(size) and isinstance(channels, int):
        yield Candidate((1, channels, *size), "transformers' config")


def _is_shape(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, Sequence) and len(value) > 0 and all(isinstance(size, int) and size > 0 for size in value)


def _first_layers(module: nn.Module) -> Iterator[Candidate]:
    seen = set()
    for name, layer in module.named_modules():
        shapes = tuple(_shapes(layer))
        if not shapes or shapes in seen:
            continue
        seen.add(shapes)
        dtype = "int64" if isinstance(layer, nn.Embedding) else None
        yield from (Candidate(shape, f"the layer {name or type(layer).__name__}", dtype) for shape in shapes)
        if len(seen) == _FIRST_LAYERS:
            return


def _shapes(layer: nn.Module) -> Iterator[tuple[int, ...]]:
    """Inputs that would suit a layer if it were the first."""
    match layer:
        case nn.Conv1d():
            yield from ((1, layer.in_channels, length) for length in _SIGNALS)
        case nn.Conv2d():
            yield from ((1, layer.in_channels, size, size) for size in _IMAGES)
        case nn.Conv3d():
            yield from ((1, layer.in_channels, *size) for size in _VOLUMES)
        case nn.Linear():
            yield from ((1, layer.in_features), (1, 16, layer.in_features))
        case nn.RNNBase():
            yield (1, 16, layer.input_size)
        case nn.Embedding():
            yield from ((1, length) for length in _TOKENS)
