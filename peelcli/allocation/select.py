"""Which channels of a group stay, once its width is known."""

from __future__ import annotations

from collections.abc import Sequence

from peelcli.records import Group


def bundle_scores(group: Group, channels: Sequence[float]) -> list[float]:
    """The mean score of each bundle's channels."""
    return [sum(channels[c] for c in bundle) / len(bundle) for bundle in group.bundles]


def keep_best(group: Group, channels: Sequence[float], width: int) -> tuple[int, ...]:
    """The channels of the best bundles, ascending; of equal bundles the earlier one stays.

    Args:
        group: the group; `width` is one of its legal widths.
        channels: a score per channel.
        width: how many channels stay.
    """
    scores = bundle_scores(group, channels)
    ranked = sorted(range(len(scores)), key=lambda bundle: (-scores[bundle], bundle))
    kept = ranked[: width // group.bundle_size]
    return tuple(sorted(channel for bundle in kept for channel in group.bundles[bundle]))
