"""Any model file or name -> Subject."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from peelcli.config import Source
from peelcli.errors import InputError, SourceError, UsageError
from peelcli.records import Subject
from peelcli.sources import inputs, names, sound, state, trial, usercode
from peelcli.sources.usercode import RANDOM_WEIGHTS

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_INSIDE = ("module", "_orig_mod")  # where they, and what torch.compile returns, keep the real one


def load(spec: str, options: Source) -> Subject:
    """Turn a model file or a name into a module with an input that it accepts.

    Args:
        spec: a path; a name such as `timm:resnet50`; or a factory, `file.py:function`.
        options: what else the user said of it.

    Returns:
        The subject, on the CPU, its mode and flags as they were saved; what was guessed is in its notes.

    Raises:
        SourceError: there is no usable model.
        InputError: the input is missing, can't be read, or does not fit.
        UsageError: the options contradict the spec.
    """
    specs = tuple(inputs.parse(text) for text in options.input)  # a typo shows before the model is read
    module, name, notes = _open(spec, options)
    module = _usable(module, name)
    if not specs:
        specs, note = inputs.guess(module)
        return Subject(module, inputs.make(specs, module), name, (*notes, note))
    example = inputs.make(specs, module)
    _check_input(module, example)
    return Subject(module, example, name, notes)


def from_module(module: nn.Module, example: Any = None, name: str | None = None) -> Subject:
    """Take a module from Python.

    Args:
        module: not changed; wrappers of data parallelism and torch.compile are taken off.
        example: a tensor with the batch first, a tuple or list of forward's positional arguments, or None to guess.
        name: how the model is called in messages and plans; its class by default.

    Raises:
        SourceError: it is no module that can be used.
        InputError: the example does not fit.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"expected a torch.nn.Module, not {type(module).__name__}", hint="pass the model itself")
    name = name or type(_unwrapped(module)).__name__
    module = _usable(module, name)
    if example is None:
        specs, note = inputs.guess(module)
        return Subject(module, inputs.make(specs, module), name, (note,))
    arguments = (example,) if isinstance(example, Tensor) else example
    if not isinstance(arguments, (tuple, list)) or not any(isinstance(value, Tensor) for value in arguments):
        raise InputError(
            f"the example is {type(example).__name__}, not a tensor or a tuple of forward's arguments",
            hint="pass e.g. torch.randn(1, 3, 224, 224)",
        )
    _check_input(module, tuple(arguments))
    return Subject(module, tuple(arguments), name)


def _open(spec: str, options: Source) -> tuple[nn.Module, str, tuple[str, ...]]:
    """The module, its name, and notes; which kind of source it is was decided by looking."""
    path, code = Path(spec), Path(options.code) if options.code else None
    built = None
    if not path.exists():
        if names.is_name(spec):
            built = names.build(spec)
        elif usercode.is_factory(spec) and usercode.is_there(spec):
            built = usercode.build(spec), (RANDOM_WEIGHTS,)
        else:
            raise _no_such_file(path)
    if built is None:
        if options.weights is not None:
            raise UsageError(
                "--weights goes with a model by name or factory; MODEL is a file already",
                hint=f"give {options.weights} as MODEL, with --factory file.py:function",
            )
        return _from_file(path, options.factory, code, options.trust)
    if options.factory is not None:
        raise UsageError(f"--factory goes with a file of weights; {spec} builds the model already", "leave it out")
    module, notes = built
    if options.weights is not None:
        notes = state.load_into(module, Path(options.weights), code, options.trust)
    where, _, what = spec.rpartition(":")
    return module, f"{Path(where).name}:{Path(what).name}", notes


def _from_file(
    path: Path, factory: str | None, code: Path | None, trust: bool
) -> tuple[nn.Module, str, tuple[str, ...]]:
    found, notes = state.unwrap(state.read(path, code, trust), path)
    if factory is not None:
        module = _unwrapped(usercode.build(factory))
        weights = found.state_dict() if isinstance(found, nn.Module) else found
        return module, path.stem, notes + state.fit(module, weights, path)
    if isinstance(found, nn.Module):
        return found, path.stem, notes
    raise SourceError(
        f"{path} holds weights only (a state dict with {len(found)} tensors), not the model",
        hint="say what builds it: --factory file.py:function",
    )


def _no_such_file(path: Path) -> SourceError:
    if ":" in path.name:
        packages = ", ".join(f"{package}:" for package in names.BUILDERS)
        return SourceError(f"{path} is no file, name or factory", hint=f"names start with {packages}")
    try:
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    except OSError:
        near = []
    hint = f"did you mean {path.parent / near[0]}?" if near else "check the path"
    if not near and str(path) == path.stem:
        hint = f"a model by name is written torchvision:{path} or timm:{path}"
    return SourceError(f"{path}: no such file", hint=hint)


def _unwrapped(module: nn.Module) -> nn.Module:
    """The real module inside DataParallel, AveragedModel or what torch.compile returns."""
    while isinstance(module, _WRAPPERS) or isinstance(getattr(module, "_orig_mod", None), nn.Module):
        module = next(inner for key in _INSIDE if isinstance(inner := getattr(module, key, None), nn.Module))
    return module


def _usable(module: nn.Module, name: str) -> nn.Module:
    module = _unwrapped(module)
    sound.check(module, name)
    return module


def _check_input(module: nn.Module, example: tuple[Any, ...]) -> None:
    """Run forward once, on a copy, and say in one line what the module has against the input."""
    heard = trial.complaint(module, example)
    if heard is None:
        return
    shapes = " and ".join(inputs.describe(value) for value in example)
    try:
        specs, _ = inputs.guess(module)
        hint = "it runs with " + " ".join(f"--input {spec}" for spec in specs)
    except InputError:
        hint = "give the shape that it was trained on, e.g. --input 1,3,224,224"
    raise InputError(f"the model does not take the input {shapes}: {heard}", hint=hint)
