"""Ways to spoil a file: its bytes, entries of an archive, values of JSON and TOML. The same seed, the same file."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

SEED = os.environ.get("FAULT_SEED", "0")  # another one makes other files


def chance(*names: object) -> random.Random:
    """What decides one case."""
    return random.Random(" ".join(map(str, (SEED, *names))))


# --- bytes ------------------------------------------------------------------------------------------------------------


def _cut(data: bytes, source: random.Random) -> bytes:
    return data[: source.randrange(len(data))]


def _behead(data: bytes, source: random.Random) -> bytes:
    return data[source.randrange(len(data)) + 1 :]


def _flip(data: bytes, source: random.Random, count: int = 1) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return bytes(changed)


def _flip_many(data: bytes, source: random.Random) -> bytes:
    return _flip(data, source, 64)


def _flip_head(data: bytes, source: random.Random) -> bytes:
    """Headers and lengths stand in front."""
    head = min(len(data), 200)
    return _flip(data[:head], source, 2) + data[head:]


def _flip_tail(data: bytes, source: random.Random) -> bytes:
    """A zip's directory stands at its end."""
    tail = max(0, len(data) - 400)
    return data[:tail] + _flip(data[tail:], source, 2)


def _insert(data: bytes, source: random.Random) -> bytes:
    at = source.randrange(len(data))
    return data[:at] + source.randbytes(source.choice((1, 16, 300))) + data[at:]


def _remove(data: bytes, source: random.Random) -> bytes:
    at = source.randrange(len(data))
    return data[:at] + data[at + source.choice((1, 16, 300)) :] or b"\0"


def _zeros(data: bytes, source: random.Random) -> bytes:
    return _overwrite(data, source, 0)


def _ones(data: bytes, source: random.Random) -> bytes:
    """All bits set: the largest lengths, and NaN."""
    return _overwrite(data, source, 255)


def _overwrite(data: bytes, source: random.Random, byte: int) -> bytes:
    at, length = source.randrange(len(data)), source.choice((1, 8, 64))
    return (data[:at] + bytes([byte]) * length + data[at + length :])[: len(data)]


def _twice(data: bytes, source: random.Random) -> bytes:
    at, length = source.randrange(len(data)), source.choice((8, 64, 1000))
    return data[:at] + data[at : at + length] * 2 + data[at + length :]


def _append(data: bytes, source: random.Random) -> bytes:
    return data + source.randbytes(100)


Spoil = Callable[[bytes, random.Random], bytes]
BYTES: dict[str, Spoil] = {
    spoil.__name__.strip("_"): spoil
    for spoil in (
        *(_cut, _behead, _flip, _flip_many, _flip_head, _flip_tail, _insert, _remove, _zeros, _ones, _twice, _append),
    )
}

# --- archives ---------------------------------------------------------------------------------------------------------


def archive(data: bytes, source: random.Random) -> bytes:
    """A zip with one entry spoiled, absent, renamed, twice, or compressed; its checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = {info.filename: file.read(info) for info in file.infolist()}
    name = source.choice([name for name, content in entries.items() if content])
    rest = [(other, content) for other, content in entries.items() if other != name]
    ways: tuple[Callable[[], bytes], ...] = (
        *[lambda: _zipped([*{**entries, name: source.choice([*BYTES.values()])(entries[name], source)}.items()])] * 5,
        lambda: _zipped(rest),
        lambda: _zipped([*rest, (f"../../{name}", entries[name])]),
        lambda: _zipped([*entries.items(), (name, entries[name][::-1])]),
        lambda: _zipped([*entries.items()], zipfile.ZIP_DEFLATED),
        lambda: _zipped([*rest, (name, b"")]),
    )
    return source.choice(ways)()


def _zipped(entries: list[tuple[str, bytes]], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, how)
    return buffer.getvalue()


# --- values -----------------------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    *(None, True, "", " ", "\x00", "\u202e\x1b[31m", "é" * 300, "nan", "-1", "1e999", "../../etc/passwd"),
    *(-1, 0, 2**31, 2**63, 10**40, -(10**40), 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *([], {}, [[]], [None], {"": {}}, [1, "a", None]),
)


def value(document: Any, source: random.Random) -> Any:
    """The document with one value replaced, absent, misnamed or twice, anywhere in it."""
    *above, last = source.choice(list(_places(document)))
    changed = copy.deepcopy(document)
    inside = changed
    for step in above:
        inside = inside[step]
    kind = source.choice(("odd", "odd", "odd", "odd", "absent", "twice"))
    if kind == "odd":
        inside[last] = source.choice(ODD)
    elif kind == "absent":
        del inside[last]
    elif isinstance(inside, list):
        inside.append(inside[last])
    else:
        inside[f"{last}x"] = inside.pop(last)
    return changed


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from _places(part, (*at, key))


def json_value(data: bytes, source: random.Random) -> bytes:
    """A JSON document with one odd value."""
    return json.dumps(value(json.loads(data), source)).encode()


def _inside(data: bytes, more: bytes) -> bytes:
    """An object with more in front of its first key."""
    return b"{" + more + b", " + data.lstrip().removeprefix(b"{")


Write = Callable[[bytes], bytes]
JSON: dict[str, Write] = {
    "deep": lambda data: b"[" * 1_000_000,
    "deep-objects": lambda data: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep-inside": lambda data: _inside(data, b'"extra": ' + b"[" * 50_000 + b"]" * 50_000),
    "deep-but-legal": lambda data: _inside(data, b'"extra": ' + b"[" * 800 + b"]" * 800),
    "long-number": lambda data: _inside(data, b'"extra": ' + b"9" * 10_000),
    "other-formats": lambda data: _inside(data, b'"peel_plan": null, "peel_run": [], "peel_report": {}'),
    "utf-16": lambda data: data.decode().encode("utf-16"),
    "byte-order-mark": lambda data: b"\xef\xbb\xbf" + data,
    "surrogate": lambda data: data.replace(b'"name": "', b'"name": "\\ud800', 1),
    "escape-codes": lambda data: data.replace(b'"name": "', b'"name": "\\u001b[31m::error::\\r\\n<script>', 1),
    "nul": lambda data: data.replace(b'"', b'"\0', 3),
    "in-a-list": lambda data: b"[" + data + b"]",
    "scalar": lambda data: b"3",
    "nothing": lambda data: b"",
}


TOML_ODD = (
    *('""', '" "', '"nan"', '"\\u0000"', '"\\u001b[31m"', "nan", "inf", "-inf", "-1", "0", "1e308", "true", "[]", "{}"),
    *("[[]]", '[1, "a"]', "1979-05-27T07:32:00Z", "07:32:00", "99999999999999999999999999", "0.5", '"../.."'),
    *('"' + "é" * 300 + '"', "{a = {b = 1}}", "[{}]"),
)
