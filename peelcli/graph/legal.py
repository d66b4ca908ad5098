"""Which widths are legal: whole bundles, aligned to what kernels like, never below the floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

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
