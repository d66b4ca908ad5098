"""What the inputs and outputs of an exported graph are called."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from peelcli.export.inputs import Example, bound
from peelcli.onnxnames import INTERFACE
from peelcli.tensors import named_tensors, tensors_in


def graph_names(module: nn.Module, example: Example, outputs: list[str]) -> tuple[list[str], list[str]]:
    """Names of the graph's inputs and outputs, each free in the graph.

    Those of the ONNX file that the model was made of, so that what runs the one runs the other. Else `input` for a
    single tensor, forward's argument names, numbered where one holds several, for more; and the given names of outputs.
    """
    inputs = [
        name
        for argument, value in bound(module, example).items()
        for name in _numbered(argument, len(tensors_in(value)))
    ]
    inputs = inputs if len(inputs) > 1 else ["input"]
    kept = module.meta.get(INTERFACE) if isinstance(module, fx.GraphModule) else None
    if kept and list(map(len, kept)) == [len(inputs), len(outputs)]:
        inputs, outputs = kept
    used = {key for key, _ in named_tensors(module)}
    return [_free(name, used) for name in inputs], [_free(name, used) for name in outputs]


def output_names(outputs: Any) -> list[str]:
    """Keys of a dict, a named tuple or a dataclass, numbered where one holds several; else `output` or `output_0`..."""
    fields = _fields(outputs)
    held = [tensors_in(value) for value in fields.values()]
    everything = tensors_in(outputs)
    if [id(tensor) for tensor in itertools.chain(*held)] != [id(tensor) for tensor in everything]:
        return _numbered("output", len(everything))
    return [name for field, tensors in zip(fields, held, strict=True) for name in _numbered(field, len(tensors))]


def _fields(value: Any) -> dict[str, Any]:
    """What is in a container whose entries have names; nothing where they have none."""
    if isinstance(value, Mapping):
        return {str(key): entry for key, entry in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}


def _numbered(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}_{position}" for position in range(count)]


def _free(name: str, used: set[str]) -> str:
    """A name that nothing else in the graph has; it counts as used from now on."""
    while name in used:
        name += "_"
    used.add(name)
    return name
