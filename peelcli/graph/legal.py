"""Which widths are legal: whole bundles, aligned to what kernels like, never below the floor."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from peelcli.errors import UsageError
from peelcli.records import Group, Locked

AUTO_ALIGNMENTS = (16, 8, 4, 2, 1)
LEAST_CHOICES = 4  # a narrow group keeps at least so many legal widths under --align auto


@dataclass(frozen=True, slots=True)
class Legality:
    """The user's wishes on widths.

    Attributes:
        align: widths in multiples of this, or "auto".
        min_keep: least share of a group's channels that stays, in (0, 1].
    """

    align: int | str = "auto"
    min_keep: float = 0.1


def step_and_floor(full: int, bundle: int, legality: Legality) -> tuple[int, int]:
    """The step between legal widths and the least of them, both in channels.

    A floor equal to `full` says that the group has no narrower legal width.
    """
    step = _step(full, bundle, legality.align)
    wanted = math.ceil(Fraction(str(legality.min_keep)) * full)
    floor = min(full, max(step, math.ceil(wanted / step) * step))
    return step, floor


def _step(full: int, bundle: int, align: int | str) -> int:
    if align != "auto":
        return math.lcm(bundle, int(align))
    for alignment in AUTO_ALIGNMENTS:
        step = math.lcm(bundle, alignment)
        if full >= LEAST_CHOICES * step:
            return step
    return bundle


def grant(groups: Sequence[Group], legality: Legality, ignore: Sequence[str]) -> tuple[Group, ...]:
    """The groups with the user's wishes on them: legal widths, and locks of what is ignored or has no choice.

    Args:
        groups: as a tracer found them; their step and floor are not looked at.
        legality: the wishes on widths.
        ignore: glob patterns of layers whose output width must not change.

    Raises:
        UsageError: a pattern that matches no layer.
    """
    layers = {layer for group in groups for layer in (*group.layers, *_width_layers(group))}
    for pattern in ignore:
        if not fnmatch.filter(layers, pattern):
            raise UsageError(f"--ignore {pattern!r} matches no layer", hint="`peel inspect` lists the layers")
    return tuple(_granted(group, legality, ignore) for group in groups)


def _granted(group: Group, legality: Legality, ignore: Sequence[str]) -> Group:
    locked = group.locked
    pattern = next((p for p in ignore if fnmatch.filter(_width_layers(group), p)), None)
    if locked is None and pattern is not None:
        locked = Locked(f"ignored by {pattern!r}", "narrow the --ignore pattern")
    step, floor = step_and_floor(group.full, group.bundle_size, legality)
    if locked is None and floor >= group.full:
        locked = Locked(f"{group.full} is its only legal width", "lower --align or --min-keep")
    return replace(group, step=step, floor=group.full if locked else floor, locked=locked)


def _width_layers(group: Group) -> list[str]:
    """Layers whose output width is the group's; a parameter of the root by its own name."""
    made = [piece.tensor for piece in group.slices if piece.role == "out"]
    return [layer for tensor in made for layer in (tensor.rpartition(".")[0] or tensor, tensor)]
