"""Closed-form counts: polynomials in the widths, evaluated exactly, and measured tables. No torch, no forward pass.

A tensor with sizes s_1 .. s_n costs s_1 * ... * s_n parameters, and a convolution or linear layer that applies it at
p positions costs p * s_1 * ... * s_n multiply-adds. Each size is linear in the widths of the groups that own entries
along that dimension, so every count of the model is a polynomial in the widths.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from peelcli.records import CostModel, Costs, Polynomial, Size, Table, Term, Widths


def size_at(size: Size, widths: Sequence[int]) -> int:
    """Entries along one dimension at the given widths."""
    return size.constant + sum(widths[s.group] * s.num // s.den for s in size.shares)


def term_at(term: Term | Table, widths: Sequence[int]) -> int:
    """What one tensor or op costs at the given widths."""
    if isinstance(term, Table):
        return table_at(term, widths)
    value = term.coefficient
    for size in term.sizes:
        value *= size_at(size, widths)
    return value


def table_at(table: Table, widths: Sequence[int]) -> int:
    """Between the knots linear along each axis; at its end beyond them."""
    positions = [_between(size_at(size, widths), knots) for size, knots in zip(table.sizes, table.knots, strict=True)]
    value = 0.0
    for corner in range(2 ** len(positions)):
        weight, index = 1.0, 0
        for axis, (low, part) in enumerate(positions):
            upper = corner >> axis & 1
            weight *= part if upper else 1.0 - part
            index = index * len(table.knots[axis]) + low + upper
        value += weight * table.values[index] if weight else 0.0  # without weight it may be past the last knot
    return round(value)


def _between(size: int, knots: Sequence[int]) -> tuple[int, float]:
    """The knot at or below a size, and how far the size is on the way to the next one, 0 to 1."""
    low = max(bisect_right(knots, size) - 1, 0)
    if low == len(knots) - 1:
        return low, 0.0
    return low, max(0, size - knots[low]) / (knots[low + 1] - knots[low])


def evaluate(polynomial: Polynomial, widths: Sequence[int]) -> int:
    """The whole count at the given widths; exact where the widths are whole bundles."""
    return sum(term_at(term, widths) for term in polynomial)


def costs(model: CostModel, widths: Widths) -> Costs:
    """All three counts at the given widths."""
    return Costs(
        macs=evaluate(model.macs, widths),
        params=evaluate(model.params, widths),
        thop_macs=evaluate(model.thop, widths),
    )


def groups_of(term: Term | Table) -> frozenset[int]:
    """The groups whose widths change this term."""
    return frozenset(share.group for size in term.sizes for share in size.shares)


def simplify(polynomial: Polynomial) -> Polynomial:
    """The same count with all terms that no width changes added up into one."""
    fixed = sum(term_at(term, ()) for term in polynomial if not groups_of(term))
    moving = tuple(term for term in polynomial if groups_of(term))
    return (*moving, Term("fixed", fixed, ())) if fixed else moving


def parts_of_groups(polynomial: Polynomial, widths: Widths) -> tuple[int, ...]:
    """For each group the part of a count that lies in terms which its width changes; terms of several count in each."""
    parts = [0] * len(widths)
    for term in polynomial:
        value = term_at(term, widths)
        for group in groups_of(term):
            parts[group] += value
    return tuple(parts)
