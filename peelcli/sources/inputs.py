"""Example inputs: read from `--input`, made as tensors, brought by the user, guessed where none is given."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peelcli import inputtext
from peelcli.errors import InputError
from peelcli.inputtext import InputSpec, Literal, Nest, Spec, parse
from peelcli.records import Subject
from peelcli.sources import guessing, signature, trial, usercode
from peelcli.sources.specs import DTYPES, describe

__all__ = ["InputSpec", "Literal", "Nest", "Spec", "arrange", "describe", "flags", "guess", "make", "parse", "texts"]

_EMBEDDED = 2  # values of an index input where no embedding bounds them
_SECONDS = 20.0  # after which no further guess is tried
_PATIENCE = 3.0  # seconds for which even the same complaint again and again is listened to
_SAME = 8
_BY_FUNCTION = "--inputs "


def make(wanted: Sequence[Spec], module: nn.Module, seed: int = 0) -> tuple[Any, ...]:
    """Random inputs as they were asked for, in the order of forward's arguments.

    Args:
        wanted: named ones go to the argument of that name, the others to the arguments left, in order; paths such as
            `batch.image` and `images[0]` are put together to the dict or list that they spell.
        module: floating inputs get the type and device of its first floating parameter; index inputs of which nothing
            else is said stay below its smallest embedding.
        seed: decides every value.

    Returns:
        Positional arguments of one forward call; an argument skipped between two others has its default.

    Raises:
        InputError: a name that forward does not have, too many inputs, or too few.
    """
    generator = torch.Generator().manual_seed(seed)
    named: dict[str, Any] = {}
    given: list[Any] = []
    for spec in _gathered(wanted):
        value = _value(spec, module, generator)
        if spec.name is None:
            given.append(value)
        elif spec.name in named:
            raise InputError(f"the input {spec.name} is given twice", hint="give each input once")
        else:
            named[spec.name] = value
    return signature.ordered(module, given, named)


def _gathered(wanted: Iterable[Spec]) -> list[Spec]:
    """The same with all paths into one argument put together, where the first of them stood."""
    gathered: dict[object, Spec | list[tuple[tuple[str | int, ...], Spec]]] = {}
    for place, spec in enumerate(wanted):
        path = inputtext.steps(spec.name or "")
        if len(path) <= 1:
            gathered[place] = spec
            continue
        entry = gathered.setdefault(path[0], [])
        assert isinstance(entry, list)
        entry.append((path[1:], spec))
    return [
        _nested(entry, str(name), str(name)) if isinstance(entry, list) else entry for name, entry in gathered.items()
    ]


def _nested(entries: list[tuple[tuple[str | int, ...], Spec]], name: str | None, path: str) -> Spec:
    """One value out of the paths below it."""
    inside: dict[str | int, list[tuple[tuple[str | int, ...], Spec]]] = {}
    for steps, spec in entries:
        if not steps:
            if len(entries) > 1:
                raise InputError(f"the input {path} is given twice", hint="give each input once")
            return replace(spec, name=name)
        inside.setdefault(steps[0], []).append((steps[1:], spec))
    keys = list(inside)
    items = tuple(_nested(below, None, f"{path}.{key}") for key, below in inside.items())
    if all(isinstance(key, str) for key in keys):
        return Nest(dict, items, name, tuple(map(str, keys)))
    if set(keys) != set(range(len(keys))):
        raise InputError(
            f"the entries of {path} are not numbered from 0 on", hint=f"write {path}[0]=..., {path}[1]=..."
        )
    order = sorted(range(len(keys)), key=lambda at: int(keys[at]))
    return Nest(list, tuple(items[at] for at in order), name)


def _value(spec: Spec, module: nn.Module, generator: torch.Generator, name: str = "") -> Any:
    name = spec.name or name
    if isinstance(spec, Literal):
        return spec.value
    if isinstance(spec, InputSpec):
        return _tensor(spec, name, module, generator)
    if spec.kind is dict:
        pairs = zip(spec.keys, spec.items, strict=True)
        return {key: _value(item, module, generator, key) for key, item in pairs}
    return spec.kind([_value(item, module, generator, name) for item in spec.items])


def _tensor(spec: InputSpec, name: str, module: nn.Module, generator: torch.Generator) -> Tensor:
    own = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    dtype = DTYPES[spec.dtype] if spec.dtype else own.dtype
    if dtype.is_floating_point or dtype.is_complex:
        drawn = torch.randn(spec.shape, generator=generator, dtype=dtype if dtype.is_complex else None)
        return drawn.to(own.device, dtype)
    low, high = _range(spec, name, dtype, module)
    values = torch.randint(low, high, spec.shape, generator=generator)
    if values.numel() > 1:  # both ends are there, so that the range can be read off the values again
        values.view(-1)[0], values.view(-1)[-1] = high - 1, low
    return values.to(own.device, dtype)


def _range(spec: InputSpec, name: str, dtype: torch.dtype, module: nn.Module) -> tuple[int, int]:
    """The least value, and the largest and one more."""
    if spec.high is not None:
        return spec.low or 0, spec.high
    if "mask" in name:
        return 1, 2  # a mask of zeros hides everything, and softmax gives NaN
    if "token_type" in name or "segment" in name:
        return 0, 1
    tables = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    return 0, 2 if dtype is torch.bool else min([*tables, 2**7 if tables else _EMBEDDED])


def own_dtype(module: nn.Module) -> torch.dtype:
    """The type of the first floating parameter."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


# --- an example that the user brings ----------------------------------------------------------------------------------


def arrange(module: nn.Module, example: Any, told: str = "the example") -> tuple[Any, ...]:
    """Bring an example into the order of forward's positional arguments.

    Args:
        module: its forward is not called.
        example: a tensor, a tuple or list of positional arguments, or a dict of named ones.
        told: how the example is called in messages.

    Raises:
        InputError: it is nothing of this, holds no tensor, or has names that forward does not have.
    """
    if isinstance(example, Tensor):
        return (example,)
    if not isinstance(example, (tuple, list, Mapping)) or not _holds_tensor(example):
        raise InputError(
            f"{told} is {type(example).__name__}, not a tensor or a tuple of forward's arguments",
            hint="give e.g. torch.randn(1, 3, 224, 224), a tuple of arguments, or a dict of named ones",
        )
    if not isinstance(example, Mapping):
        return tuple(example)
    try:
        return signature.ordered(module, (), {str(name): value for name, value in example.items()})
    except InputError as error:
        hint = "its keys are forward's arguments; if forward takes the dict itself, give (example,)"
        raise InputError(f"{told}: {error.message}", hint=hint) from None


def _holds_tensor(value: Any) -> bool:
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return isinstance(value, Tensor) or any(_holds_tensor(item) for item in inside)


def from_function(module: nn.Module, where: str) -> tuple[tuple[Any, ...], str]:
    """Call the function of `--inputs`, `file.py:function`, and bring what it returns into forward's order.

    Returns:
        Positional arguments, and a note from which `texts` knows where they came from.

    Raises:
        SourceError: the function can't be found, or raises.
        InputError: it returns nothing that forward can be given.
    """
    example = arrange(module, usercode.call(where), f"what {where} returned")
    file, _, function = where.rpartition(":")
    return example, f"{_BY_FUNCTION}{Path(file).name}:{function} gave the input"


def texts(subject: Subject) -> tuple[str, ...]:
    """A subject's inputs as `--input` takes them, in order; a plan keeps these.

    The values that a function of the user's gave can't be made again from text: then it is the function that is told.
    """
    own = own_dtype(subject.module)
    told = tuple(describe(value, own) for value in subject.inputs)
    origin = next((note for note in subject.notes if note.startswith(_BY_FUNCTION)), None)
    return told if origin is None else (f"{origin.removesuffix(' gave the input')} ({'; '.join(told)})",)


def function_in(told: Sequence[str]) -> str | None:
    """The function that gave a plan's inputs, as `texts` told it; None where the texts can be read again."""
    first = told[0] if told else ""
    return first.removeprefix(_BY_FUNCTION).partition(" (")[0] if first.startswith(_BY_FUNCTION) else None


# --- guessing ---------------------------------------------------------------------------------------------------------


def guess(module: nn.Module, seconds: float = _SECONDS) -> tuple[tuple[Spec, ...], str]:
    """Find an input that a module runs on.

    Args:
        module: not changed; copies are tried.
        seconds: after which no further try is begun.

    Returns:
        Its specs, and a sentence that says what was guessed and from what.

    Raises:
        InputError: nothing that was tried ran.
    """
    signature.check_keywords(module)
    candidates = list(guessing.candidates(module))
    meta, real = trial.on_meta(module), trial.on_real_copy(module)

    def both(inputs: tuple[Any, ...]) -> str | None:
        heard = meta(inputs)
        unsure = heard is None and trial.holds_integers(inputs)
        return real(inputs) if unsure or trial.is_of_meta(heard) else heard

    begun, heard = time.monotonic(), ""
    for run, share in ((both, 0.5), (real, 1.0)):
        said: list[str] = []
        for candidate in candidates:
            spent = time.monotonic() - begun
            if spent > share * seconds or (spent > _PATIENCE and _is_deaf(said)):
                break
            complaint = _complaint(run, candidate, module)
            if complaint is None:
                return candidate.specs, _guessed(candidate)
            said.append(complaint)
        heard = next(iter(said), heard)
    raise InputError(
        f"no example input was given, and none could be guessed{': ' + heard if heard else ''}; "
        f"the model is called as {signature.text(module)}",
        hint=_ask_for(module),
    )


def _is_deaf(said: Sequence[str]) -> bool:
    """Whether a model says the same whatever it is given, and names no size: then it is not the size."""
    last = said[-_SAME:]
    return len(last) == _SAME and len(set(last)) == 1 and not any(char.isdigit() for char in last[0])


def _complaint(run: trial.Run, candidate: guessing.Candidate, module: nn.Module) -> str | None:
    try:
        return run(make(candidate.specs, module))
    except InputError as error:
        return error.message


def _guessed(candidate: guessing.Candidate) -> str:
    told = " and ".join(map(str, candidate.specs))
    many = "inputs" if len(candidate.specs) > 1 else "input"
    return f"{many} {told} guessed from {candidate.origin}; give --input if the model runs on another"


def _ask_for(module: nn.Module) -> str:
    names = [parameter.name for parameter in signature.required(module)]
    if len(names) < 2:
        return (
            "give its shape, e.g. --input 1,3,224,224, or a function that returns an example: --inputs file.py:function"
        )
    return "give each of them: " + " ".join(f"--input {name}=SHAPE" for name in names)


def flags(wanted: Iterable[Spec]) -> str:
    """The same on a command line."""
    return " ".join(f"--input {shlex.quote(str(spec))}" for spec in wanted)
