"""The calls that a transformers model takes, by its config, its main input and forward's signature."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from peelcli.inputtext import InputSpec, Literal, Spec
from peelcli.sources import signature
from peelcli.sources.specs import spec_of

_TOKENS = (16, 64, 128, 512)
_SIZES = (224, 256, 384, 512, 64, 32)  # of images, where the config tells none or its own does not fit
_FRAMES = 128  # of sound, where the config asks for no number
_SAMPLES = 16000  # of sound, one second at the usual rate
_DEEP = 3  # configs in configs
_TRIES = 12  # of one set of arguments
_MODALITIES = ("input_ids", "pixel_values", "input_features", "input_values", "pixel_values_videos")


def calls(module: nn.Module) -> Iterator[tuple[Spec, ...]]:
    """Named inputs to try, the likeliest first; nothing where the module has no config as transformers writes it."""
    if not hasattr(getattr(module, "config", None), "model_type"):
        return
    maker = _Maker(module)
    taken = {parameter.name for parameter in signature.positional(module) or ()}
    # What was computed for the next call is no output worth a proof, and the ONNX exporter has no type for it.
    constants = (Literal(False, "use_cache"),) if "use_cache" in taken else ()
    for names in dict.fromkeys(_sets(module, maker)):
        choices = [[_renamed(spec, name) for spec in maker.suited(name)] for name in names]
        if names and all(choices):
            ranked = sorted(itertools.islice(itertools.product(*(range(len(c)) for c in choices)), 1000), key=sum)
            for picked in ranked[:_TRIES]:
                told = tuple(choice[at] for choice, at in zip(choices, picked, strict=True))
                yield from dict.fromkeys(
                    [(*told, *constants), told]
                )  # some wrap forward, and give it by name themselves
    yield from _dummies(module)


def _renamed(spec: Spec, name: str) -> Spec:
    assert isinstance(spec, InputSpec)
    return InputSpec(spec.shape, name, spec.dtype, spec.low, spec.high)


def _sets(module: nn.Module, maker: _Maker) -> Iterator[tuple[str, ...]]:
    """Which arguments to give together: as few as may do."""
    taken = [parameter.name for parameter in signature.positional(module) or ()]
    main = getattr(module, "main_input_name", "")
    main = main if main in taken else next(iter(taken), "")
    needed = [parameter.name for parameter in signature.required(module)]

    def together(*names: str) -> tuple[str, ...]:
        return tuple(name for name in taken if name in {*names, *needed})

    modalities = [name for name in _MODALITIES if name in taken]
    if maker.is_multimodal() and len(modalities) > 1:
        yield together(*modalities)
    if maker.find("is_encoder_decoder"):
        decoders = [name for name in ("decoder_input_ids", "decoder_input_values") if name in taken]
        yield from (together(main, name) for name in decoders)
    yield together(main)
    yield together(main, "attention_mask")
    yield together(main, "bbox")
    yield together(main, "bbox", "pixel_values")
    yield from (together(name) for name in modalities)


def _dummies(module: nn.Module) -> Iterator[tuple[Spec, ...]]:
    """What the model itself keeps for such a purpose."""
    try:
        dummies = dict(getattr(module, "dummy_inputs", None) or {})
        specs = {name: spec_of(value) for name, value in dummies.items()}
    except Exception:  # it is a property that models override: it may raise anything
        return
    taken = {parameter.name for parameter in signature.positional(module) or ()}
    made = (
        InputSpec(spec.shape, name, spec.dtype, spec.low, spec.high) if isinstance(spec, InputSpec) else spec
        for name, spec in specs.items()
        if name in taken and isinstance(spec, (InputSpec, Literal))
    )
    found = tuple(spec for spec in made if spec.name)
    if found:
        yield found


class _Maker:
    """Inputs by argument name, with the sizes that the config tells."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._configs = list(_levels(getattr(module, "config", None)))

    def find(self, *keys: str) -> Any:
        """The first of these settings that is there, in the config and then in the configs inside it."""
        for config in self._configs:
            for key in keys:
                value = getattr(config, key, None)
                if value is not None:
                    return value
        return None

    def whole(self, usual: int, *keys: str) -> int:
        """The same, a positive whole number."""
        value = self.find(*keys)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else usual

    def is_multimodal(self) -> bool:
        """Whether a tower for text stands beside one for pictures or sound."""
        config = self._configs[0]
        towers = ("vision_config", "audio_config", "video_config", "speech_config")
        return hasattr(config, "text_config") and any(hasattr(config, tower) for tower in towers)

    def suited(self, name: str) -> Sequence[InputSpec]:
        """The inputs to try for one argument, without its name; none where nothing is known of it."""
        if name in {"input_ids", "decoder_input_ids", "inputs"}:
            return self._tokens()
        if "mask" in name:
            return self._masks(name)
        if name == "token_type_ids":
            return [InputSpec((1, _TOKENS[0]), None, "int64", 0, 1)]
        if name == "bbox":  # boxes of no extent: any other has to have its corners in order
            return [InputSpec((1, _TOKENS[0], 4), None, "int64", 0, 1)]
        if name in {"pixel_values", "pixel_values_videos"}:
            return self._pixels()
        if name in {"input_values", "input_features", "decoder_input_values"}:
            return self._sound(name)
        if name.startswith(("past_", "future_")):
            return self._series(name)
        return []

    def _tokens(self) -> list[InputSpec]:
        """Indices; and some that hold the token which ends a text, once: heads on encoder-decoders look for it."""
        size, end = self._vocabulary(), self.whole(0, "eos_token_id")
        found = [InputSpec((1, length), None, "int64", 0, size) for length in _TOKENS]
        ended = [InputSpec(found[0].shape, None, "int64", end, size)] if 0 < end < size else []
        return [*found[:1], *ended, *found[1:]]

    def _vocabulary(self) -> int:
        """Every index below it is in the tables of the encoder and of the decoder."""
        told = self.whole(2, "vocab_size")
        get = getattr(self._module, "get_input_embeddings", None)
        try:
            table = get() if get is not None else None
        except Exception:  # models without any raise what they like
            table = None
        return min(told, table.num_embeddings) if isinstance(table, nn.Embedding) and told > 2 else told

    def _masks(self, name: str) -> list[InputSpec]:
        if name.startswith("past_"):
            return [InputSpec(spec.shape) for spec in self._series("past_values")]
        if name == "pixel_mask":
            return [InputSpec((1, *spec.shape[-2:]), None, "int64", 1, 2) for spec in self._pixels()]
        return [InputSpec((1, length), None, "int64", 1, 2) for length in _TOKENS[:1]]

    def _pixels(self) -> list[InputSpec]:
        channels = self.whole(3, "num_channels", "in_channels", "in_chans")
        sizes = [*_pair(self.find("image_size", "crop_size", "img_size")), *((size, size) for size in _SIZES)]
        frames = self.whole(0, "num_frames", "frames_per_clip")
        clips = [InputSpec((1, frames, channels, *size)) for size in sizes[:2] if frames]
        return [*clips, *(InputSpec((1, channels, *size)) for size in dict.fromkeys(sizes))]

    def _sound(self, name: str) -> list[InputSpec]:
        bins = self.whole(0, "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "n_mels")
        frames = 2 * self.whole(_FRAMES // 2, "max_source_positions")
        whole = self.whole(1024, "max_length")
        waves = [InputSpec(shape) for shape in ((1, _SAMPLES), (1, 1, _SAMPLES), (1, 1, 24000))]
        if name == "input_values":
            return [*([InputSpec((1, whole, bins))] if bins else []), *waves]
        if not bins:
            return waves if name == "input_features" else []
        return [InputSpec(s) for s in ((1, bins, frames), (1, _FRAMES, bins), (1, 1, 1001, bins), (1, bins, _FRAMES))]

    def _series(self, name: str) -> list[InputSpec]:
        """Shape (1, time[, channels]); the past reaches further back by the longest lag."""
        lags = self.find("lags_sequence")
        length = self.whole(32, "context_length") + (max(lags) if isinstance(lags, (list, tuple)) and lags else 0)
        length = self.whole(24, "prediction_length") if name.startswith("future_") else length
        if name.endswith("time_features"):
            return [InputSpec((1, length, self.whole(1, "num_time_features")))]
        channels = self.whole(1, "num_input_channels", "input_size")
        return [InputSpec((1, length, channels)), *([InputSpec((1, length))] if channels == 1 else [])]


def _levels(config: Any) -> Iterator[Any]:
    """A config, then those inside it, level by level."""
    level = [config]
    for _ in range(_DEEP):
        yield from level
        level = [
            c for outer in level for c in vars(outer).values() if hasattr(c, "model_type") and hasattr(c, "__dict__")
        ]


def _pair(size: Any) -> list[tuple[int, int]]:
    """An image size as configs write it, a number, two, or a dict: (height, width)."""
    if isinstance(size, dict):
        size = (size.get("height"), size.get("width"))
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else ()
    return [pair] if len(pair) == 2 and all(isinstance(side, int) and side > 0 for side in pair) else []
