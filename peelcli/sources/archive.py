"""What stands in a .pt2 or TorchScript archive, looked at before torch opens it.

Both are zip files. A .pt2 is JSON with tensors beside it, yet torch.export.load would unpickle records that say so,
evaluate the expressions of dynamic sizes, resolve any name below `torch` as an operator, and load compiled code. All of
that is refused here, so that what is left to load is a graph of known operators on plain tensors.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch

from peelcli.errors import SourceError, UntrustedPickle
from peelcli.sources import storages
from peelcli.sources.sniff import cut_short

_MOST_ENTRIES = 200_000
_MOST_INFLATED = 2**28  # bytes of TorchScript's compressed code, all files together
_OWN = "add --trust if you made it yourself"
_AGAIN = "export the model again with torch.export.save"

_PICKLES = re.compile(r"data/(weights|constants|sample_inputs)/[^/]+\.pt|serialized_\w+\.(pt|json)")
_GRAPHS = re.compile(r"models/[^/]+\.json|serialized_exported_program\.json")
_PROGRAM = "serialized_exported_program.json"

_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(?:\.(\w+))?")
_LIBRARIES = {"aten", "prims", "quantized_decomposed", "torchvision"}
_TOUCHES_FILES = {"from_file"}
_WRAPPERS = {"wrap_with_set_grad_enabled", "wrap_with_autocast"}
_PYTHON = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.(_?sym_\w+)"
)
_TOKEN = re.compile(r"\s*([A-Za-z_]\w*|\d+(?:\.\d+)?|[-+*/%(),<>=&|~!]+)")
_FUNCTIONS = {
    *(
        "Add",
        "Mul",
        "Max",
        "Min",
        "Mod",
        "FloorDiv",
        "CleanDiv",
        "CeilDiv",
        "PythonMod",
        "ModularIndexing",
        "Eq",
        "Ne",
        "Lt",
        "Le",
    ),
    *("Gt", "Ge", "And", "Or", "Not", "Piecewise", "True", "False", "floor", "ceiling", "Abs", "Pow", "IntTrueDiv"),
    *("PowByNatural", "Where", "ToFloat", "FloatTrueDiv", "TruncToInt", "CeilToInt", "FloorToInt", "Identity", "oo"),
    *("int_oo", "Integer", "Float", "Rational", "nan", "RoundToInt", "TruncToFloat", "LShift", "RShift"),
}
_DECLARED = re.compile(r"Symbol\('([a-z]+\d+)'(?:, ?(?:positive|nonnegative|integer|real|negative)=(?:True|False))*\)")
_SYMBOL = re.compile(r"_?[a-z]{1,8}\d+")
_HIDDEN = re.compile(r"\\u00[2-7]|__enum__|default_factory_module")  # treespecs that import what they name


def check_script(path: Path) -> None:
    """Refuse a TorchScript archive that would need far more memory than the file has bytes, or read beyond it.

    Raises:
        SourceError: it is damaged, or no archive that torch.jit.save writes.
    """
    with path.open("rb") as file:
        entries = _entries(file, path)
        if sum(entry.file_size for entry in entries) > path.stat().st_size + _MOST_INFLATED:
            raise SourceError(
                f"{path} declares far more content than it holds", hint="save it again with torch.jit.save"
            )
        storages.check(zipfile.ZipFile(file), path)


def without_source_lines(path: Path) -> io.BytesIO:
    """A TorchScript archive, checked already, without its notes on source lines, which are only good for messages.

    torch unpickles them when it wants to tell of a line; spoiled ones fail there, or end the process.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as found, zipfile.ZipFile(buffer, "w") as kept:
        for entry in found.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(entry, _read(found, entry, path))
    buffer.seek(0)
    return buffer


def check_exported(path: Path, trust: bool = False) -> None:
    """Refuse an archive of torch.export whose loading would run anything but tensor operators.

    Raises:
        SourceError: it is damaged, has compiled code in it, or calls what is no operator.
        UntrustedPickle: a record would import code.
    """
    with path.open("rb") as file:
        entries = {_inner(entry.filename): entry for entry in _entries(file, path)}
        if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
            raise SourceError(f"{path} declares more content than it holds", hint=_AGAIN)
        archive = zipfile.ZipFile(file)
        for name, entry in entries.items():
            if _GRAPHS.fullmatch(name):
                _check_graph(_json(archive, entry, path), path, trust)
            elif name.startswith("data/aotinductor"):
                raise SourceError(f"{path} holds compiled code, not a graph", hint=_AGAIN)
            elif name.endswith("_config.json"):
                _check_payload(archive, entries, name, path, trust)
            elif _PICKLES.fullmatch(name) and entry.file_size and not trust:
                _check_pickle(_read(archive, entry, path), name, path)


def _entries(file: IO[bytes], path: Path) -> list[zipfile.ZipInfo]:
    """The archive's directory, without tricks: no path out of it, no name twice, nothing inflated but code."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OSError):
        raise cut_short(path) from None
    finally:
        file.seek(0)
    names = [entry.filename for entry in entries]
    odd = next((name for name in names if _leads_out(name)), None)
    if odd is not None:
        raise SourceError(f"{path} has an entry that leads out of it: {odd[:80]!r}", hint="get the file again")
    if len(set(names)) != len(names) or len(names) > _MOST_ENTRIES or len({n.partition("/")[0] for n in names}) > 8:
        raise SourceError(f"{path} is no archive that torch writes: its entries contradict each other", hint=_AGAIN)
    if any(entry.flag_bits & 1 for entry in entries):
        raise SourceError(f"{path} is encrypted", hint="decrypt it first")
    for entry in entries:
        code = "/code/" in entry.filename or entry.filename.endswith(".debug_pkl")
        if entry.compress_type != zipfile.ZIP_STORED and not code:
            raise SourceError(f"{path} is compressed, which torch never does", hint=_AGAIN)
    return entries


def _leads_out(name: str) -> bool:
    return name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts or "\x00" in name


def _inner(name: str) -> str:
    """A name without the archive's own folder in front; files of torch 2.7 have none."""
    return name if name.startswith("serialized_") else name.partition("/")[2]


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
        raise cut_short(path) from None


def _json(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Any:
    try:
        return json.loads(_read(archive, entry, path))
    except (ValueError, RecursionError):
        raise SourceError(f"{path} is damaged: {_inner(entry.filename)} can't be read", hint=_AGAIN) from None


def _check_payload(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str, path: Path, trust: bool
) -> None:
    """Tensors stand as raw bytes; the few that are pickled must hold tensors only, and other objects are refused."""
    content = _json(archive, entries[name], path)
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not all(isinstance(payload, dict) for payload in config.values()):
        raise SourceError(f"{path} is damaged: {name} can't be read", hint=_AGAIN)
    for owner, payload in config.items():
        where = str(payload.get("path_name"))
        record = entries.get(f"{name.rpartition('/')[0]}/{where}")
        if record is None:
            raise SourceError(f"{path} is damaged: {owner[:80]} is missing from it", hint=_AGAIN)
        if not where.startswith(("weight_", "tensor_")) and not trust:
            raise SourceError(f"{path} holds an object that is no tensor: {owner[:80]}", hint=_OWN)
        if payload.get("use_pickle") and not trust:
            _check_pickle(_read(archive, record, path), where, path)


def _check_pickle(record: bytes, name: str, path: Path) -> None:
    """Whether torch's restricted unpickler takes a record; then the other one does nothing else with it."""
    inside = io.BytesIO(record)
    entries = _entries(inside, path)
    if sum(entry.file_size for entry in entries) > len(record):
        raise SourceError(f"{path} declares more content than it holds", hint=_AGAIN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(inside, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what it meets
        match = re.search(r"GLOBAL ([\w.]+)", str(error))
        if match is None:
            raise cut_short(path) from None
        raise UntrustedPickle(str(path), [f"{match[1]} ({name})"]) from None


def _check_graph(program: Any, path: Path, trust: bool) -> None:
    """Calls of known operators and plain arithmetic only; sizes that are sums and products of symbols."""
    for place, value in _strings(program):
        if place == "expr_str" and not _is_arithmetic(value):
            raise SourceError(f"{path} has a size that is no formula: {value[:60]!r}", hint="get the file again")
        if place != "stack_trace" and _HIDDEN.search(value):
            raise SourceError(f"{path} has a structure that would import code", hint="get the file again")
        if place == "target":
            _check_target(value, path, trust)


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Every string with the key that it stands under; without recursion, a file may be nested as deep as it likes."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, list):
            waiting.extend((place, inner) for inner in value)
        elif isinstance(value, dict):
            is_call = "inputs" in value and "outputs" in value
            for key, inner in value.items():
                if key == "target" and isinstance(inner, str) and not is_call:
                    continue  # the name of a tensor in the graph's signature
                waiting.append((key, inner))
                if place == "range_constraints":
                    waiting.append(("expr_str", key))


def _is_arithmetic(text: str) -> bool:
    at, text = 0, _DECLARED.sub(r"\1", text)
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return False
        word, at = token[1], token.end()
        if (word[0].isalpha() or word[0] == "_") and word not in _FUNCTIONS and not _SYMBOL.fullmatch(word):
            return False
    return True


def _check_target(target: str, path: Path, trust: bool) -> None:
    if _PYTHON.fullmatch(target):
        return
    operator = _OPERATOR.fullmatch(target)
    if operator is None:
        raise SourceError(f"{path} calls {target[:80]}, which is no operator", hint="get the file again")
    library, name = operator[1], operator[2]
    if library == "higher_order":
        if name in _WRAPPERS:
            return
        raise SourceError(
            f"{path} uses {name}, control flow that peel can't prune",
            hint="export the model without it, or give the module itself",
        )
    if not hasattr(getattr(torch.ops, library), name):
        raise missing_operator(path, f"{library}::{name}")
    if (library not in _LIBRARIES or name in _TOUCHES_FILES) and not trust:
        raise SourceError(f"{path} calls {library}::{name}, which may do more than compute", hint=_OWN)


def missing_operator(path: Path, name: str) -> SourceError:
    """The error for a file that needs an operator of a library that is not loaded."""
    return SourceError(
        f"{path} needs the operator {name}, which torch does not have",
        hint="load the library that brings it: --code FILE.py with its import",
    )
