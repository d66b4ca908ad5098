"""Programs that torch.export.save wrote: a graph of operators, made into layers again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from peelcli.errors import PeelError, SourceError
from peelcli.rebuild.build import Rebuilt, rebuild
from peelcli.rebuild.compare import quietly
from peelcli.sources import archive, usercode
from peelcli.sources.inputs import describe
from peelcli.sources.sniff import cut_short
from peelcli.tensors import tensors_in

_LARGEST = 2**35  # bytes of one tensor on the way; no model that runs on one machine has a larger one
_DAMAGE = ("PytorchStreamReader", "unexpected EOF", "truncated", "setStorage", "is out of bounds", "out of bounds for")


class _TooLarge(Exception):
    """An operator would make a tensor beyond all bounds."""


def load(path: Path, code: Path | None = None, trust: bool = False) -> Rebuilt:
    """Open a .pt2 file and build its layers.

    Args:
        path: the file.
        code: the user's Python file, run first: it may load the libraries of the program's operators.
        trust: unpickle even what would run code.

    Returns:
        The module with example inputs and notes.

    Raises:
        SourceError: the file is damaged or unsafe, or the program can't be made into layers.
    """
    if code is not None:
        usercode.run_file(code)
    archive.check_exported(path, trust)
    with quietly():
        try:
            with path.open("rb") as file:
                program = torch.export.load(file)
        except Exception as error:  # the reader, the parser and torch's checks raise anything
            raise _unreadable(path, error) from error
        return built(program, path)


def built(program: ExportedProgram, path: Path, example: Any = None, parameters: Collection[str] = ()) -> Rebuilt:
    """Layers of a program, with a note on the example inputs that it brought."""
    try:
        _check_sizes(program, example)
        found = rebuild(program, example, parameters)
    except PeelError as error:
        error.message = f"{path}: {error.message}"
        error.args = (error.message,)
        raise
    except Exception as error:  # the program runs here
        raise SourceError(
            f"{path}: the program can't be run: {usercode.told(error)}",
            hint="export it again, or give the module itself",
        ) from error
    if example is not None:
        return found
    shapes = " and ".join(describe(value) for value in found.inputs)
    note = f"input {shapes} taken from {path.name}"
    return Rebuilt(found.module, found.recipes, found.inputs, (note, *found.notes))


class _Bounded(TorchDispatchMode):
    """Stops an operator's result from being larger than any machine's memory."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            if tensor.numel() * tensor.element_size() > _LARGEST:
                raise _TooLarge(f"{func} makes a tensor of {tensor.numel() * tensor.element_size():.1e} bytes")
        return result


def _check_sizes(program: ExportedProgram, example: Any) -> None:
    """Run the program once on shapes alone, where nothing is computed and no memory is used."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    args, kwargs = example or program.example_inputs or ((), {})
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
            args, kwargs = pytree.tree_map_only(torch.Tensor, fake.from_tensor, (args, kwargs))
            with _Bounded():  # type: ignore[no-untyped-call]
                program.module(check_guards=False)(*args, **kwargs)
    except _TooLarge as error:
        raise SourceError(f"the program can't be run: {error}", hint="get the file again") from None
    except Exception:  # what really stands in the way shows when it runs
        return


def _unreadable(path: Path, error: BaseException) -> SourceError:
    if any(sign in str(error) for sign in _DAMAGE):
        return cut_short(path)
    return SourceError(
        f"{path} can't be loaded by torch {torch.__version__}: {usercode.told(error)}",
        hint="export it again with this torch: torch.export.save(torch.export.export(model, inputs), 'model.pt2')",
    )
