"""Python that the user brings along: `--code FILE.py` and factories. Theirs to run, and run once."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from peelcli import files
from peelcli.errors import SourceError

RANDOM_WEIGHTS = "the weights are random (seed 0)"


class _Loader(SourceFileLoader):
    """Runs a file as Python would import it, but leaves no __pycache__ beside it."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write nothing."""


def run_file(path: Path) -> ModuleType:
    """Run a Python file as a module under its own name; its `if __name__ == "__main__"` block stays out.

    The same file is run once in a process, so that its classes stay the same objects. It is left in sys.modules,
    where saving a module of its classes needs it.

    Raises:
        SourceError: there is no such file, or it raises.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file", hint="give a Python file that is there")
    path = path.resolve()
    for known in (sys.modules.get(name) for name in ("__main__", *_names(path))):
        if known is not None and _file_of(known) == path:
            return known
    name = next(name for name in _names(path) if name not in sys.modules and name not in sys.stdlib_module_names)
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with importable(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise SourceError(
            f"{path.name} failed while it ran: {told(error, path)}", hint="the file must run when it is imported"
        ) from error
    return module


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _names(path: Path) -> Iterator[str]:
    """The names that a file may go by: its own first, so that what is saved with it loads where it can be imported."""
    yield path.stem
    yield from (f"peel_code_{number}_{path.stem}" for number in range(100))


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let code import what stands beside it, as a script can."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the code may have changed sys.path itself
            sys.path.remove(entry)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Random initial weights that are the same in every run; the caller's random state is as before afterwards."""
    state = random.getstate()
    random.seed(0)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        random.setstate(state)


def told(error: BaseException, file: Path | None = None) -> str:
    """One line for what user code raised: type, message, and the last place in `file` that it went through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({Path(error.filename).name}:{error.lineno})"
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if file is not None and Path(frame.filename).resolve() == file]
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{': ' + message if message else ''}{where}"


def is_factory(text: str) -> bool:
    """Whether a text has the form `file.py:function` or `pkg.module:function`."""
    where, _, function = text.rpartition(":")
    dotted = all(part.isidentifier() for part in where.split("."))
    return bool(where) and function.isidentifier() and (where.endswith(".py") or dotted)


def is_there(factory: str) -> bool:
    """Whether a factory names a file, or a package that exists; nothing is run."""
    where = factory.rpartition(":")[0]
    if where.endswith(".py"):
        return True  # running it says what is missing
    package = where.partition(".")[0]
    with importable(Path.cwd()):
        return package in sys.modules or importlib.util.find_spec(package) is not None


def is_generated(factory: str) -> bool:
    """Whether a factory stands in a file that peel wrote: its `load` brings the weights."""
    path = Path(factory.rpartition(":")[0])
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(files.GENERATED)) == files.GENERATED.encode()
    return False


def build(factory: str) -> nn.Module:
    """Call a factory, `file.py:function` or `pkg.module:function`, without arguments.

    Returns:
        The module that it returns; initial weights are the same in every run.

    Raises:
        SourceError: it can't be found, raises, or returns no module.
    """
    function, file = _find(factory)
    try:
        with seeded(), importable(file.parent if file else Path.cwd()):
            module = function()
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"{factory} raised {told(error, file)}", hint="a factory is called without arguments and returns the model"
        ) from error
    if not isinstance(module, nn.Module):
        raise SourceError(
            f"{factory} returned {type(module).__name__}, not a torch.nn.Module",
            hint="a factory is called without arguments and returns the model",
        )
    return module


def call(function: str) -> Any:
    """Call a function of the user's, named as a factory is; random values are the same in every run.

    Raises:
        SourceError: it can't be found, or raises.
    """
    found, file = _find(function)
    try:
        with seeded(), importable(file.parent if file else Path.cwd()):
            return found()
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"{function} raised {told(error, file)}", hint="it is called without arguments and returns example inputs"
        ) from error


def _find(factory: str) -> tuple[Callable[[], Any], Path | None]:
    if not is_factory(factory):
        raise SourceError(f"{factory!r} names no factory", hint="write file.py:function or pkg.module:function")
    where, _, name = factory.rpartition(":")
    module = run_file(Path(where)) if where.endswith(".py") else _import(where)
    function = getattr(module, name, None)
    if function is None:
        near = difflib.get_close_matches(name, [key for key in vars(module) if not key.startswith("_")])
        hint = f"did you mean {' or '.join(f'{where}:{key}' for key in near)}?" if near else "check the function's name"
        raise SourceError(f"{where} has no function {name}", hint=hint)
    if not callable(function):
        raise SourceError(f"{factory} is no function but {type(function).__name__}", hint="wrap it in a function")
    return function, _file_of(module)


def _import(name: str) -> ModuleType:
    try:
        with importable(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SourceError(
            f"there is no module {error.name}", hint="install it, run peel from its folder, or write file.py:function"
        ) from None
    except (Exception, SystemExit) as error:
        raise SourceError(f"importing {name} raised {told(error)}", hint="it must import without errors") from error
