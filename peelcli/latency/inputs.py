"""What a file's inputs are fed with: random numbers of the shapes that the file says, or that the user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from peelcli.errors import InputError
from peelcli.inputtext import WHOLE, InputSpec, parse

_NUMBERS = (
    "float32",
    "float64",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)
_SYNONYMS = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32"}
_SMALL = 2  # whole numbers are below it: they may be positions in a table of which nothing is known


@dataclass(frozen=True, slots=True)
class Wanted:
    """An input of a file.

    Attributes:
        name: in the file.
        kind: its element type, as onnxruntime writes it: float, int64, ...
        shape: sizes; a name or None where the file leaves one open.
    """

    name: str
    kind: str
    shape: tuple[int | str | None, ...]


def read(texts: Sequence[str]) -> tuple[InputSpec, ...]:
    """Shapes as `--input` takes them; a name may be any that a file has, up to the last `=`.

    Raises:
        InputError: a text is no tensor.
    """
    return tuple(_tensor(text) for text in texts)


def _tensor(text: str) -> InputSpec:
    name, sign, shape = text.rpartition("=")
    spec = parse(shape if sign else text)
    if not isinstance(spec, InputSpec):
        raise InputError(f"--input {text!r} is no shape", hint="write it as 1x3x224x224, or with a name: ids=1x77")
    return replace(spec, name=name.strip()) if sign else spec


def wanted_by(session: Any) -> tuple[Wanted, ...]:
    """The inputs of a loaded file."""
    return tuple(
        Wanted(value.name, value.type.removeprefix("tensor(").removesuffix(")"), tuple(value.shape))
        for value in session.get_inputs()
    )


def specs(wanted: Sequence[Wanted], given: Sequence[InputSpec], batch: int | None, path: str) -> dict[str, InputSpec]:
    """What every input is fed with, by name.

    Args:
        wanted: what the file takes.
        given: what the user says; those without a name are for the inputs in order.
        batch: the size of every open first dimension; None for 1, or for what `given` says.
        path: of the file, for messages.

    Raises:
        InputError: a size is open and nobody says it, or what was said does not fit.
    """
    told = _assigned(wanted, given, path)
    return {each.name: _spec(each, told.get(each.name), batch, path) for each in wanted}


def _assigned(wanted: Sequence[Wanted], given: Sequence[InputSpec], path: str) -> dict[str, InputSpec]:
    names = [each.name for each in wanted]
    told = {each.name: each for each in given if each.name is not None}
    unknown = [name for name in told if name not in names]
    rest = [name for name in names if name not in told]
    unnamed = [each for each in given if each.name is None]
    if unknown or len(unnamed) > len(rest):
        problem = f"{path} has no input {unknown[0]!r}" if unknown else f"{path} has {len(names)} inputs"
        raise InputError(problem, hint=f"its inputs are {', '.join(names)}")
    return {**told, **dict(zip(rest, unnamed, strict=False))}


def _spec(wanted: Wanted, given: InputSpec | None, batch: int | None, path: str) -> InputSpec:
    kind = _SYNONYMS.get(wanted.kind, wanted.kind)
    if kind not in _NUMBERS:
        raise InputError(f"{wanted.name} of {path} is of type {kind}: only tensors of numbers can be made up")
    shape = _closed(wanted, given, batch, path)
    if given is None:
        return InputSpec(shape, wanted.name, kind)
    ranged = given.high is not None and kind in WHOLE
    if given.dtype and not ranged and _SYNONYMS.get(given.dtype, given.dtype) != kind:
        raise InputError(f"{wanted.name} of {path} is of type {kind}, not {given.dtype}", hint="leave the type out")
    return replace(given, name=wanted.name, dtype=kind, shape=shape)


def _closed(wanted: Wanted, given: InputSpec | None, batch: int | None, path: str) -> tuple[int, ...]:
    if given is not None and len(given.shape) != len(wanted.shape):
        raise InputError(
            f"{wanted.name} of {path} is {_told(wanted)}, not {'x'.join(map(str, given.shape))}",
            hint=f"give it, e.g. --input {wanted.name}={_filled(wanted)}",
        )
    sizes = []
    for position, size in enumerate(wanted.shape):
        said = given.shape[position] if given else None
        if position == 0 and batch is not None:
            said = batch
        elif position == 0 and said is None and not isinstance(size, int):
            said = 1
        if isinstance(size, int):
            if said not in (None, size):
                what = f"its batch is fixed to {size}" if position == 0 else f"{wanted.name} is {_told(wanted)}"
                raise InputError(f"{path} can't be run at {said}: {what}", hint="leave --batch or --input away")
            said = size
        if said is None:
            raise InputError(
                f"{path} leaves the shape of {wanted.name} open: {_told(wanted)}",
                hint=f"give it, e.g. --input {wanted.name}={_filled(wanted)}",
            )
        sizes.append(said)
    return tuple(sizes)


def _told(wanted: Wanted) -> str:
    return "x".join("?" if size is None else str(size) for size in wanted.shape) or "a single number"


def _filled(wanted: Wanted) -> str:
    """The shape with sizes of images, or of sequences, where it is open."""
    likely = (1, 3, 224, 224) if len(wanted.shape) == 4 else (1, *[128] * len(wanted.shape))
    pairs = zip(wanted.shape, likely, strict=False)
    return "x".join(str(size if isinstance(size, int) else usual) for size, usual in pairs)


def feed(specs: Mapping[str, InputSpec]) -> dict[str, np.ndarray[Any, Any]]:
    """Random arrays: normal where they are floating-point; whole numbers in the range given, else 0 and 1."""
    source = np.random.default_rng(0)
    return {name: _array(spec, source) for name, spec in specs.items()}


def _array(spec: InputSpec, source: np.random.Generator) -> np.ndarray[Any, Any]:
    kind = np.dtype(spec.dtype)
    if kind.kind == "f":
        return source.standard_normal(spec.shape).astype(kind)
    if kind.kind == "b":
        return np.ones(spec.shape, kind)
    low, high = (0, _SMALL) if spec.high is None else (spec.low or 0, spec.high)
    return source.integers(low, high, spec.shape).astype(kind)
