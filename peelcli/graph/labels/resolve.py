"""From what a pass found to units: sets of entries that can only go together, and what follows when one goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from peelcli.graph.labels import factors as fac
from peelcli.graph.labels.classes import FIXED, Ids, Obstacle
from peelcli.graph.labels.factors import Factor
from peelcli.graph.labels.run import Extent, Findings, Slot
from peelcli.graph.labels.sizes import Attr, Dim, Leaf, leaves, value_of

Place = tuple[object, ...]
"""Where labels lie along a dimension: ("tensor", name, dim), ("extent", n) or ("dim", id of a tracked size)."""

_JOINED = Obstacle("it is viewed together with what can't go")


@dataclass
class Units:
    """Classes of labels with the same entries everywhere: one future group.

    Attributes:
        roots: representative of each unit, in the order of the name-giving tensor.
        counts: entries of one unit at every place.
        maker: the tensor and dimension that make the channels.
        order: when the maker first ran.
        obstacle: what forbids a cut, or None.
        attributes: by how much each integer of a module falls when one unit goes.
    """

    roots: list[int]
    counts: dict[Place, int]
    maker: tuple[str, int]
    order: int
    obstacle: Obstacle | None = None
    attributes: dict[Attr, int] = field(default_factory=dict)


class Resolved:
    """All units of a model, with the labels at every place."""

    def __init__(self, found: Findings) -> None:
        self.found = found
        self.classes = found.classes
        _settle(found)
        self.lines: dict[Place, Ids] = {}
        self._collect_lines()
        self.units = self._units()
        for units in self.units:
            if units.obstacle is None:
                units.obstacle = _Attributes(self, units).solve()

    def extent_place(self, extent: Extent | None) -> Place | None:
        """The place of an extent, None where no labels lie along it."""
        return None if extent is None or extent.factor is None else ("extent", id(extent))

    def _collect_lines(self) -> None:
        for (name, dim), ids in self.found.entries.items():
            self.lines["tensor", name, dim] = self.classes.find(ids)
        for extent in self._extents():
            place = self.extent_place(extent)
            if place is not None and extent.factor is not None:
                self._add_line(place, extent.factor, extent.dim)
        for slot in self.found.slots:
            for leaf in leaves(slot.source):
                if isinstance(leaf, Dim):
                    self._add_line(("dim", id(leaf)), leaf.factor, leaf.dim)

    def _extents(self) -> Iterable[Extent]:
        found = self.found
        for product in found.products:
            yield from product.extents
        for blend in found.blends:
            yield blend.extent
        for slot in found.slots:
            if slot.extent is not None:
                yield slot.extent
        for call in found.calls.values():
            yield from call.inputs
            yield from call.outputs

    def _add_line(self, place: Place, factor: Factor, dim: int) -> None:
        line = self.classes.find(fac.line(fac.along_dim(factor, dim)))
        if len(line) > 1 and not (line == line[0]).all():
            self.lines[place] = line

    def _units(self) -> list[Units]:
        obstacles = self.classes.obstacles()
        places = list(self.lines)
        signatures = _signatures([self.lines[place] for place in places], self.found.first_wild)
        made = {("tensor", *place): order for place, order in self.found.made.items()}
        result = []
        for rows, roots in signatures:
            counts = {places[p]: count for p, count in rows}
            makers = sorted((made[place], place) for place in counts if place in made)
            if not makers:
                continue
            order, maker = makers[0]
            locked = [root for root in roots if root in obstacles]
            free = [root for root in roots if root not in obstacles]
            for some, obstacle in ((free, None), (locked, obstacles[locked[0]] if locked else None)):
                if some:
                    line = self.lines[maker]
                    first = {root: k for k, root in reversed(list(enumerate(line.tolist())))}
                    ordered = sorted(some, key=first.__getitem__)
                    result.append(Units(ordered, counts, (str(maker[1]), int(str(maker[2]))), order, obstacle))
        return sorted(result, key=lambda units: (units.order, units.roots[0]))


def _signatures(lines: Sequence[Ids], first_wild: int) -> list[tuple[list[tuple[int, int]], list[int]]]:
    """Classes grouped by how many entries they have at which places: [(place, count)], [class]."""
    parts = []
    for position, line in enumerate(lines):
        roots, counts = np.unique(line, return_counts=True)
        parts.append(np.stack([roots, np.full_like(roots, position), counts]))
    table = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0), dtype=np.int64)
    table = table[:, (table[0] != FIXED) & (table[0] < first_wild)]
    table = table[:, np.lexsort((table[1], table[0]))]
    roots, starts = np.unique(table[0], return_index=True)
    groups: dict[bytes, tuple[list[tuple[int, int]], list[int]]] = {}
    for root, rows in zip(roots.tolist(), np.split(table[1:], starts[1:], axis=1), strict=True):
        rows = np.ascontiguousarray(rows.T)
        entry = groups.get(rows.tobytes())
        if entry is None:
            entry = groups[rows.tobytes()] = ([(int(p), int(c)) for p, c in rows], [])
        entry[1].append(root)
    return list(groups.values())


# --- what must hold before units can be formed


def _settle(found: Findings) -> None:
    """Tie what has to stay rectangular, and what one size in the code serves, until nothing changes."""
    while _close_joints(found) | _tie_sizes(found):
        pass
    found.classes.flatten()


def _close_joints(found: Findings) -> bool:
    changed = False
    found.classes.flatten()
    locked = found.classes.is_locked()
    for key, factor in list(found.joints.items()):
        del found.joints[key]  # once tied it stays so; what meets FIXED never becomes one class with it
        settled = fac.settled(factor, found.classes)
        if len(fac.varying(settled)) < 2:
            continue
        axis = max(fac.varying(settled), key=lambda d: _free_after(found, settled, d, locked))
        fac.collapse(settled, [axis], found.classes, _JOINED)
        changed = True
    return changed


def _free_after(found: Findings, factor: Factor, axis: int, locked: NDArray[np.bool_]) -> tuple[int, int]:
    """How many units would be left free, and how many there would be, if only whole slices along `axis` went."""
    roots = found.classes.find(factor)
    blocked = locked[roots] | (roots == FIXED)
    others = tuple(d for d in range(roots.ndim) if d != axis)
    return int((~blocked.any(axis=others)).sum()), roots.shape[axis]


def _tie_sizes(found: Findings) -> bool:
    """Where a plain size of one tensor is used for another, both must lose the same number."""
    changed = False
    for slot in found.slots:
        target = _line(found, slot.extent)
        if isinstance(slot.source, int) and target is not None and not slot.soft:
            found.classes.lock(target, slot.obstacle)
        if not isinstance(slot.source, Dim) or slot.soft:
            continue
        own = _line(found, Extent(0, slot.source.factor, slot.source.dim))
        if own is None and target is None:
            continue
        if own is None or target is None or len(own) != len(target):
            found.classes.lock(own if own is not None else target, slot.obstacle)  # type: ignore[arg-type]
        elif not np.array_equal(np.sort(own), np.sort(target)):
            changed |= found.classes.unite(own, target, slot.obstacle)
    return changed


def _line(found: Findings, extent: Extent | None) -> Ids | None:
    if extent is None or extent.factor is None:
        return None
    line = found.classes.find(fac.line(fac.along_dim(extent.factor, extent.dim)))
    return None if len(line) < 2 or (line == line[0]).all() else line


# --- integers of modules that follow


class _Attributes:
    """Finds which integers of modules must fall, and by how much, when one unit goes.

    Every size has to be right with one unit gone, with two, and with all but one: a floor division hides small errors.
    """

    def __init__(self, resolved: Resolved, units: Units) -> None:
        self.resolved = resolved
        self.units = units
        self.falls: dict[Attr, int] = {}
        self.slots = [slot for slot in resolved.found.slots if not isinstance(slot.source, int)]
        most = max(1, len(units.roots) - 1)
        self.gone = sorted({1, min(2, most), most})

    def solve(self) -> Obstacle | None:
        """Fill in the units' attributes; the first size that can't follow, or None."""
        pending = self._pending()
        for _ in range(4):
            wrong = [slot for slot in pending if self._is_wrong(slot, self.falls)]
            if not wrong:
                break
            for slot in wrong:
                if self._is_wrong(slot, self.falls):
                    self._adjust(slot)
            pending = self._pending()
        bad = next((slot for slot in pending if not slot.soft and self._is_wrong(slot, self.falls)), None)
        if bad is not None:
            return bad.obstacle
        self.units.attributes = dict(self.falls)
        return None

    def _pending(self) -> list[Slot]:
        return [slot for slot in self.slots if self._touched(slot)]

    def _count(self, place: Place | None) -> int:
        return 0 if place is None else self.units.counts.get(place, 0)

    def _touched(self, slot: Slot) -> bool:
        if self._count(self.resolved.extent_place(slot.extent)):
            return True
        return any(
            self._count(("dim", id(leaf))) if isinstance(leaf, Dim) else leaf in self.falls
            for leaf in leaves(slot.source)
        )

    def _target(self, slot: Slot, gone: int) -> int:
        """What the size has to be with so many units gone."""
        size = slot.size if slot.extent is None else slot.extent.size
        return size - gone * self._count(self.resolved.extent_place(slot.extent))

    def _value(self, slot: Slot, falls: Mapping[Attr, int], gone: int) -> int | None:
        """What the code makes of the size then; None where it divides by zero."""

        def known(leaf: Leaf) -> int:
            if isinstance(leaf, Dim):
                return int(leaf.factor.shape[leaf.dim]) - gone * self._count(("dim", id(leaf)))
            return self.resolved.found.integers[leaf] - gone * falls.get(leaf, 0)

        try:
            return value_of(slot.source, known)
        except ZeroDivisionError:
            return None

    def _is_wrong(self, slot: Slot, falls: Mapping[Attr, int]) -> bool:
        return any(self._value(slot, falls, gone) != self._target(slot, gone) for gone in self.gone)

    def _adjust(self, slot: Slot) -> None:
        """Let one more integer of the expression follow, where that mends it."""
        for attr in dict.fromkeys(leaf for leaf in leaves(slot.source) if isinstance(leaf, Attr)):
            if attr not in self.falls:
                for fall in self._guesses(slot, attr):
                    if fall > 0 and not self._is_wrong(slot, {**self.falls, attr: fall}):
                        self.falls[attr] = fall
                        return

    def _guesses(self, slot: Slot, attr: Attr) -> Iterable[int]:
        """By how much an integer may fall for each unit: in proportion to the size, or by what it is too large."""
        original, gone = self.resolved.found.integers[attr], self.gone[-1]
        now, target = self._value(slot, self.falls, gone), self._target(slot, gone)
        if now is None:
            return
        if now and original * target % now == 0:
            yield (original - original * target // now) // gone
        one_less = self._value(slot, {**self.falls, attr: 1}, gone)
        slope = 0 if one_less is None else now - one_less
        if slope and (now - target) % slope == 0:
            yield (now - target) // slope


def entries_by_root(line: Ids) -> dict[int, list[int]]:
    """The entries along a place for each class."""
    found: dict[int, list[int]] = defaultdict(list)
    for entry, root in enumerate(line.tolist()):
        found[root].append(entry)
    return found
