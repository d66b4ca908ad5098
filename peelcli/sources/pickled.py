"""torch checkpoints: what torch.save wrote, opened without running anything that the file chose."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from peelcli.errors import SourceError
from peelcli.sources import allow, usercode
from peelcli.sources.scan import Malformed, Scan, scan
from peelcli.sources.sniff import Kind, cut_short

_PICKLES_IN_LEGACY = 5  # magic number, protocol version, system, the object, storage keys
_DAMAGE = (
    "PytorchStreamReader",
    "unexpected EOF",
    "unexpected pos",
    "Ran out of input",
    "truncated",
    "storage has wrong byte size",
)


def load(path: Path, kind: Kind, code: Path | None = None, trust: bool = False) -> Any:
    """Open a torch checkpoint on the CPU.

    Args:
        path: the file.
        kind: TORCH_ZIP or TORCH_LEGACY.
        code: the user's Python file with the classes of a pickled module.
        trust: unpickle whatever is there, code included.

    Returns:
        The object that was saved.

    Raises:
        UntrustedPickle: loading would run more than making tensors, modules and plain data; nothing was run.
        SourceError: the file is damaged, or a class is missing.
    """
    module = usercode.run_file(code) if code is not None else None
    if trust:
        return _trusted(path, kind, module)
    allowed: list[Any] = allow.review(str(path), examine(path, kind), module)
    if kind is Kind.TORCH_LEGACY and (allowed or not _is_torch_legacy(path)):
        raise SourceError(
            f"{path} is a whole module in a format that only running it opens (torch before 1.6, or pickle)",
            hint="save it again with torch.save(model, 'model.pt'), or add --trust if you made it yourself",
        )
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and the classes' __setstate__ raise anything
        raise _unreadable(path, error) from error


def examine(path: Path, kind: Kind) -> Scan:
    """What the pickles of a checkpoint would import and call; nothing is executed.

    Raises:
        SourceError: the file breaks off.
    """
    try:
        if kind is Kind.TORCH_ZIP:
            with path.open("rb") as file:  # torch's own reader: what is examined is what is loaded
                record = torch._C.PyTorchFileReader(file).get_record("data.pkl")
            return scan(io.BytesIO(record))
        found = Scan()
        with path.open("rb") as file:
            for _ in range(_PICKLES_IN_LEGACY if _is_torch_legacy(path) else 1):
                part = scan(file)
                found = Scan(found.imports | part.imports, found.called | part.called, found.odd | part.odd)
        return found
    except (Malformed, RuntimeError, EOFError):
        raise cut_short(path) from None


def _is_torch_legacy(path: Path) -> bool:
    """Whether a bare pickle opens with torch's magic number, as bytes: protocol mark, then a long integer."""
    magic = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _trusted(path: Path, kind: Kind, code: ModuleType | None) -> Any:
    """Unpickle anything; classes of `__main__` come from the user's file where there is one."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str, /) -> Any:
            if code is not None and module in ("__main__", code.__name__) and hasattr(code, name):
                return getattr(code, name)
            return super().find_class(module, name)

    def load_one(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    door = SimpleNamespace(__name__="pickle", Unpickler=Unpickler, load=load_one)
    try:
        with usercode.importable(Path.cwd()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind is Kind.TORCH_LEGACY and not _is_torch_legacy(path):
                with path.open("rb") as file:
                    return load_one(file)
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=door)
    except (Exception, SystemExit) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> SourceError:
    if isinstance(error, EOFError) or any(sign in str(error) for sign in _DAMAGE):
        return cut_short(path)
    if isinstance(error, (AttributeError, ImportError)):
        return SourceError(
            f"{path} needs code that is not here: {usercode.told(error)}",
            hint="bring its classes with --code FILE.py, or install the package that it was saved with",
        )
    inner = str(error).partition("WeightsUnpickler error:")[2].strip()  # torch says it in the middle of an essay
    reason = inner.partition("\n")[0] or usercode.told(error)
    return SourceError(
        f"{path} can't be loaded: {reason[:200]}",
        hint="save it again with torch.save(model, 'model.pt'), or add --trust if you made it yourself",
    )
