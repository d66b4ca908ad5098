"""Figures as JSON has them."""

from __future__ import annotations

import math

from peelcli.results import Distance


def number(value: float | None) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if value is not None and math.isfinite(value) else None


def distance_document(found: Distance) -> dict[str, float | None]:
    """A distance by the names of its figures; null for what is unknown or not finite."""
    return {
        "relative": number(found.relative),
        "kl": number(found.kl),
        "agreement": number(found.agreement),
        "metric": number(found.metric),
    }
