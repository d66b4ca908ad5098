"""What a group owns, in the shape in which tests write it by hand."""

from __future__ import annotations

from peelcli.records import Group
from tests.support import zoo

Indices = tuple[tuple[int, ...], ...]


def one_each(count: int, start: int = 0) -> Indices:
    return tuple((start + channel,) for channel in range(count))


def blocks(count: int, size: int, start: int = 0) -> Indices:
    return tuple(tuple(range(start + k * size, start + (k + 1) * size)) for k in range(count))


def slices_of(group: Group) -> dict[tuple[str, int, str], Indices]:
    return {(piece.tensor, piece.dim, piece.role): piece.indices for piece in group.slices}


def attributes_of(group: Group) -> set[tuple[str, str, int | None, int]]:
    return {(a.module, a.name, a.item, a.per_bundle) for a in group.attributes}


def groups_of(name: str, tracer: str = "labels") -> dict[str, Group]:
    """The groups of one of the networks by name."""
    return {group.name: group for group in zoo.graph_of(zoo.subject(name), tracer=tracer).groups}
