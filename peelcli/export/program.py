"""A slim model as a torch.export archive (.pt2): a graph and its weights, loaded without the model's own code."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from peelcli import files
from peelcli.errors import CheckFailed, ExportError
from peelcli.export.inputs import Example, Sizes, all_open, dynamic_shapes, labels, not_open, run
from peelcli.export.modules import evaluated, precisions, relative_difference
from peelcli.rebuild.compare import quietly
from peelcli.records import Check, Subject

_BATCHES = (2, 1, 3)  # 2 first: the size that is exported (the exporter specialises a batch of 1)
TOLERANCE = 1e-5  # round-off of float32, relative to the largest output


@dataclass(frozen=True)
class Exported:
    """A program, and the inputs to prove it on.

    Attributes:
        program: of the model in eval mode.
        cases: other inputs, with what the model makes of them.
        checks: which sizes are free: the batch, and others where they were asked for.
    """

    program: ExportedProgram
    cases: tuple[tuple[Example, list[torch.Tensor]], ...]
    checks: tuple[Check, ...]


def export(slim: Subject, name: str, kind: str, dynamic: Sequence[str] = ()) -> Exported:
    """Export a model in eval mode, with a dynamic batch where it allows one.

    Args:
        slim: not changed.
        name: how the file is called in messages.
        kind: of the file; the checks are called after it.
        dynamic: sizes that have to be free beside the batch, as `peelcli.freesizes` reads them.

    Raises:
        ExportError: torch.export can't follow the model, or not with those sizes free.
    """
    module, example = evaluated(slim.module), Example.of(slim.inputs)
    sizes, asked = all_open(module, example, dynamic)
    found = _freely(module, example, sizes, kind) if asked else ""
    if isinstance(found, Exported):
        return replace(found, checks=(*found.checks, Check(f"{kind}_dynamic_sizes", True, note=labels(sizes))))
    if asked:
        raise not_open(sizes, found)
    found = _freely(module, example, (), kind)
    if isinstance(found, Exported):
        return found
    try:
        program = _program(module, example, None)
        cases = _cases(module, example, (example.batch,) * 3)
    except Exception as error:
        raise ExportError(
            f"torch.export can't follow the model for {name}: {_line(error)}",
            hint="write .pt or .safetensors with --out, or change what the message speaks of in the model",
        ) from error
    size = f"the batch is fixed to {example.batch}" if example.batch else "the shapes are fixed"
    return Exported(program, cases, (Check(f"{kind}_dynamic_batch", None, note=f"not available, {size}: {found}"),))


def _freely(module: nn.Module, example: Example, sizes: Sizes, kind: str) -> Exported | str:
    """With a batch that may change, and with these sizes; else the reason why that can't be had."""
    if not example.batch:
        return "no input has a batch dimension"
    try:
        first = example.resized(_BATCHES[0])
        program = _program(module, first, dynamic_shapes(module, first, sizes, named=False))
        cases = _cases(module, example, _BATCHES, sizes)
        if largest(program.module(check_guards=False), cases) <= tolerance(module):
            return Exported(program, cases, (Check(f"{kind}_dynamic_batch", True, note="batch sizes 1, 2, 3"),))
    except Exception as error:  # the exporter and the user's forward raise anything
        return _line(error)
    return "its outputs depend on the batch size" if not sizes else "its outputs are others at other sizes"


def write(
    slim: Subject, metadata: Mapping[str, str], path: Path, name: str, dynamic: Sequence[str] = ()
) -> tuple[Check, ...]:
    """Write a .pt2 file, load it again and compare outputs.

    Args:
        slim: not changed.
        metadata: text that goes into the archive as extra files.
        path: the staged file.
        name: how the file is called in messages.
        dynamic: as for `export`.

    Raises:
        ExportError: torch.export can't follow the model, or not with those sizes free.
        CheckFailed: what was loaded does not compute what the model does.
    """
    with quietly():
        found = export(slim, name, "pt2", dynamic)
        _strip(found.program)
        buffer = io.BytesIO()
        torch.export.save(found.program, buffer, extra_files=dict(metadata))
        files.write_bytes(path, buffer.getbuffer())
        del buffer
        try:
            with path.open("rb") as file:
                again = torch.export.load(file)
            difference = largest(again.module(check_guards=False), found.cases)
        except Exception as error:
            raise CheckFailed(f"{name} does not load again: {_line(error)}, nothing was written") from error
    bound = tolerance(slim.module)
    if not difference <= bound:
        raise CheckFailed(f"{name} loads again as another model (difference {difference:.1e}), nothing was written")
    return (Check("pt2_reload", True, difference, bound), *found.checks)


def largest(module: nn.Module, cases: Iterable[tuple[Example, list[torch.Tensor]]]) -> float:
    """The largest relative difference over all cases."""
    return max(relative_difference(run(module, example), outputs) for example, outputs in cases)


def tolerance(module: nn.Module) -> float:
    """Round-off in the model's coarsest precision."""
    return max([TOLERANCE, *(16 * torch.finfo(kind).eps for kind in precisions(module) if kind.itemsize < 4)])


def _program(module: nn.Module, example: Example, shapes: dict[str, Any] | None) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(evaluated(module), example.arguments, dynamic_shapes=shapes)


def _cases(
    module: nn.Module, example: Example, batches: tuple[int, ...], sizes: Sizes = ()
) -> tuple[tuple[Example, list[torch.Tensor]], ...]:
    """What the model makes of other inputs; on a copy, since some models keep tensors between calls."""
    copied = evaluated(module)
    examples = [example.shuffled(batch, seed).stretched(sizes, seed) for seed, batch in enumerate(batches)]
    return tuple((other, run(copied, other)) for other in examples)


def _strip(program: ExportedProgram) -> None:
    """Stack traces hold paths of the user's machine."""
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                for key in ("stack_trace", "from_node", "custom"):
                    node.meta.pop(key, None)


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
