"""Medians, quartiles and an interval for a median, from a few dozen numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from peelcli.timings import Latency, Ratio

LEAST_ROUNDS = 9  # the fewest for which an interval of 99 % exists


def latency(calls: Sequence[float]) -> Latency:
    """Sum up the seconds of single calls; there must be two or more."""
    low, middle, high = statistics.quantiles(calls, n=4, method="inclusive")
    return Latency(middle, low, high, min(calls), len(calls))


def ratio(pairs: Sequence[tuple[float, float]], confidence: float = 0.95) -> Ratio:
    """How much longer the second of each pair took.

    Args:
        pairs: (seconds of the reference, seconds of the other), each taken in one round.
        confidence: of the interval.

    Returns:
        The median of the ratios, and the interval that the sign test gives for it: its ends are ratios that were
        measured, chosen so that a median outside would be contradicted. No shape of the noise is assumed.

    Source: order statistics as confidence limits of a quantile, David and Nagaraja, Order Statistics, section 7.1.
    """
    values = sorted(other / reference for reference, other in pairs)
    skipped = _outside(len(values), confidence)
    return Ratio(statistics.median(values), values[skipped], values[len(values) - 1 - skipped], confidence, len(values))


def _outside(count: int, confidence: float) -> int:
    """How many values at each end lie outside of the interval: the most that keep the confidence."""
    tail, skipped = 0.0, 0
    for position in range(count // 2):
        tail += math.comb(count, position) / 2**count
        if 2 * tail > 1 - confidence:
            break
        skipped = position
    return skipped
