"""Groups and costs from the components that torch-pruning's dependency graph finds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import nn

from peelcli.graph import cost, depgraph
from peelcli.graph.count import Charges, LayerOps, OpLog
from peelcli.graph.depgraph import Call, Component, Member
from peelcli.graph.layers import loss_of
from peelcli.graph.legal import Legality, grant
from peelcli.records import (
    Attribute,
    CostModel,
    Group,
    Locked,
    Polynomial,
    Share,
    Size,
    Slice,
    Term,
)
from peelcli.tensors import first_names, named_tensors, parent_of


def groups_and_cost(
    components: Sequence[Component],
    layers: nn.Module,
    legality: Legality,
    ignore: Sequence[str],
    log: OpLog,
    charges: Charges,
) -> tuple[tuple[Group, ...], CostModel, tuple[str, ...]]:
    """Groups from torch-pruning's components, what they cost, and notes.

    Args:
        components: what `depgraph.find_components` found.
        layers: a copy of the module.
        legality: the user's wishes on widths.
        ignore: glob patterns of layers whose output width must not change.
        log: the multiply-adds of one forward pass.
        charges: thop's count.
    """
    names = first_names(layers)
    drafts = [_draft(component, layers, names) for component in components]
    _lock_overlaps(drafts)
    groups = grant([_group(draft) for draft in drafts], legality, ignore)
    model, notes = _cost_model(layers, groups, components, log, charges)
    return groups, model, notes


# --- groups


@dataclass
class _Draft:
    """A group in the making; `reason` says why it can't be cut."""

    component: Component
    bundles: tuple[tuple[int, ...], ...]
    slices: list[Slice]
    attributes: list[Attribute]
    reason: str = ""

    def refuse(self, reason: str) -> None:
        """Drop the slices: what is not understood is not cut, and costs a constant."""
        self.reason = self.reason or reason
        self.slices, self.attributes = [], []

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(member.layer for member in self.component.members))


def _draft(component: Component, root: nn.Module, names: Mapping[str, str]) -> _Draft:
    """Collect the slices, ties and attributes of one component; `names` has the one path of every tensor."""
    parts = [(member, _Part(member, root, names)) for member in component.members]
    ties = [*component.ties, *(tie for member, part in parts for tie in part.ties(member))]
    bundles = _bundles(component.channels, ties)
    draft = _Draft(component, bundles, [], [], reason=component.reason)
    if len({len(bundle) for bundle in bundles}) > 1:
        draft.refuse("its channels are tied in bundles of unequal size")
        draft.bundles = (tuple(range(component.channels)),)
    for member, part in parts:
        problem = part.problem or part.out_of_range(member) or _uneven(member, bundles)
        if problem:
            draft.refuse(problem)
    if not draft.reason or draft.reason == depgraph.OUTPUT_REASON:
        for member, part in parts:
            draft.slices.extend(part.slices(member, component.channels))
            draft.attributes.extend(part.attributes(member, len(bundles)))
    return draft


class _Part:
    """What one member loses, with full tensor paths."""

    def __init__(self, member: Member, root: nn.Module, names: Mapping[str, str]) -> None:
        self.problem = ""
        self.root = root
        self.tensors: list[tuple[str, int, Any, int]] = []
        self.counts: tuple[tuple[str, int | None, int], ...] = ()
        self.rows: tuple[tuple[int, ...], ...] = ()
        if member.dim is not None:  # a bare parameter
            self.tensors = [(member.layer, member.dim, "out", 0)]
            return
        module = root.get_submodule(member.layer)
        loss = loss_of(module, member.role)
        if loss is None:
            self.problem = f"{member.layer} ({type(module).__name__}) can't be cut"
            return
        prefix = f"{member.layer}." if member.layer else ""
        own = {name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))}
        self.tensors = [(names[prefix + n], dim, role, mod) for n, dim, role, mod in loss.tensors if n in own]
        hidden = {n for n, *_ in loss.tensors} - own
        if any(getattr(module, n, None) is not None for n in hidden):
            self.problem = f"{member.layer} computes its {'/'.join(sorted(hidden))} (a parametrization)"
        self.counts = loss.attributes
        self.rows = loss.rows

    def ties(self, member: Member) -> list[tuple[int, int]]:
        """Channels whose entries lie in one row of the layer."""
        found: list[tuple[int, int]] = []
        for row in self.rows:
            channels = [member.owner[entry] for entry in row if entry in member.owner]
            if channels and len(channels) < len(row):
                self.problem = f"{member.layer} has conv or norm groups that mix it with other channels"
            found.extend((channels[0], other) for other in channels[1:])
        return found

    def out_of_range(self, member: Member) -> str:
        """The dependency graph may think a tensor larger than it is; then it has misread the model."""
        for tensor, dim, _role, divisor in self.tensors:
            owner, name = parent_of(self.root, tensor)
            size = getattr(owner, name).shape[dim]
            if not divisor and max(member.owner, default=0) >= size:
                return f"{tensor} has fewer entries than the channels that seem to reach it"
        return ""

    def slices(self, member: Member, channels: int) -> list[Slice]:
        entries: list[list[int]] = [[] for _ in range(channels)]
        for entry, channel in sorted(member.owner.items()):
            entries[channel].append(entry)
        plain = tuple(map(tuple, entries))  # one object for all tensors of a layer
        result = []
        for tensor, dim, role, divisor in self.tensors:
            indices = plain
            if divisor:
                indices = tuple(tuple(dict.fromkeys(entry % divisor for entry in own)) for own in entries)
            result.append(Slice(tensor, dim, role, indices))
        return result

    def attributes(self, member: Member, bundles: int) -> list[Attribute]:
        per_bundle = len(member.owner) // bundles
        return [Attribute(member.layer, name, item, per_bundle // unit) for name, item, unit in self.counts]


def _uneven(member: Member, bundles: tuple[tuple[int, ...], ...]) -> str:
    """Each bundle must own as many entries of a layer as every other."""
    counts = Counter(member.owner.values())
    sizes = {sum(counts[channel] for channel in bundle) for bundle in bundles}
    return "" if len(sizes) == 1 else f"its channels own unequal shares of {member.layer}"


def _bundles(channels: int, ties: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Sets of channels connected by ties, each sorted, in the order of their first channel (union-find)."""
    parent = list(range(channels))

    def root(channel: int) -> int:
        while parent[channel] != channel:
            parent[channel] = parent[parent[channel]]
            channel = parent[channel]
        return channel

    for one, other in ties:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    bundles: dict[int, list[int]] = defaultdict(list)
    for channel in range(channels):
        bundles[root(channel)].append(channel)
    return tuple(tuple(bundle) for bundle in bundles.values())


def _lock_overlaps(drafts: Sequence[_Draft]) -> None:
    """An entry that two groups, or two bundles of one group, both own can't be cut by either.

    Nearly always no entry is claimed twice; only where one is does it matter by whom. A refused draft's claims still
    stand: what it shares must stay for it.
    """
    claimed: dict[tuple[str, int], set[int]] = defaultdict(set)
    doubtful: set[tuple[str, int]] = set()
    for draft in drafts:
        for piece in draft.slices:
            entries = list(chain.from_iterable(piece.indices))
            own, others = set(entries), claimed[piece.tensor, piece.dim]
            if len(own) < len(entries) or not others.isdisjoint(own):
                doubtful.add((piece.tensor, piece.dim))
            others |= own
    disputes = [(draft, place[0]) for place in sorted(doubtful) for draft in _disputing(drafts, place)]
    for draft, tensor in disputes:
        draft.refuse(f"shares entries of {tensor} with other channels")


def _disputing(drafts: Sequence[_Draft], place: tuple[str, int]) -> Iterator[_Draft]:
    """The drafts that disagree on whose an entry of one dimension of one tensor is."""
    owner: dict[int, tuple[_Draft, tuple[int, ...]]] = {}
    for draft in drafts:
        bundle_of = {channel: bundle for bundle in draft.bundles for channel in bundle}
        pieces = [piece for piece in draft.slices if (piece.tensor, piece.dim) == place]
        for channel, index in ((c, i) for piece in pieces for c, own in enumerate(piece.indices) for i in own):
            first, bundle = owner.setdefault(index, (draft, bundle_of[channel]))
            if first is not draft or bundle is not bundle_of[channel]:
                yield from (draft, first)


def _group(draft: _Draft) -> Group:
    return Group(
        name=draft.component.producer,
        layers=draft.layers,
        full=draft.component.channels,
        step=1,
        floor=1,
        bundles=draft.bundles,
        slices=tuple(draft.slices),
        attributes=tuple(draft.attributes),
        locked=Locked(draft.reason) if draft.reason else None,
    )


# --- cost


def _cost_model(
    module: nn.Module, groups: Sequence[Group], components: Sequence[Component], log: OpLog, charges: Charges
) -> tuple[CostModel, tuple[str, ...]]:
    """The three polynomials, and what a user should know about them."""
    sizes = _sizes(module, groups)
    params = tuple(Term(name, 1, sizes[name]) for name, _ in module.named_parameters())
    macs = _mac_terms(module, sizes, log)
    thop, notes = _thop_terms(module, macs, log.convolved, charges, groups, components)
    model = CostModel(cost.simplify(tuple(macs)), cost.simplify(params), cost.simplify(thop))
    return model, notes


def _sizes(module: nn.Module, groups: Sequence[Group]) -> dict[str, tuple[Size, ...]]:
    """Every tensor's dimensions as functions of the widths."""
    owned: dict[tuple[str, int], list[tuple[int, int, int]]] = defaultdict(list)
    for position, group in enumerate(groups):
        firsts: dict[tuple[str, int], set[int]] = defaultdict(set)  # tied tensors appear in several slices
        for piece in group.slices:
            firsts[piece.tensor, piece.dim].update(i for channel in group.bundles[0] for i in piece.indices[channel])
        for place, first in firsts.items():
            owned[place].append((position, len(first), group.bundle_size))
    table = {}
    for name, tensor in named_tensors(module):
        sizes = []
        for dim, entries in enumerate(tensor.shape):
            shares = tuple(Share(*claim) for claim in owned.get((name, dim), ()))
            moving = sum(groups[s.group].full * s.num // s.den for s in shares)
            sizes.append(Size(entries - moving, shares))
        table[name] = tuple(sizes)
    return table


def _mac_terms(module: nn.Module, sizes: dict[str, tuple[Size, ...]], log: OpLog) -> list[Term]:
    """One term per applied weight, positions * product of sizes, and a constant per product of activations."""
    numel = {name: p.numel() for name, p in module.named_parameters()}
    terms = []
    for name, macs in log.weights.items():
        positions, rest = divmod(macs, numel[name])
        terms.append(Term(name, macs, ()) if rest else Term(name, positions, sizes[name]))
    terms.extend(Term(op, macs, ()) for op, macs in log.products.items())
    return terms


def _thop_terms(
    module: nn.Module,
    macs: Sequence[Term],
    convolved: Collection[str],
    charges: Charges,
    groups: Sequence[Group],
    components: Sequence[Component],
) -> tuple[Polynomial, tuple[str, ...]]:
    """What thop counts: the MACs that it sees, plus what it charges norms, activations and pooling per channel.

    It sees no convolution that is a function's, not a module's. What is left at full width goes in as a constant.
    """
    total, charged = charges
    first = first_names(module)
    holders: dict[str, set[str]] = defaultdict(set)
    for path, name in first.items():
        holders[name].add(path.rpartition(".")[0])
    seen = [term for term in macs if term.label not in convolved or holders[term.label] & charged.keys()]
    weighted = {holder for term in seen for holder in holders.get(term.label, ())}
    terms = list(seen)
    for layer, calls in charged.items():
        if layer not in weighted:
            kind = module.get_submodule(layer)
            terms.extend(_per_channel((layer, call), kind, ops, groups, components) for call, ops in enumerate(calls))
    rest = total - sum(cost.term_at(term, [g.full for g in groups]) for term in terms)
    notes: tuple[str, ...] = ()
    if rest:
        terms.append(Term("thop only", rest, ()))
        notes = (f"thop counts {rest:+d} against the closed form for reasons that no width changes",)
    return tuple(terms), notes


def _per_channel(
    call: Call, module: nn.Module, charged: LayerOps, groups: Sequence[Group], components: Sequence[Component]
) -> Term:
    """What thop charges one call of a parameterless or norm layer, as a rate per channel."""
    shares, moving, reached = [], 0, 0
    for position, (group, component) in enumerate(zip(groups, components, strict=True)):
        entries = component.carried.get(call, 0)
        reached += entries
        if entries and group.slices:
            shares.append(Share(position, entries // len(group.bundles), group.bundle_size))
            moving += entries
    channels = _channels(module, charged.shape, reached)
    if not channels or charged.ops % channels or moving > channels:
        return Term(call[0], charged.ops, ())
    return Term(call[0], charged.ops // channels, (Size(channels - moving, tuple(shares)),))


def _channels(module: nn.Module, shape: tuple[int, ...], reached: int) -> int:
    """The channel count of a layer's input; `reached` entries of it are known to be channels of groups."""
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
        return module.num_channels if isinstance(module, nn.GroupNorm) else module.num_features
    for spatial in (1, 2, 3):
        if type(module).__name__.endswith(f"{spatial}d") and len(shape) > spatial:
            return shape[-(spatial + 1)]
    if reached in shape[-1:]:  # tokens: the channels come last
        return reached
    return shape[1] if len(shape) > 1 else 0
