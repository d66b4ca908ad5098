"""Closed-form counts: polynomials in the widths, evaluated exactly. No torch, no forward pass.

A tensor with sizes s_1 .. s_n costs s_1 * ... * s_n parameters, and a convolution or linear layer that applies it at
p positions costs p * s_1 * ... * s_n multiply-adds. Each size is linear in the widths of the groups that own entries
along that dimension, so every count of the model is a polynomial in the widths.
"""

from __future__ import annotations

from collections.abc import Sequence

from peelcli.records import CostModel, Costs, Polynomial, Size, Term, Widths


def size_at(size: Size, widths: Sequence[int]) -> int:
    """Entries along one dimension at the given widths."""
    return size.constant + sum(widths[s.group] * s.num // s.den for s in size.shares)


def term_at(term: Term, widths: Sequence[int]) -> int:
    """What one tensor or op costs at the given widths."""
    value = term.coefficient
    for size in term.sizes:
        value *= size_at(size, widths)
    return value


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


def groups_of(term: Term) -> frozenset[int]:
    """The groups whose widths change this term."""
    return frozenset(share.group for size in term.sizes for share in size.shares)


def simplify(polynomial: Polynomial) -> Polynomial:
    """The same count with all terms that no width changes added up into one."""
    fixed = sum(term_at(term, ()) for term in polynomial if not groups_of(term))
    moving = tuple(term for term in polynomial if groups_of(term))
    return (*moving, Term("fixed", fixed, ())) if fixed else moving


def share_of_group(polynomial: Polynomial, widths: Widths, group: int) -> int:
    """The part of a count that lies in terms which this group's width changes."""
    return sum(term_at(term, widths) for term in polynomial if group in groups_of(term))
