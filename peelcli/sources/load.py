"""Any model file or name -> Subject."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_map

from peelcli.config import Source, pick
from peelcli.errors import InputError, SourceError, UsageError
from peelcli.records import Subject
from peelcli.sources import inputs, names, programs, signature, sound, state, trial, usercode
from peelcli.sources.folded import fold
from peelcli.sources.usercode import RANDOM_WEIGHTS
from peelcli.tensors import into_own_memory, tensors_in

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
    specs = _specs(options)  # a typo shows before the model is read
    if options.factory is None and programs.is_program(Path(spec)):
        return _from_program(Path(spec), options, specs)
    module, name, notes = _open(spec, options)
    module, more = fold(_read(module, name))
    return _with_input(module, name, (*notes, *more), specs, options.inputs)


def _from_program(path: Path, options: Source, specs: tuple[inputs.Spec, ...]) -> Subject:
    """A graph brings its own input; the user's own wins."""
    module, example, notes = programs.load(path, options, specs)
    module = _read(module, path.stem)
    if example is None:
        return _with_input(module, path.stem, notes, specs, options.inputs)
    return Subject(module, example, path.stem, notes)


def from_module(
    module: nn.Module, example: Any = None, name: str | None = None, options: Source | None = None
) -> Subject:
    """Take a module from Python.

    Args:
        module: not changed; wrappers of data parallelism and torch.compile are taken off.
        example: a tensor with the batch first, a tuple or list of forward's positional arguments, a dict of named
            ones, or None for what the options say.
        name: how the model is called in messages and plans; its class by default.
        options: of which only `input` and `inputs` matter; where they say nothing the input is guessed.

    Raises:
        SourceError: it is no module that can be used.
        InputError: the example does not fit.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"expected a torch.nn.Module, not {type(module).__name__}", hint="pass the model itself")
    name = name or type(_unwrapped(module)).__name__
    module, notes = fold(_usable(module, name))
    if example is None:
        options = options or pick(Source, {})
        return _with_input(module, name, notes, _specs(options), options.inputs)
    arguments = inputs.arrange(module, example)
    _check_input(module, arguments)
    return Subject(module, arguments, name, notes)


def _specs(options: Source) -> tuple[inputs.Spec, ...]:
    if options.input and options.inputs:
        raise UsageError("--input and --inputs both say what the model is given", hint="leave one of them out")
    return tuple(inputs.parse(text) for text in options.input)


def _with_input(
    module: nn.Module, name: str, notes: tuple[str, ...], specs: tuple[inputs.Spec, ...], function: str | None
) -> Subject:
    """A subject with the input that was asked for, or that the user's function gives, or a guessed one."""
    if function is not None:
        example, note = inputs.from_function(module, function)
        notes = (*notes, note)
    elif specs:
        example = _made(specs, module)
    else:
        specs, note = inputs.guess(module)
        return Subject(module, inputs.make(specs, module), name, (*notes, note), guessed=note)
    _check_input(module, example)
    return Subject(module, example, name, notes)


def _made(specs: tuple[inputs.Spec, ...], module: nn.Module) -> tuple[Any, ...]:
    """Inputs from what the user asked for; where that can't be, the error also says what would run."""
    try:
        return inputs.make(specs, module)
    except InputError as error:
        raise InputError(error.message, hint=_what_runs(module) or error.hint) from None


def _open(spec: str, options: Source) -> tuple[nn.Module, str, tuple[str, ...]]:
    """The module, its name, and notes; which kind of source it is was decided by looking."""
    path, code = Path(spec), Path(options.code) if options.code else None
    built = None
    if not path.exists():
        if names.is_name(spec):
            built = names.build(spec)
        elif usercode.is_factory(spec) and usercode.is_there(spec):
            built = usercode.build(spec), (() if usercode.is_generated(spec) else (RANDOM_WEIGHTS,))
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


def _read(module: nn.Module, name: str) -> nn.Module:
    """A module that nobody else holds."""
    module = _usable(module, name)
    into_own_memory(module)
    return module


def _usable(module: nn.Module, name: str) -> nn.Module:
    module = _unwrapped(module)
    sound.check(module, name)
    return module


def _check_input(module: nn.Module, example: tuple[Any, ...]) -> None:
    """Run forward once, on a copy, and say in one line what the module has against the input."""
    own = inputs.own_dtype(module)
    shapes = " and ".join(inputs.describe(value, own) for value in example)
    tensors = tensors_in(example)
    if tensors and not any(tensor.numel() for tensor in tensors):
        raise InputError(f"the input {shapes} is empty", hint="give one sample, or more")
    heard = trial.complaint(module, example)
    if heard is None:
        return
    if heard.startswith(trial.NO_COPY):
        raise SourceError(heard, hint="give it a __deepcopy__ or __getstate__ that leaves that out")
    signature.check_keywords(module)
    raise InputError(
        f"the model does not take the input {shapes}: {heard}; it is called as {signature.text(module)}",
        hint=_other_input(module, example),
    )


def _other_input(module: nn.Module, example: tuple[Any, ...]) -> str:
    """An input that a module runs on, in words."""
    own = inputs.own_dtype(module)

    def convert(leaf: Any) -> Any:
        return leaf.to(own) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    converted = tree_map(convert, example)
    if trial.complaint(module, converted) is None:
        kind = str(own).removeprefix("torch.")
        return f"its weights are {kind}: give the input in that precision, or convert the model"
    return _what_runs(module) or "give the shape that it was trained on, e.g. --input 1,3,224,224"


def _what_runs(module: nn.Module) -> str:
    """A hint with flags that work, or nothing where none are found."""
    try:
        return f"it runs with {inputs.flags(inputs.guess(module)[0])}"
    except InputError:
        return ""
