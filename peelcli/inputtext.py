"""Example inputs as text: what `--input` takes, what plans keep, and back again.

1x3x224x224                      a tensor, the batch first; 1,3,224,224 is the same
ids=1x16:int64:<30522            for the argument `ids`: whole numbers below 30522
mask=1x16:int64:1..1             whole numbers from 1 to 1
scale=0.5  mode='nearest'        a literal: a number, True, False, None, a string
batch.image=1x3x64x64            forward(batch={"image": ...})
images[0]=3x64x64                forward(images=[...])
[3x64x64, 3x64x64]               the same in one text: lists [...], tuples (...), dicts {key=..., key=...}
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from peelcli.errors import InputError

WHOLE = ("int64", "long", "int32", "int", "int16", "int8", "uint8", "bool")
FRACTIONAL = ("float64", "double", "float32", "float", "float16", "half", "bfloat16", "complex64", "complex128")
DTYPES = (*FRACTIONAL, *WHOLE)
"""The types that `--input` takes, by torch's own names."""
_SIZES = r"\d+(?:\s*[,x]\s*\d+)*\s*[,x]?"
_SHAPE = re.compile(_SIZES, re.IGNORECASE)
_TENSOR = re.compile(
    rf"(?P<shape>{_SIZES}|scalar)\s*(?::\s*(?P<dtype>[a-z]\w*)\s*)?(?::\s*(?P<values><\s*\d+|-?\d+\s*\.\.\s*-?\d+))?",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?P<name>[^\W\d]\w*(?:\.\w+|\[\d+\])*)?\s*(?P<sign>[=:])(?P<rest>.*)", re.DOTALL)
_PART = re.compile(r"\.?(\w+)|\[(\d+)\]")
_WORD = re.compile(r"[^\W\d][\w./-]*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
_CONSTANTS = {"None": None, "none": None, "True": True, "true": True, "False": False, "false": False}
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_LONGEST = 4000  # characters of one input
_MOST = 2**32  # numbers in one tensor; more is a typo, and would only exhaust the memory
_SHOWN = 80  # characters of it in a message
_FARTHEST = 2**63  # values of integers lie below it
_EXAMPLE = "write it as 1,3,224,224 or name=1x77:int64, the batch first"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A tensor that forward takes.

    Attributes:
        shape: sizes, the batch first.
        name: the argument's name, or a path into it such as `batch.image` or `images[0]`; None for the next in order.
        dtype: one of the names that `--input` takes, or None for the model's own.
        low: the least value of an integer tensor; None where nothing is said of its values.
        high: its largest value and one more.
    """

    shape: tuple[int, ...]
    name: str | None = None
    dtype: str | None = None
    low: int | None = None
    high: int | None = None

    def __str__(self) -> str:
        sizes = "x".join(map(str, self.shape)) or "scalar"
        if len(self.shape) == 1 and self.name and self.dtype is None:
            sizes += "x"  # a lone number behind a name is a literal
        parts = [sizes, self.dtype or ("int64" if self.high is not None else ""), self._values()]
        return _called(self.name, ":".join(part for part in parts if part))

    def _values(self) -> str:
        if self.high is None:
            return ""
        return f"<{self.high}" if not self.low else f"{self.low}..{self.high - 1}"


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, True, False, None or a string that forward takes."""

    value: bool | float | str | None
    name: str | None = None

    def __str__(self) -> str:
        text = repr(self.value)
        return f"={text}" if self.name is None and text.isdecimal() else _called(self.name, text)


@dataclass(frozen=True, slots=True)
class Nest:
    """A list, a tuple or a dict that forward takes; `keys` are those of a dict."""

    kind: type
    items: tuple[Spec, ...]
    name: str | None = None
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind is dict:
            named = (replace(item, name=key) for key, item in zip(self.keys, self.items, strict=True))
            return _called(self.name, "{" + ", ".join(map(str, named)) + "}")
        inside = ", ".join(_inside(item) for item in self.items)
        if self.kind is tuple:
            return _called(self.name, f"({inside}{',' if len(self.items) == 1 else ''})")
        return _called(self.name, f"[{inside}]")


Spec = InputSpec | Literal | Nest


def _called(name: str | None, text: str) -> str:
    return text if name is None else f"{name}={text}"


def _inside(item: Spec) -> str:
    """An entry of a list: there a lone number is a literal, as it is behind a name."""
    text = str(item)
    if isinstance(item, Literal):
        return text.removeprefix("=")
    return f"{text}x" if text.isdecimal() else text


# --- reading ----------------------------------------------------------------------------------------------------------


def parse(text: str) -> Spec:
    """Read what `--input` takes; see the top of this file.

    Raises:
        InputError: the text is no input.
    """
    try:
        if len(text) > _LONGEST:
            raise _no_input(text)
        return _parsed(text)
    except RecursionError:
        raise _no_input(text) from None


def _parsed(text: str) -> Spec:
    spec = _tensor(text, text)
    if spec is not None:
        return spec
    named = _NAMED.fullmatch(text.strip())
    if named is None or (named["name"] is None and named["sign"] == ":"):
        return _value(text, text)
    if named["sign"] == "=":
        return replace(_value(named["rest"], text, True), name=named["name"])
    spec = _tensor(named["rest"], text)
    if spec is None:
        raise _no_input(text)
    return replace(spec, name=named["name"])


def steps(name: str) -> tuple[str | int, ...]:
    """The path that a name spells: `batch.images[0]` is ("batch", "images", 0)."""
    return tuple(int(index) if index else key for key, index in _PART.findall(name))


def _value(text: str, whole: str, named: bool = False) -> Spec:
    """A list, a literal, or a tensor; `named`: a lone number, or a word, is meant as such."""
    text = text.strip()
    if text[:1] in _BRACKETS:
        return _nest(text, whole)
    if text in _CONSTANTS:
        return Literal(_CONSTANTS[text])
    if _NUMBER.fullmatch(text) and (named or not text.isdecimal()):
        return Literal(int(text) if text.lstrip("+-").isdecimal() else float(text))
    if text[:1] in {"'", '"'}:
        return Literal(_quoted(text, whole))
    spec = _tensor(text, whole)
    if spec is not None:
        return spec
    if named and _WORD.fullmatch(text):
        return Literal(text)
    raise _no_input(whole)


def _quoted(text: str, whole: str) -> str:
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        raise _no_input(whole) from None
    if not isinstance(value, str):
        raise _no_input(whole)
    return value


def _nest(text: str, whole: str) -> Nest:
    if text[-1:] != _BRACKETS[text[0]]:
        raise _no_input(whole)
    parts = list(_split(text[1:-1], whole))
    if text[0] != "{":
        return Nest(list if text[0] == "[" else tuple, tuple(_value(part, whole, True) for part in parts))
    pairs = [part.partition("=") for part in parts]
    keys = tuple(key.strip() for key, _, _ in pairs)
    if not all(re.fullmatch(r"\w+", key) for key in keys) or len(set(keys)) != len(keys):
        raise _no_input(whole)
    return Nest(dict, tuple(_value(value, whole, True) for _, _, value in pairs), keys=keys)


def _split(text: str, whole: str) -> Iterator[str]:
    """The entries of a list, at the commas that are in no bracket and no string."""
    depth, quote, entry = 0, "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            depth += (char in "[({") - (char in "])}")
        if char == "," and not depth and not quote:
            yield entry
            entry = ""
        else:
            entry += char
        if depth < 0:
            raise _no_input(whole)
    if depth or quote:
        raise _no_input(whole)
    if entry.strip():
        yield entry


def _tensor(text: str, whole: str) -> InputSpec | None:
    """The tensor that a text stands for, or None where it looks like none."""
    found = _TENSOR.fullmatch(text.strip())
    if found is None:
        return None
    shape = tuple(int(size) for size in re.findall(r"\d+", found["shape"]))
    if 0 in shape:
        raise InputError(f"--input {whole!r} has a size of zero", hint=_EXAMPLE)
    if math.prod(shape) > _MOST:
        raise InputError(f"--input {_short(whole)} is larger than {_MOST} numbers", hint=_EXAMPLE)
    dtype = found["dtype"]
    if dtype is not None and dtype not in DTYPES:
        near = difflib.get_close_matches(dtype, DTYPES) or ["int64", "float32"]
        raise InputError(f"--input {whole!r}: there is no type {dtype}", hint=f"did you mean {' or '.join(near)}?")
    if found["values"] is None:
        return InputSpec(shape, None, dtype)
    low, high = _range(found["values"])
    if dtype in FRACTIONAL:
        raise InputError(f"--input {whole!r}: a range of values is for integers", hint="leave it out, or add :int64")
    if low >= high or low < -_FARTHEST or high > _FARTHEST:
        problem = "is empty" if low >= high else "is wider than int64"
        raise InputError(f"--input {_short(whole)}: the range of values {problem}", hint="write e.g. <100 or 0..99")
    return InputSpec(shape, None, dtype or "int64", low, high)


def _range(text: str) -> tuple[int, int]:
    if text.startswith("<"):
        return 0, int(text[1:])
    low, high = text.split("..")
    return int(low), int(high) + 1


def _no_input(text: str) -> InputError:
    return InputError(f"--input {_short(text)} is no shape", hint=_EXAMPLE)


def _short(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."
