"""Closed-form counts from the sizes that the label pass saw."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from torch import nn

from peelcli.graph import cost
from peelcli.graph.count import Charges
from peelcli.graph.labels.resolve import Place, Resolved
from peelcli.graph.labels.run import Extent, Product
from peelcli.records import CostModel, Group, Polynomial, Share, Size, Term
from peelcli.tensors import named_tensors


class CostMaker:
    """Writes every count of one model as a polynomial in the widths of its groups."""

    def __init__(self, resolved: Resolved, groups: Sequence[Group]) -> None:
        self.resolved = resolved
        self.groups = groups
        self._shares: dict[Place, list[Share]] = defaultdict(list)
        for position, (units, group) in enumerate(zip(resolved.units, groups, strict=True)):
            for place, count in units.counts.items():
                self._shares[place].append(Share(position, count, group.bundle_size))

    def model(self, module: nn.Module, charges: Charges) -> tuple[CostModel, tuple[str, ...]]:
        """The three polynomials, and what a user should know about them."""
        macs = self._macs()
        thop, notes = self._thop(macs, charges)
        return CostModel(cost.simplify(macs), cost.simplify(self._params(module)), cost.simplify(thop)), notes

    def _size(self, place: Place | None, entries: int) -> Size:
        shares = tuple(self._shares.get(place, ())) if place is not None else ()
        moving = sum(self.groups[s.group].full * s.num // s.den for s in shares)
        return Size(entries - moving, shares)

    def _extent(self, extent: Extent) -> Size:
        return self._size(self.resolved.extent_place(extent), extent.size)

    def _params(self, module: nn.Module) -> Polynomial:
        owned = {name for name, _ in module.named_parameters()}
        return tuple(
            Term(name, 1, tuple(self._size(("tensor", name, dim), size) for dim, size in enumerate(tensor.shape)))
            for name, tensor in named_tensors(module)
            if name in owned
        )

    def _functions(self, charged: Collection[str]) -> tuple[tuple[Term, ...], ...]:
        """What functions multiply that no module runs: two activations, with weights, and convolutions."""
        beside = [p for p in self.resolved.found.products if p.layer not in charged]
        convolved = [p for p in beside if p.op == "convolution"]
        rest = [p for p in beside if p.op != "convolution"]
        some = [p for p in rest if not p.weighted], [p for p in rest if p.weighted], convolved
        return tuple(self._terms(products) for products in some)

    def _macs(self) -> tuple[Term, ...]:
        return self._terms(self.resolved.found.products)

    def _terms(self, products: Iterable[Product]) -> tuple[Term, ...]:
        merged: dict[tuple[str, tuple[Size, ...]], int] = defaultdict(int)
        for product in products:
            sizes = [self._extent(extent) for extent in product.extents]
            fixed = math.prod(size.constant for size in sizes if not size.shares)
            moving = tuple(size for size in sizes if size.shares)
            merged[product.layer or product.op, moving] += product.coefficient * fixed
        return tuple(Term(label, coefficient, sizes) for (label, sizes), coefficient in merged.items())

    def _thop(self, macs: Sequence[Term], charges: Charges) -> tuple[Polynomial, tuple[str, ...]]:
        """What thop counts: the MACs inside the layers that it has a rule for, and its charge for other layers.

        What is left at full width goes in as a constant.
        """
        total, charged = charges
        charging = {layer for layer, calls in charged.items() if any(call.ops for call in calls)}
        terms = [term for term in macs if term.label in charging]
        full = [group.full for group in self.groups]
        seen_in: dict[str, int] = defaultdict(int)
        for term in terms:
            seen_in[term.label] += cost.term_at(term, full)
        for layer, calls in charged.items():
            if layer not in seen_in:
                terms.extend(self._charge((layer, call), ops.ops) for call, ops in enumerate(calls))
            elif over := sum(ops.ops for ops in calls) - seen_in[layer]:
                terms.append(self._over(layer, over))
        rest = total - sum(cost.term_at(term, full) for term in terms)
        for some in self._functions(charged):  # thop sees some functions beside modules, by its version
            seen = sum(cost.term_at(term, full) for term in some)
            if abs(rest - seen) < abs(rest):
                terms, rest = [*terms, *some], rest - seen
        if not rest:
            return tuple(terms), ()
        note = f"thop counts {rest:+d} against the closed form for reasons that no width changes"
        return (*terms, Term("thop only", rest, ())), (note,)

    def _charge(self, call: tuple[str, int], charged: int) -> Term:
        """A charge that is a multiple of what goes in or comes out falls with it."""
        shape = self.resolved.found.calls.get(call)
        whole = [shape.inputs, shape.outputs] if shape else []
        return self._falling(call[0], charged, whole, shape.inputs if shape else ())

    def _over(self, layer: str, charged: int) -> Term:
        """What a layer is charged beside its products (gates, a softmax): it falls with its output, or its heads."""
        shape = self.resolved.found.calls.get((layer, 0))
        heads = [e for p in self.resolved.found.products if p.layer == layer and not p.weighted for e in p.extents]
        return self._falling(layer, charged, [shape.outputs] if shape else [], heads)

    def _falling(self, layer: str, charged: int, whole: Iterable[Sequence[Extent]], single: Iterable[Extent]) -> Term:
        """A charge as a rate of a tensor, else of one labelled dimension, else a constant."""
        for extents in whole:
            entries = math.prod(extent.size for extent in extents)
            if extents and entries and charged % entries == 0:
                return Term(layer, charged // entries, tuple(self._extent(extent) for extent in extents))
        for extent in single:
            size = self._extent(extent)
            if size.shares and charged % extent.size == 0:
                return Term(layer, charged // extent.size, (size,))
        return Term(layer, charged, ())
