"""What a file's inputs are fed with: random numbers of the shapes that the file says, or that the user gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from peelcli.errors import InputError

_TYPES = {
    "float": np.float32, "double": np.float64, "float16": np.float16,
    "int64": np.int64, "int32": np.int32, "int16": np.int16, "int8": np.int8,
    "uint64": np.uint64, "uint32": np.uint32, "uint16": np.uint16, "uint8": np.uint8, "bool": np.bool_,
}  # fmt: skip
_GIVEN = re.compile(r"(?:(?P<name>.+?)\s*[=:]\s*)?(?P<sizes>\d+(?:\s*[,x]\s*\d+)*\s*[,x]?)", re.IGNORECASE)
_EXAMPLE = "write it as --input 1,3,224,224, or with a name: --input ids=1x77"
_SMALL = 2  # whole numbers are below it: they may be positions in a table of which nothing is known


@dataclass(frozen=True, slots=True)
class Given:
    """A shape that the user gives; the name is None for the file's next input."""

    name: str | None
    shape: tuple[int, ...]


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


def read(texts: Sequence[str]) -> tuple[Given, ...]:
    """Shapes as `--input` takes them.

    Raises:
        InputError: a text is no shape.
    """
    given = []
    for text in texts:
        match = _GIVEN.fullmatch(text.strip())
        if match is None:
            raise InputError(f"--input {text} is no shape", hint=_EXAMPLE)
        sizes = re.split(r"[,x]", match["sizes"].strip(" ,x"), flags=re.IGNORECASE)
        given.append(Given(match["name"], tuple(int(size) for size in sizes)))
    return tuple(given)


def wanted_by(session: Any) -> tuple[Wanted, ...]:
    """The inputs of a loaded file."""
    return tuple(
        Wanted(value.name, value.type.removeprefix("tensor(").removesuffix(")"), tuple(value.shape))
        for value in session.get_inputs()
    )


def shapes(
    wanted: Sequence[Wanted], given: Sequence[Given], batch: int | None, path: str
) -> dict[str, tuple[int, ...]]:
    """The shape of every input, by name.

    Args:
        wanted: what the file takes.
        given: what the user says; those without a name are for the inputs in order.
        batch: the size of every open first dimension; None for 1, or for what `given` says.
        path: of the file, for messages.

    Raises:
        InputError: a size is open and nobody says it, or what was said does not fit.
    """
    told = _assigned(wanted, given, path)
    return {each.name: _closed(each, told.get(each.name), batch, path) for each in wanted}


def _assigned(wanted: Sequence[Wanted], given: Sequence[Given], path: str) -> dict[str, Given]:
    names = [each.name for each in wanted]
    told = {each.name: each for each in given if each.name is not None}
    unknown = [name for name in told if name not in names]
    rest = [name for name in names if name not in told]
    unnamed = [each for each in given if each.name is None]
    if unknown or len(unnamed) > len(rest):
        problem = f"{path} has no input {unknown[0]!r}" if unknown else f"{path} has {len(names)} inputs"
        raise InputError(problem, hint=f"its inputs are {', '.join(names)}")
    return {**told, **dict(zip(rest, unnamed, strict=False))}


def _closed(wanted: Wanted, given: Given | None, batch: int | None, path: str) -> tuple[int, ...]:
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


def feed(wanted: Sequence[Wanted], shapes: Mapping[str, tuple[int, ...]], path: str) -> dict[str, np.ndarray[Any, Any]]:
    """Random arrays: normal where they are floating-point, 0 and 1 where they are whole numbers.

    Raises:
        InputError: an input is no tensor of numbers.
    """
    source = np.random.default_rng(0)
    made: dict[str, np.ndarray[Any, Any]] = {}
    for each in wanted:
        kind = _TYPES.get(each.kind)
        if kind is None:
            raise InputError(f"{each.name} of {path} is of type {each.kind}: only tensors of numbers can be made up")
        if np.issubdtype(kind, np.floating):
            made[each.name] = source.standard_normal(shapes[each.name]).astype(kind)
        elif kind is np.bool_:
            made[each.name] = np.ones(shapes[each.name], kind)
        else:
            made[each.name] = source.integers(0, _SMALL, shapes[each.name]).astype(kind)
    return made
