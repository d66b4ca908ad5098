"""What an argument takes, by its name and annotation: `timesteps`, `input_ids`, `images: list[Tensor]`, ..."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from peelcli.inputtext import InputSpec, Literal, Nest, Spec
from peelcli.sources import firstlayers
from peelcli.sources.firstlayers import IMAGES, TOKENS, Suggestion

_STEPS = 1000  # of the usual noise schedules
_SAMPLES = 16000  # one second at the usual rate
_LATENT = (32, 64, 16, 8)  # sides of what is denoised
_WIDTHS = 4  # that are tried for a context
_LISTED = re.compile(r"(?:[Ll]ist|Sequence|Iterable)\[.*Tensor", re.DOTALL)
_CONTEXT_LAYER = re.compile(r"(?:to_k|to_v|k_proj|v_proj|kv|key|value|context\w*)$")


@dataclass(frozen=True, slots=True)
class _Model:
    """What the conventions need to know of a module: its first layers; are there arguments for a time, for an image."""

    module: nn.Module
    layers: list[list[Suggestion]]
    diffuses: bool
    sees: bool

    def vocabulary(self) -> int:
        return next(iter(firstlayers.tables(self.module)), 2)

    def channels(self, kind: type[nn.Module], usual: int) -> int:
        """Of the first convolution of this kind."""
        first = next((layer for layer in self.module.modules() if isinstance(layer, kind)), None)
        return int(getattr(first, "in_channels", usual))


def alternatives(module: nn.Module, wanted: Sequence[inspect.Parameter | None]) -> list[list[Suggestion]]:
    """For each argument the inputs to try, the likeliest first; None stands for an argument without a name."""
    names = [parameter.name if parameter is not None else "" for parameter in wanted]
    diffuses, sees = (any(words.fullmatch(name) for name in names) for words in (_TIME, _IMAGE))
    model = _Model(module, firstlayers.by_layer(module), diffuses, sees)
    unknown = 0
    found: list[list[Suggestion]] = []
    for name, parameter in zip(names, wanted, strict=True):
        first = [*_by_annotation(parameter, model), *_by_name(name, model)]
        last = list(_lists(model)) if _IMAGE.fullmatch(name) else []
        sure = [Suggestion(spec, f"the argument {name}") for spec in first]
        late = [Suggestion(spec, f"the argument {name}") for spec in last]
        found.append(_distinct([*sure, *_by_layers(name, unknown, model), *late]))
        unknown += not first and not _IMAGE.fullmatch(name)
    return found


def _distinct(suggestions: Sequence[Suggestion]) -> list[Suggestion]:
    first: dict[str, Suggestion] = {}
    for suggestion in suggestions:
        first.setdefault(str(suggestion.spec), suggestion)
    return list(first.values())


def _by_layers(name: str, place: int, model: _Model) -> list[Suggestion]:
    """What the first layers take; the second unknown argument begins with the second layer, and so on."""
    turn = place % len(model.layers) if model.layers and not _IMAGE.fullmatch(name) else 0
    found = [suggestion for layer in (*model.layers[turn:], *model.layers[:turn]) for suggestion in layer]
    if model.sees:  # the image is the argument that is called so, the others are likely none
        is_image = _IMAGE.fullmatch(name) is not None
        found.sort(key=lambda s: (len(_shape(s)) == 4) != is_image)
    if _SEQUENCE.fullmatch(name):  # of two dimensions the first may be taken for the time
        found.sort(key=lambda s: len(_shape(s)) != 3)
    if model.diffuses:
        found.sort(key=lambda s: _LATENT.index(_shape(s)[-1]) if _is_latent(s) else len(_LATENT))
    return found


def _shape(suggestion: Suggestion) -> tuple[int, ...]:
    return suggestion.spec.shape if isinstance(suggestion.spec, InputSpec) else ()


def _is_latent(suggestion: Suggestion) -> bool:
    shape = _shape(suggestion)
    return len(shape) == 4 and shape[-1] in _LATENT


def _by_annotation(parameter: inspect.Parameter | None, model: _Model) -> Iterator[Spec]:
    if parameter is None or parameter.annotation is parameter.empty:
        return
    kind = parameter.annotation if isinstance(parameter.annotation, type) else str(parameter.annotation)
    told = kind.__name__ if isinstance(kind, type) and not getattr(kind, "__args__", ()) else str(parameter.annotation)
    constants: dict[str, Spec] = {"bool": Literal(False), "int": Literal(1), "float": Literal(1.0)}
    if told in constants:
        yield constants[told]
    elif _LISTED.search(told):
        yield from _lists(model)


def _lists(model: _Model) -> Iterator[Spec]:
    """Images one by one, as detectors take them: each of shape (channels, height, width)."""
    channels = model.channels(nn.Conv2d, 3)
    for size in (*IMAGES[:1], 320, *IMAGES[1:4]):
        yield Nest(list, (InputSpec((channels, size, size)),))


def _by_name(name: str, model: _Model) -> Iterator[Spec]:
    for pattern, suited in _CONVENTIONS:
        if pattern.fullmatch(name):
            yield from suited(model)
            return


# --- the conventions --------------------------------------------------------------------------------------------------


def _tokens(model: _Model) -> Iterator[Spec]:
    if firstlayers.tables(model.module):
        yield from (InputSpec((1, length), None, "int64", 0, model.vocabulary()) for length in TOKENS)


def _masks(_: _Model) -> Iterator[Spec]:
    for dtype in ("int64", "bool"):
        yield InputSpec((1, TOKENS[0]), None, dtype, 1, 2)
    yield Literal(None)


def _types(_: _Model) -> Iterator[Spec]:
    yield InputSpec((1, TOKENS[0]), None, "int64", 0, 1)


def _positions(_: _Model) -> Iterator[Spec]:
    yield InputSpec((1, TOKENS[0]), None, "int64", 0, TOKENS[0])


def _times(_: _Model) -> Iterator[Spec]:
    yield InputSpec((1,), None, "int64", 0, _STEPS)
    yield InputSpec((1,))
    yield InputSpec((1, 1))
    yield InputSpec((), None, "int64", 0, _STEPS)


def _lengths(_: _Model) -> Iterator[Spec]:
    yield InputSpec((1,), None, "int64", TOKENS[0], TOKENS[0] + 1)


def _labels(model: _Model) -> Iterator[Spec]:
    tables = firstlayers.tables(model.module)
    yield InputSpec((1,), None, "int64", 0, min(tables, default=2))


def _contexts(model: _Model) -> Iterator[Spec]:
    named = [(name, layer) for name, layer in model.module.named_modules() if isinstance(layer, nn.Linear)]
    likely = [layer.in_features for name, layer in named if _CONTEXT_LAYER.search(name)]
    widths = dict.fromkeys([*reversed(likely), *(layer.in_features for _, layer in named)])
    yield from (InputSpec((1, TOKENS[0], width)) for width in list(widths)[:_WIDTHS])


def _waves(model: _Model) -> Iterator[Spec]:
    yield InputSpec((1, model.channels(nn.Conv1d, 1), _SAMPLES))
    yield InputSpec((1, _SAMPLES))


def _spectra(model: _Model) -> Iterator[Spec]:
    bins = model.channels(nn.Conv1d, 80)
    yield InputSpec((1, bins, 128))
    yield from (InputSpec(shape) for shape in ((1, 1, 128, 128), (1, 1, 64, 128), (1, 128, 80), (1, 80, 3000)))


def _clips(model: _Model) -> Iterator[Spec]:
    channels = model.channels(nn.Conv3d, model.channels(nn.Conv2d, 3))
    for frames, size in ((16, 112), (16, 224), (8, 224)):
        yield InputSpec((1, channels, frames, size, size))
        yield InputSpec((1, frames, channels, size, size))


def _convention(
    words: str, suited: Callable[[_Model], Iterator[Spec]]
) -> tuple[re.Pattern[str], Callable[..., Iterator[Spec]]]:
    return re.compile(words, re.IGNORECASE), suited


_TIME = re.compile(r"t|ts|timesteps?|time_?steps?|times?|sigmas?|noise_levels?|noise_labels|gammas?", re.IGNORECASE)
_IMAGE = re.compile(r"x\d*|\w*(?:img|image|picture|photo|frame)s?\d*|pixel_values|inputs?|batch|sample", re.IGNORECASE)
_SEQUENCE = re.compile(r"src|tgt|seq(?:uence)?s?|tokens|hidden_states|queries|query|keys?|values?", re.IGNORECASE)
_CONVENTIONS = (
    (_TIME, _times),
    _convention(r"\w*mask\w*", _masks),
    _convention(r"token_type_ids|segment\w*", _types),
    _convention(r"position_ids|positions?", _positions),
    _convention(r"\w*(?:lengths?|lens?)", _lengths),
    _convention(r"\w*ids?|\w*tokens?|src|tgt|texts?|words?|idxs?|indices|sentences?|captions?", _tokens),
    _convention(r"y|labels?|class_labels?|class(?:es)?|targets?", _labels),
    _convention(r"encoder_hidden_states|contexts?|cond(?:itioning)?|memory|prompt_embeds?", _contexts),
    _convention(r"audios?|wave(?:form)?s?|wavs?|signals?|speech|input_values|raw_\w*", _waves),
    _convention(r"mels?|\w*spec(?:trogram)?s?|input_features|fbanks?", _spectra),
    _convention(r"videos?|clips?|pixel_values_videos", _clips),
)
