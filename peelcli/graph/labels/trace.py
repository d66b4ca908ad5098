"""Run the label pass over a module and resolve what it found."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from torch import nn

from peelcli.graph.labels import modes
from peelcli.graph.labels.classes import Obstacle
from peelcli.graph.labels.resolve import Resolved
from peelcli.graph.labels.run import Findings, LabelRun, Slot
from peelcli.graph.labels.sizes import Attr, Dim, Op, Source, Tracked, leaves, track_attributes
from peelcli.tensors import tensors_in

OUTPUT_REASON = "its channels are the model's output"
SECONDS = 60.0  # of computing, for one pass


def find_units(module: nn.Module, inputs: tuple[Any, ...], seconds: float = SECONDS) -> Resolved:
    """Find what can only go together, by one forward pass on labels.

    Args:
        module: a copy that may be changed, in eval mode, usually on device "meta".
        inputs: positional arguments of its forward.
        seconds: of computing that the pass may take; a busy machine does not count.

    Raises:
        TimeoutError: it took longer.
    """
    Tracked.leaks, Tracked.matches = [], []
    found = Findings(integers=track_attributes(module))
    deadline = time.thread_time() + seconds
    _run(module, inputs, found, deadline)
    idle = [p for p, m in module.named_modules() if p not in found.ran and m._parameters]
    if idle:
        _run_training(module, inputs, found, deadline)
    _note_matches(found)
    leaked, Tracked.leaks, Tracked.matches = Tracked.leaks, [], []
    _note_leaks(found, leaked)
    return Resolved(found)


def _run(module: nn.Module, inputs: tuple[Any, ...], found: Findings, deadline: float) -> None:
    run = LabelRun(module, found, deadline)
    modes.mark_inputs(run, tensors_in(inputs))
    with modes.watching(run, module):
        outputs = tensors_in(module(*inputs))
    for output in outputs:
        run.lock(run.of(output).factors, OUTPUT_REASON)


def _run_training(module: nn.Module, inputs: tuple[Any, ...], found: Findings, deadline: float) -> None:
    """Auxiliary heads run in training only, and must lose what they read; norms stay as in eval mode."""
    for child in module.modules():
        child.training = not isinstance(child, nn.modules.batchnorm._NormBase)
    beside = replace(found, products=[], blends=[], calls={})
    try:
        _run(module, inputs, beside, deadline)
    except TimeoutError:
        raise
    except Exception:  # whatever a user's forward raises, where it wants targets for example
        return
    finally:
        module.eval()


def _note_leaks(found: Findings, leaked: list[tuple[int, Source]]) -> None:
    """A size that became a number in a formula must stay what it is."""
    obstacle = Obstacle("the number of its channels is used in a formula")
    for value, source in leaked:
        found.slots.append(Slot(source, None, obstacle, value))


def _note_matches(found: Findings) -> None:
    """Where code compares a tensor's size with an integer that it keeps, the two should stay equal."""
    for one, other in Tracked.matches:
        sides = (one.source, other.source)
        if any(_has(side, Dim) for side in sides) and any(_has(side, Attr) for side in sides):
            source = Op(int.__sub__, sides)
            found.slots.append(Slot(source, None, Obstacle("a size is compared"), 0, soft=True))


def _has(source: Source, kind: type) -> bool:
    return any(isinstance(leaf, kind) for leaf in leaves(source))
