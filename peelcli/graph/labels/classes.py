"""Which labels are one channel: union-find over whole arrays of labels, and the reasons why some can't go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
FIXED = 0  # the label of what can't go: constants, inputs, padding


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why some labels can't go.

    Attributes:
        reason: in words, with the layer or op that it is about.
        place: source line of the user's code, "file.py:12", or "".
        remedy: what the user could do, or "".
    """

    reason: str
    place: str = ""
    remedy: str = ""


class Classes:
    """Labels that stand for one channel fall into one class; a class whose label is locked stays."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, dtype=np.int64)
        self.count = 1  # label 0 is FIXED
        self._locks: list[tuple[Ids, Obstacle]] = []

    def fresh(self, size: int) -> Ids:
        """New labels, each a class of its own, shape (size,)."""
        while self.count + size > len(self._parent):
            self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
        made = np.arange(self.count, self.count + size, dtype=np.int64)
        self._parent[made] = made
        self.count += size
        return made

    def find(self, ids: Ids) -> Ids:
        """The representative of each label's class, the same shape."""
        roots = self._parent[ids]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                return roots
            roots = above

    def unite(self, some: Ids, others: Ids, obstacle: Obstacle) -> bool:
        """Put labels at equal positions into one class; what meets FIXED is locked.

        Args:
            some: any shape.
            others: a shape that broadcasts with it.
            obstacle: why what meets FIXED can't go.

        Returns:
            Whether any two classes were different.
        """
        some, others = (a.ravel() for a in np.broadcast_arrays(some, others))
        fixed = (some == FIXED) != (others == FIXED)
        if fixed.any():
            self.lock(np.maximum(some, others)[fixed], obstacle)
        free = (some != FIXED) & (others != FIXED)
        some, others = some[free], others[free]
        changed = False
        while True:
            a, b = self.find(some), self.find(others)
            differ = a != b
            if not differ.any():
                break
            changed = True
            np.minimum.at(self._parent, np.maximum(a, b)[differ], np.minimum(a, b)[differ])
        return changed

    def flatten(self) -> None:
        """Shorten every path, so that find is one lookup."""
        every = np.arange(self.count, dtype=np.int64)
        self._parent[: self.count] = self.find(every)

    def lock(self, ids: Ids, obstacle: Obstacle) -> None:
        """Keep these labels, and so their classes."""
        ids = np.unique(ids)
        ids = ids[ids != FIXED]
        if len(ids):
            self._locks.append((ids, obstacle))

    def is_locked(self) -> NDArray[np.bool_]:
        """Whether each label's representative stands for a locked class, by label; shape (labels,)."""
        locked = np.zeros(self.count, dtype=np.bool_)
        if self._locks:
            locked[self.find(np.unique(np.concatenate([ids for ids, _ in self._locks])))] = True
        return locked

    def obstacles(self) -> dict[int, Obstacle]:
        """For every locked class, by its representative, the first thing that locked it."""
        found: dict[int, Obstacle] = {}
        for ids, obstacle in self._locks:
            for root in np.unique(self.find(ids)).tolist():
                found.setdefault(root, obstacle)
        return found
