"""Inputs that the first layers of a module would take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from peelcli.inputtext import InputSpec, Spec

IMAGES = (224, 32, 28, 64, 96, 128, 299, 256, 384, 512, 48, 16, 8)
_SIGNALS = (1024, 128, 256, 512, 4096, 16000, 64, 32, 16)
_VOLUMES = ((16, 112, 112), (16, 224, 224), (32, 32, 32), (64, 64, 64), (8, 56, 56), (16, 16, 16), (8, 8, 8))
TOKENS = (16, 77, 128, 512)
_FIRST_LAYERS = 3  # layers are listed as they were defined, not as they run: try more than the first


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One input for one argument, without its name, and what it was taken from."""

    spec: Spec
    origin: str


def by_layer(module: nn.Module) -> list[list[Suggestion]]:
    """For each of the first layers that differ in what they take, the inputs that would suit it."""
    found: dict[tuple[InputSpec, ...], list[Suggestion]] = {}
    for name, layer in module.named_modules():
        suited = tuple(_suited(layer))
        if suited and suited not in found:
            origin = f"the layer {name or type(layer).__name__}"
            found[suited] = [Suggestion(spec, origin) for spec in suited]
        if len(found) == _FIRST_LAYERS:
            break
    return list(found.values())


def _suited(layer: nn.Module) -> Iterator[InputSpec]:
    match layer:
        case nn.Conv1d():
            yield from (InputSpec((1, layer.in_channels, length)) for length in _SIGNALS)
            if layer.in_channels == 1:  # a waveform to which forward adds the channel
                yield InputSpec((1, 16000))
        case nn.Conv2d():
            yield from (InputSpec((1, layer.in_channels, size, size)) for size in IMAGES)
        case nn.Conv3d():
            yield from (InputSpec((1, layer.in_channels, *size)) for size in _VOLUMES)
        case nn.Linear():
            yield from (InputSpec(shape) for shape in ((1, layer.in_features), (1, 16, layer.in_features)))
        case nn.RNNBase():
            yield InputSpec((1, 16, layer.input_size))
        case nn.Embedding():
            yield from (InputSpec((1, length), None, "int64", 0, layer.num_embeddings) for length in TOKENS)


def tables(module: nn.Module) -> list[int]:
    """How many entries the embeddings of a module have, in the order of definition."""
    return [layer.num_embeddings for layer in module.modules() if isinstance(layer, nn.Embedding)]
