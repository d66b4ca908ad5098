"""Files that hold a graph instead of Python classes, and bring their own example input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from peelcli.config import Source
from peelcli.errors import UsageError
from peelcli.inputtext import Spec
from peelcli.sources import exported, script
from peelcli.sources.sniff import Kind, sniff

KINDS = (Kind.EXPORTED, Kind.TORCHSCRIPT, Kind.ONNX)


class Program(NamedTuple):
    """A graph as layers.

    Attributes:
        module: in eval mode.
        inputs: what it brought, one tensor for each argument; None where the user's own input is used.
        notes: what was found out on the way.
    """

    module: nn.Module
    inputs: tuple[Any, ...] | None
    notes: tuple[str, ...]


def is_program(path: Path) -> bool:
    """Whether a path is a file of this kind."""
    return path.is_file() and sniff(path) in KINDS


def load(path: Path, options: Source, specs: Sequence[Spec] = ()) -> Program:
    """Open it and build its layers.

    Args:
        path: the file.
        options: what else the user said of it.
        specs: the inputs that the user asked for; TorchScript is converted with them, and has none of its own.

    Raises:
        SourceError: the file can't be used.
        InputError: TorchScript for which no input is given or can be guessed.
        UsageError: the options contradict the file.
    """
    if options.weights is not None:
        raise UsageError(f"--weights goes with a model by name or factory; {path} brings its weights", "leave it out")
    code = Path(options.code) if options.code else None
    if sniff(path) is Kind.ONNX:
        from peelcli.sources.onnxfile import load as onnx_files  # onnx loads here, other files don't need it

        graph = onnx_files.load(path, specs)
        return Program(graph.module, None if options.inputs is not None else graph.inputs, graph.notes)
    if sniff(path) is Kind.TORCHSCRIPT:
        found = script.load(path, code, specs, options.inputs)
        return Program(found.module, found.inputs, found.notes)
    found = exported.load(path, code, options.trust)
    if specs or options.inputs is not None:
        return Program(found.module, None, found.notes[1:])  # the first says what input it brought
    return Program(found.module, found.inputs, found.notes)
