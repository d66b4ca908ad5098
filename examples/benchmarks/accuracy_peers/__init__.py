"""The methods of accuracy.py, by name, in the order of the page."""

from accuracy_peers import fastnas, one_shot, peel
from accuracy_peers.base import Method


def methods(grid: str) -> dict[str, Method]:
    """All of them; `grid` is "small" or "full" and says how many of peel's settings."""
    return {**peel.methods(grid), **one_shot.methods(), **fastnas.methods()}
