"""A slim model as a torch.export archive (.pt2): a graph and its weights, loaded without the model's own code."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from peelcli import files
from peelcli.errors import CheckFailed, ExportError
from peelcli.export.inputs import Example, dynamic_shapes, run
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
        dynamic: the check that says whether the batch is free.
    """

    program: ExportedProgram
    cases: tuple[tuple[Example, list[torch.Tensor]], ...]
    dynamic: Check


def export(slim: Subject, name: str, check: str) -> Exported:
    """Export a model in eval mode, with a dynamic batch where it allows one.

    Args:
        slim: not changed.
        name: how the file is called in messages.
        check: the name of the check on the batch.

    Raises:
        ExportError: torch.export can't follow the model.
    """
    module, example = evaluated(slim.module), Example.of(slim.inputs)
    reason = "no input has a batch dimension"
    if example.batch:
        try:
            program = _program(module, example.resized(_BATCHES[0]), dynamic=True)
            cases = _cases(module, example, _BATCHES)
            if largest(program.module(check_guards=False), cases) <= tolerance(module):
                return Exported(program, cases, Check(check, True, note="batch sizes 1, 2, 3"))
            reason = "its outputs depend on the batch size"
        except Exception as error:  # the exporter and the user's forward raise anything
            reason = _line(error)
    try:
        program = _program(module, example, dynamic=False)
        cases = _cases(module, example, (example.batch,) * 3)
    except Exception as error:
        raise ExportError(
            f"torch.export can't follow the model for {name}: {_line(error)}",
            hint="write .pt or .safetensors with --out, or change what the message speaks of in the model",
        ) from error
    size = f"the batch is fixed to {example.batch}" if example.batch else "the shapes are fixed"
    return Exported(program, cases, Check(check, None, note=f"not available, {size}: {reason}"))


def write(slim: Subject, metadata: Mapping[str, str], path: Path, name: str) -> tuple[Check, ...]:
    """Write a .pt2 file, load it again and compare outputs.

    Args:
        slim: not changed.
        metadata: text that goes into the archive as extra files.
        path: the staged file.
        name: how the file is called in messages.

    Raises:
        ExportError: torch.export can't follow the model.
        CheckFailed: what was loaded does not compute what the model does.
    """
    with quietly():
        found = export(slim, name, "pt2_dynamic_batch")
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
    return Check("pt2_reload", True, difference, bound), found.dynamic


def largest(module: nn.Module, cases: Iterable[tuple[Example, list[torch.Tensor]]]) -> float:
    """The largest relative difference over all cases."""
    return max(relative_difference(run(module, example), outputs) for example, outputs in cases)


def tolerance(module: nn.Module) -> float:
    """Round-off in the model's coarsest precision."""
    return max([TOLERANCE, *(16 * torch.finfo(kind).eps for kind in precisions(module) if kind.itemsize < 4)])


def _program(module: nn.Module, example: Example, dynamic: bool) -> ExportedProgram:
    shapes = dynamic_shapes(module, example) if dynamic else None
    with torch.no_grad():
        return torch.export.export(evaluated(module), example.arguments, dynamic_shapes=shapes)


def _cases(
    module: nn.Module, example: Example, batches: tuple[int, ...]
) -> tuple[tuple[Example, list[torch.Tensor]], ...]:
    """What the model makes of other inputs; on a copy, since some models keep tensors between calls."""
    copied = evaluated(module)
    examples = [example.shuffled(batch, seed) for seed, batch in enumerate(batches)]
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
