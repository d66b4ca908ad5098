"""An ONNX file -> a module: rebuilt, then shown to compute what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from peelcli import onnxnames
from peelcli.errors import SourceError
from peelcli.inputtext import Spec
from peelcli.sources import inputs
from peelcli.sources.onnxfile import example, graph, parity
from peelcli.sources.onnxfile.builder import ODD_BATCH, Builder
from peelcli.sources.onnxfile.example import Shapes
from peelcli.sources.onnxfile.read import OnnxFile, read

_NORMS = nn.modules.batchnorm._BatchNorm
_FOLDED = "the file holds no batch norms: --score bn is not available"


class Loaded(NamedTuple):
    """A file as layers.

    Attributes:
        module: in eval mode.
        inputs: an example, one tensor for each of the graph's inputs.
        notes: what was guessed or fixed, one sentence each.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    notes: tuple[str, ...]


Reference = Callable[[], parity.Runtime]


def load(path: Path, given: Sequence[Spec] = ()) -> Loaded:
    """Take a model from an ONNX file; nothing in it is executed but ONNX's own ops.

    Args:
        path: the file; its weights may lie in data files in its folder.
        given: the inputs that the user asked for, for the sizes that the file leaves open.

    Raises:
        SourceError: the file is damaged, has an op that is not known, or the module does not compute the same.
        InputError: the given sizes contradict the file.
    """
    file = read(path)

    @cache
    def reference() -> parity.Runtime:  # made once the graph was read: what that refuses is never run
        return parity.Runtime(file)

    problem: SourceError | None = None
    for shapes in example.shapes(file, given):
        try:
            found = _proven(file, shapes, given, reference)
        except SourceError as error:
            problem = problem or error
            continue
        notes = found.notes
        if shapes.guessed:
            said = inputs.flags(example.specs_at(file, shapes, shapes.batch or 1, given))
            notes = (*notes, f"the file leaves sizes of its inputs open; they were guessed: {said}")
        if not any(isinstance(part, _NORMS) for part in found.module.modules()):
            notes = (*notes, _FOLDED)
        return found._replace(notes=notes)
    assert problem is not None
    raise problem


def _proven(file: OnnxFile, shapes: Shapes, given: Sequence[Spec], reference: Reference) -> Loaded:
    """The module with a batch that may change, where that can be shown; else with the file's own."""
    if shapes.batch is None:
        return _dynamic(file, shapes, given, reference)
    own = f"the file fixes the batch to {shapes.batch}"
    try:
        return _following(file, shapes, given, reference)
    except SourceError as error:
        found = _fixed(file, shapes, given, reference)
        told = error.message.removeprefix(f"{file.path} can't be read: ")
        return found._replace(notes=(f"{own}, and it can't be changed ({told})",))


def _dynamic(file: OnnxFile, shapes: Shapes, given: Sequence[Spec], reference: Reference) -> Loaded:
    """The batch is a size that the file leaves open: compared at two batches."""
    module = _built(file, shapes, follow=False)
    values = _values(file, module, shapes, given, 1)
    _check(file, parity.run(module, values), reference().run(values))
    twice = tuple(torch.cat([value, value.flip(-1)]) if value.dim() else value for value in values)
    if all(sizes[:1] == (None,) for sizes in shapes.sizes.values()):
        _check(file, parity.run(module, twice), reference().run(twice))
    return Loaded(module, values, ())


def _following(file: OnnxFile, shapes: Shapes, given: Sequence[Spec], reference: Reference) -> Loaded:
    """The file's constants are made for one batch: they are made to follow, and two batches are compared with one."""
    assert shapes.batch is not None
    module = _built(file, shapes, follow=True)
    values = _values(file, module, shapes, (), shapes.batch)
    one, other = reference().run(values), reference().run(flipped := tuple(_other(value) for value in values))
    _check(file, parity.run(module, values), one)
    both = parity.run(module, tuple(torch.cat(pair) for pair in zip(values, flipped, strict=True)))
    if any(not part.dim() or part.shape[0] != shapes.batch for part in one):
        raise SourceError("an output has no batch")
    _check(file, both, [torch.cat(pair) for pair in zip(one, other, strict=True)])
    return Loaded(module, _values(file, module, shapes, given, shapes.batch), ())


def _fixed(file: OnnxFile, shapes: Shapes, given: Sequence[Spec], reference: Reference) -> Loaded:
    """As the file has it."""
    module = _built(file, shapes, follow=False)
    values = _values(file, module, shapes, (), shapes.batch or 1)
    _check(file, parity.run(module, values), reference().run(values))
    return Loaded(module, _values(file, module, shapes, given, shapes.batch or 1), ())


def _other(value: Tensor) -> Tensor:
    """The same entries in another order."""
    return value.flip(tuple(range(value.dim())))


def _built(file: OnnxFile, shapes: Shapes, follow: bool) -> nn.Module:
    dynamic = shapes.batch is None or follow
    batch = ODD_BATCH if dynamic else shapes.batch or 1
    builder = Builder(batch, shapes.batch or 1, follow, shapes.settled, file.weights)
    module = graph.build(file, builder, shapes.at(batch))
    module.meta[onnxnames.OPEN_SIZES] = example.open_sizes(file)
    return module


def _values(file: OnnxFile, module: nn.Module, shapes: Shapes, given: Sequence[Spec], batch: int) -> tuple[Tensor, ...]:
    return inputs.make(example.specs_at(file, shapes, batch, given), module)


def _check(file: OnnxFile, ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Refuse a module that computes something else."""
    found, allowed = parity.difference(ours, theirs), parity.tolerance(file)
    if not found <= allowed:
        raise SourceError(
            f"{file.path} can't be read: the module made from it differs from onnxruntime by {found:.1e} (relative), "
            f"more than {allowed:.0e}",
            hint="please report this file's ops; give the PyTorch model that it was made from until then",
        )
