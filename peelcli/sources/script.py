"""TorchScript archives: converted to an exported program, and that to layers.

torch.jit.load unpickles tensors and TorchScript's own classes only; the code in the archive is TorchScript, which can
call operators but not Python.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from peelcli.errors import SourceError
from peelcli.inputtext import Spec
from peelcli.rebuild.build import Rebuilt
from peelcli.rebuild.compare import quietly
from peelcli.sources import archive, exported, inputs, usercode
from peelcli.sources.sniff import cut_short
from peelcli.sources.specs import describe

_NEXT = "export the original to .pt2: torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
_SCRIPT = "the script"  # a name that no layer has
_LAYERS: dict[int, Callable[..., nn.Module]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


def load(path: Path, code: Path | None, specs: Sequence[Spec] = (), function: str | None = None) -> Rebuilt:
    """Open a TorchScript file and build its layers.

    Args:
        path: the file.
        code: the user's Python file, run first: it may load the libraries of the script's operators.
        specs: the inputs to convert it with; guessed where there are none.
        function: the user's function that makes the inputs, instead.

    Raises:
        SourceError: it is damaged, needs a library that is not here, or can't be converted.
        InputError: no input is given, and none could be guessed.
    """
    if code is not None:
        usercode.run_file(code)
    archive.check_script(path)
    with quietly():
        module = _opened(path)
        if any(part.training for part in module.modules() if not isinstance(part, nn.Identity)):
            module.eval()
        example, note = _example(module, specs, function)
        program = _converted(module, example, path)
        found = exported.built(program, path, (example, {}), {name for name, _ in module.named_parameters()})
    notes = (*((note,) if note else ()), f"{path.name} was converted from TorchScript", *found.notes)
    return Rebuilt(found.module, found.recipes, found.inputs, notes)


def weights(path: Path, code: Path | None = None) -> dict[str, torch.Tensor]:
    """The state dict of a TorchScript file."""
    if code is not None:
        usercode.run_file(code)
    archive.check_script(path)
    with quietly():
        return dict(_opened(path).state_dict())


def _opened(path: Path) -> torch.jit.ScriptModule:
    content = archive.without_source_lines(path)
    try:
        module: torch.jit.ScriptModule = torch.jit.load(content, map_location="cpu")
    except Exception as error:  # the reader and TorchScript's compiler raise RuntimeError for everything
        unknown = re.search(r"(?:Unknown builtin op:|schema for operator|find operator)\s*([\w:]+)", str(error))
        if unknown is not None:
            raise archive.missing_operator(path, unknown[1].rstrip(":")) from None
        if "PytorchStreamReader" in str(error) or "unexpected EOF" in str(error):
            raise cut_short(path) from None
        raise SourceError(f"{path} can't be loaded: {usercode.told(error)}", hint=_NEXT) from error
    return module


def _example(module: torch.jit.ScriptModule, specs: Sequence[Spec], function: str | None) -> tuple[Any, str]:
    """Positional arguments, and a note where they were not simply asked for."""
    standin = _StandIn(module)
    if function is not None:
        return inputs.from_function(standin, function)
    if specs:
        return inputs.make(specs, standin), ""
    guessed, note = inputs.guess(standin)
    return inputs.make(guessed, standin), note


class _StandIn(nn.Module):
    """The script with a signature that Python can read, and its first layers with classes that can be recognised."""

    forward: Callable[..., Any]

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        for path, layer in _first_layers(script):
            _place(self, path, layer)
        self.add_module(_SCRIPT, script)
        arguments: list[Any] = script.forward.schema.arguments[1:]  # type: ignore[attr-defined]
        parameters = [
            inspect.Parameter(
                argument.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=argument.default_value if argument.has_default_value() else inspect.Parameter.empty,
            )
            for argument in arguments
        ]

        def forward(*given: Any, **named: Any) -> Any:
            return self.get_submodule(_SCRIPT)(*given, **named)

        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward


def _first_layers(script: torch.jit.ScriptModule) -> list[tuple[str, nn.Module]]:
    """Layers of the kinds that an input can be guessed from, by their paths and without weights."""
    found: list[tuple[str, nn.Module]] = []
    for path, part in script.named_modules():
        kind, weight = getattr(part, "original_name", ""), getattr(part, "weight", None)
        layer: nn.Module | None = None
        if not isinstance(weight, torch.Tensor) or not path:
            continue
        with torch.device("meta"):
            if kind.startswith("Conv") and weight.dim() in _LAYERS:
                layer = _LAYERS[weight.dim()](weight.shape[1], weight.shape[0], tuple(weight.shape[2:]))
            elif kind == "Linear":
                layer = nn.Linear(weight.shape[1], weight.shape[0])
            elif kind == "Embedding":
                layer = nn.Embedding(*weight.shape)
        if layer is not None:
            layer._parameters.clear()
            found.append((path, layer))
    return found


def _place(root: nn.Module, path: str, layer: nn.Module) -> None:
    *above, name = path.split(".")
    for part in above:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(name, layer)


def _converted(module: torch.jit.ScriptModule, example: tuple[Any, ...], path: Path) -> ExportedProgram:
    from torch._export.converter import TS2EPConverter

    shapes, failed = " and ".join(describe(value) for value in example), Exception()
    try:
        with torch.no_grad():
            module(*example)
    except Exception as error:
        raise SourceError(
            f"{path} does not run on the input {shapes}: {_last(error)}",
            hint="give its shape, e.g. --input 1,3,224,224",
        ) from error
    for simplified in (False, True):
        try:
            with torch.no_grad():
                return TS2EPConverter(_frozen(module) if simplified else module, example).convert()
        except Exception as error:  # the converter is young: it raises anything
            failed = error
    raise SourceError(f"{path} can't be converted from TorchScript: {_last(failed)}", hint=_NEXT) from failed


def _frozen(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The same script with its settings as constants, which decides branches on them; weights keep their names."""
    frozen: torch.jit.ScriptModule = torch.jit._recursive.wrap_cpp_module(
        torch._C._freeze_module(module._c, [], True, True)
    )
    return frozen


def _last(error: BaseException) -> str:
    """TorchScript says what went wrong at the end of its own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in reversed(lines) if re.match(r"\w*(Error|Exception)\b", line)), lines[0] if lines else ""
    )
    return (told or type(error).__name__)[:200]
