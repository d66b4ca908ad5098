"""A slim model as a Python file that needs torch alone, and its weights beside it."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from peelcli import files
from peelcli.errors import CheckFailed, ExportError, PeelError
from peelcli.export.inputs import Example
from peelcli.export.program import export, largest, tolerance
from peelcli.export.safetensors import sorted_header
from peelcli.rebuild import source
from peelcli.rebuild.build import Rebuilt, rebuild
from peelcli.rebuild.compare import quietly
from peelcli.records import Check, Subject


def write(slim: Subject, metadata: Mapping[str, str], path: Path, beside: Path, name: str) -> tuple[Check, ...]:
    """Write the code and the weights, run the code, load the weights and compare outputs.

    Args:
        slim: not changed.
        metadata: figures of the model; the counts go into the file's docstring, all into the weights' header.
        path: the staged .py file.
        beside: the staged .safetensors file.
        name: how the file is called in messages.

    Raises:
        ExportError: torch.export can't follow the model, or it can't be written as layers.
        CheckFailed: what was loaded does not compute what the model does.
    """
    from safetensors.torch import save

    with quietly():
        found = export(slim, name, "py")
        try:
            rebuilt = rebuild(found.program)
        except PeelError as error:
            raise ExportError(
                f"the model can't be written as Python: {error.message}", hint="write .pt2 or .safetensors with --out"
            ) from error
        text = source.text(rebuilt, f"{files.GENERATED} {metadata.get('peel.version', '')}.", _about(name, metadata))
        files.write_bytes(path, text.encode())
        weights = save(_weights(rebuilt), {**metadata, "format": "pt"})
        end = 8 + int.from_bytes(weights[:8], "little")
        files.write_bytes(beside, weights[:8] + sorted_header(weights[8:end]) + weights[end:])
        try:
            again = _loaded(text, path, beside)
            difference = largest(again, [(_tensors_of(example), outputs) for example, outputs in found.cases])
        except Exception as error:  # the file's own code
            raise CheckFailed(f"{name} does not load again: {error}, nothing was written") from error
    bound = tolerance(slim.module)
    if not difference <= bound:
        raise CheckFailed(f"{name} loads again as another model (difference {difference:.1e}), nothing was written")
    return (Check("py_reload", True, difference, bound), *found.checks)


def _tensors_of(example: Example) -> Example:
    """The generated forward takes tensors: nests are laid flat, and other arguments are baked in."""
    return Example(tuple(example.tensors()), example.batch)


def _weights(rebuilt: Rebuilt) -> dict[str, torch.Tensor]:
    """Each tensor alone in its memory, as the format wants it."""
    return {key: value.detach().clone().contiguous() for key, value in source.weights(rebuilt.module).items()}


def _about(name: str, metadata: Mapping[str, str]) -> str:
    before, after = metadata.get("peel.macs_before", "?"), metadata.get("peel.macs", "?")
    stem = Path(name).stem
    return (
        f"{metadata.get('peel.model', stem)} pruned from {before} to {after} multiply-adds for one sample.\n\n"
        f"It needs torch and safetensors. The weights lie in {stem}.safetensors beside this file:\n\n"
        f"    from {stem} import load\n    model = load()\n"
    )


def _loaded(text: str, path: Path, beside: Path) -> nn.Module:
    module = ModuleType("slim")
    module.__file__ = str(path)
    builtins.exec(compile(text, str(path), "exec"), vars(module))
    loaded: nn.Module = module.load(beside)
    return loaded
