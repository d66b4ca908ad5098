"""Example inputs: read from `--input`, made as tensors, guessed where nothing is given."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peelcli.errors import InputError
from peelcli.sources import guessing, trial

_DTYPES = {
    "float64": torch.float64, "double": torch.float64,
    "float32": torch.float32, "float": torch.float32,
    "float16": torch.float16, "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64, "long": torch.int64,
    "int32": torch.int32, "int": torch.int32,
    "int16": torch.int16, "int8": torch.int8, "uint8": torch.uint8, "bool": torch.bool,
}  # fmt: skip
_SHAPE = re.compile(r"\d+(?:\s*[,x]\s*\d+)*,?", re.IGNORECASE)
_EXAMPLE = "write it as 1,3,224,224 or name:1,77:int64, the batch first"
_EMBEDDED = 2  # values of an index input where no embedding bounds them


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The shape of one argument of forward.

    Attributes:
        shape: sizes, the batch first.
        name: the argument's name, or None for the next one in order.
        dtype: one of the names that `--input` takes, or None for the model's own.
    """

    shape: tuple[int, ...]
    name: str | None = None
    dtype: str | None = None

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape))
        return ":".join(part for part in (self.name, sizes, self.dtype) if part)


def parse(text: str) -> InputSpec:
    """Read `1,3,224,224`, `1x3x224x224`, `name:1,3,224,224`, each also with `:int64` or another type behind it.

    Raises:
        InputError: the text is no such shape.
    """
    parts = [part.strip() for part in text.split(":")]
    dtype = parts.pop() if len(parts) > 1 and not _SHAPE.fullmatch(parts[-1]) else None
    name = parts.pop(0) if len(parts) == 2 else None
    if len(parts) != 1 or not _SHAPE.fullmatch(parts[0]) or (name is not None and not name.isidentifier()):
        raise InputError(f"--input {text!r} is no shape", hint=_EXAMPLE)
    if dtype is not None and dtype not in _DTYPES:
        near = difflib.get_close_matches(dtype, _DTYPES) or ["int64", "float32"]
        raise InputError(f"--input {text!r}: there is no type {dtype}", hint=f"did you mean {' or '.join(near)}?")
    shape = tuple(int(size) for size in re.findall(r"\d+", parts[0]))
    if 0 in shape:
        raise InputError(f"--input {text!r} has a size of zero", hint=_EXAMPLE)
    return InputSpec(shape, name, dtype)


def describe(value: Any) -> str:
    """An input in words, as `--input` would take it where it is a tensor: "1x3x224x224", "1x77:int64"."""
    if not isinstance(value, Tensor):
        return repr(value)
    sizes = "x".join(map(str, value.shape)) or "scalar"
    return sizes if value.is_floating_point() else f"{sizes}:{str(value.dtype).removeprefix('torch.')}"


def make(specs: Sequence[InputSpec], module: nn.Module, seed: int = 0) -> tuple[Any, ...]:
    """Random inputs of the given shapes, in the order of forward's arguments.

    Args:
        specs: named ones go to the argument of that name, the others to the arguments left, in order.
        module: floating inputs get the type and device of its first floating parameter; index inputs stay below
            its smallest embedding.
        seed: decides every value.

    Returns:
        Positional arguments of one forward call; an argument skipped between two others has its default.

    Raises:
        InputError: a name that forward does not have, too many inputs, or too few.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {id(spec): _tensor(spec, module, generator) for spec in specs}
    arguments = _arguments(module)
    if arguments is None:  # forward(*args): no names to go by
        return tuple(tensors[id(spec)] for spec in specs)
    placed = _place(specs, arguments)
    last = max((at for at, argument in enumerate(arguments) if argument.name in placed), default=-1)
    missing = [a.name for a in arguments if a.default is a.empty and a.name not in placed]
    if missing:
        raise InputError(
            f"forward needs {' and '.join(missing)}, which no --input gives",
            hint="repeat --input for each: " + " ".join(f"--input {name}:SHAPE" for name in missing),
        )
    return tuple(tensors[id(placed[a.name])] if a.name in placed else a.default for a in arguments[: last + 1])


def _place(specs: Sequence[InputSpec], arguments: Sequence[inspect.Parameter]) -> dict[str, InputSpec]:
    names = [argument.name for argument in arguments]
    for spec in specs:
        if spec.name is not None and spec.name not in names:
            near = difflib.get_close_matches(spec.name, names) or names
            raise InputError(f"forward has no argument named {spec.name}", hint=f"it takes {', '.join(near)}")
    placed = {spec.name: spec for spec in specs if spec.name is not None}
    unnamed = [spec for spec in specs if spec.name is None]
    free = [name for name in names if name not in placed]
    if len(unnamed) > len(free) or len(placed) + len(unnamed) != len(specs):
        raise InputError(
            f"forward takes {len(names)} inputs ({', '.join(names)}), {len(specs)} were given",
            hint="give each input once",
        )
    return placed | dict(zip(free, unnamed, strict=False))


def _arguments(module: nn.Module) -> list[inspect.Parameter] | None:
    """What forward can be given by position, or None where it takes any number."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _tensor(spec: InputSpec, module: nn.Module, generator: torch.Generator) -> Tensor:
    own = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    dtype = _DTYPES[spec.dtype] if spec.dtype else own.dtype
    if dtype.is_floating_point:
        return torch.randn(spec.shape, generator=generator).to(own.device, dtype)
    tables = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    bound = 2 if dtype is torch.bool else min([*tables, 2**7 if tables else _EMBEDDED])
    values = torch.randint(0, bound, spec.shape, generator=generator)
    if spec.name and "mask" in spec.name:
        values = torch.ones_like(values)  # a mask of zeros hides everything, and softmax gives NaN
    return values.to(own.device, dtype)


def guess(module: nn.Module) -> tuple[tuple[InputSpec, ...], str]:
    """Find an input that a module runs on.

    Returns:
        Its specs, and a sentence that says what was guessed and from what.

    Raises:
        InputError: forward needs several arguments, or nothing that was tried ran.
    """
    required = [a.name for a in _arguments(module) or () if a.default is a.empty]
    if len(required) > 1:
        raise InputError(
            f"forward needs several inputs ({', '.join(required)}); only one can be guessed",
            hint="give each of them: " + " ".join(f"--input {name}:SHAPE" for name in required),
        )
    candidates = [(InputSpec(c.shape, None, c.dtype), c.origin) for c in guessing.candidates(module)]
    heard = ""
    for run in (trial.on_meta(module), trial.on_real_copy(module)) if candidates else ():
        for spec, origin in candidates:
            heard = run(make((spec,), module)) or ""
            if not heard:
                return (spec,), f"input {spec} guessed from {origin}; give --input if the model runs on another"
    raise InputError(
        f"no example input was given, and none could be guessed{': ' + heard if heard else ''}",
        hint="give its shape, e.g. --input 1,3,224,224",
    )
