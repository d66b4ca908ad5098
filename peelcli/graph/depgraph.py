"""Which channels depend on each other, as torch-pruning's dependency graph finds it.

The only file that names torch_pruning. It takes the graph that torch-pruning builds from one forward pass and walks
it with its own bookkeeping: from every producer through all dependencies, carrying for each entry the channel that it
belongs to. Nothing of torch-pruning leaves this file.

Source: Fang et al., DepGraph, arXiv:2301.12900; torch-pruning 1.6.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency import index_mapping
from torch_pruning.ops import OPTYPE

from peelcli.errors import TraceError
from peelcli.records import Role
from peelcli.tensors import tensors_in

SECONDS_PER_GROUP = 10.0
OUTPUT_REASON = "its channels are the model's output"
_Place = tuple[Any, Any]  # node, pruning function
_Owned = tuple[int, int]  # entry, channel
Call = tuple[str, int]  # module path, which of its calls
_SHAPELESS = {
    OPTYPE.CONCAT, OPTYPE.SPLIT, OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.UNBIND,
    OPTYPE.EXPAND, OPTYPE.SLICE, OPTYPE.OUTPUT,
}  # fmt: skip
_MAKERS = {OPTYPE.CONV, OPTYPE.LINEAR, OPTYPE.EMBED}
_FOLLOWED = {
    OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR, OPTYPE.BN, OPTYPE.LN, OPTYPE.GN, OPTYPE.IN,
    OPTYPE.PRELU, OPTYPE.EMBED, OPTYPE.PARAMETER,
}  # fmt: skip


@dataclass
class Member:
    """One side of one layer, with the entries that belong to each channel of the component.

    Attributes:
        layer: module path, or parameter path for a bare parameter.
        role: "out" for what makes or carries the channels, "in" for what reads them.
        dim: pruned dimension of a bare parameter, else None.
        owner: entry -> channel.
    """

    layer: str
    role: Role
    dim: int | None = None
    owner: dict[int, int] = field(default_factory=dict)


@dataclass
class Component:
    """Everything that one producer's channels reach.

    Attributes:
        producer: module path of the first layer that makes the channels.
        channels: how many there are.
        members: the layers that lose entries, in the order they were reached.
        carried: how many of the entries that a module's call puts out are from here.
        ties: pairs of channels that can only go together.
        reason: why the component can't be pruned, or "".
    """

    producer: str
    channels: int
    members: list[Member] = field(default_factory=list)
    carried: dict[Call, int] = field(default_factory=dict)
    ties: list[tuple[int, int]] = field(default_factory=list)
    reason: str = ""


def find_components(module: nn.Module, inputs: tuple[Any, ...]) -> list[Component]:
    """Find all coupled channels of a module.

    Args:
        module: a copy that may be hooked, in eval mode, parameters with requires_grad; usually on device "meta".
        inputs: positional arguments of its forward.

    Returns:
        One component for every set of channels that are made together, in the order in which their producers run.

    Raises:
        TraceError: the forward pass or torch-pruning failed.
    """
    log = _ForwardLog(module)
    components = _components(module, inputs, log)
    heads = _ForwardLog(module, training=True)  # auxiliary heads run in training only, and must lose what they read
    if log.idle and _runs(heads, module, inputs) and heads.idle < log.idle:
        return _components(module, inputs, _ForwardLog(module, training=True))
    return components


def _components(module: nn.Module, inputs: tuple[Any, ...], log: _ForwardLog) -> list[Component]:
    graph, unmapped = _build(module, inputs, log)
    walker = _Walker(graph, module, log, unmapped)
    return [walker.walk(node, free) for node, free in walker.producers()]


def _runs(log: _ForwardLog, module: nn.Module, inputs: tuple[Any, ...]) -> bool:
    try:
        log.run(module, inputs)
    except Exception:  # whatever a user's forward raises, where it wants targets for example
        return False
    return True


class _ForwardLog:
    """What ran in which order and how often, and which autograd node each call's output came from."""

    def __init__(self, module: nn.Module, training: bool = False) -> None:
        self.training = training
        self.names = {m: name for name, m in module.named_modules()}
        self.order: dict[nn.Module, int] = {}
        self.rank: dict[str, int] = {}
        self.calls: dict[str, int] = defaultdict(int)
        self.made_by: dict[Any, list[Call]] = {}
        self.outputs: set[Any] = set()
        self.output_calls: set[Call] = set()

    def run(self, module: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
        for m in self.names:  # one sample is too few for the statistics of a norm
            m.training = self.training and not isinstance(m, nn.modules.batchnorm._NormBase)
        handles = [m.register_forward_hook(self._note) for m in self.names]
        try:
            results = [t for t in tensors_in(module(*inputs)) if t.grad_fn is not None]
        finally:
            for handle in handles:
                handle.remove()
        self.outputs = {t.grad_fn for t in results}
        self.rank = {self.names[m]: position for m, position in self.order.items()}
        leaves = {self.names[m] for m in self.names if not any(m.children())}
        made = (call for output in self.outputs for call in self.made_by.get(output, ()))
        self.output_calls = {call for call in made if call[0] in leaves}
        return results

    def _note(self, module: nn.Module, _args: Any, output: Any) -> None:
        self.order.setdefault(module, len(self.order))
        name = self.names[module]
        for tensor in tensors_in(output)[:1]:  # torch-pruning follows a module's first output too
            self.made_by.setdefault(tensor.grad_fn, []).append((name, self.calls[name]))
        self.calls[name] += 1

    @property
    def idle(self) -> set[str]:
        """Layers with parameters that did not run."""
        return {name for m, name in self.names.items() if m not in self.order and m._parameters}

    def calls_of(self, module: Any) -> list[Call]:
        """All calls of a module; none for an op."""
        name = self.names.get(module) if isinstance(module, nn.Module) else None
        return [] if name is None else [(name, call) for call in range(self.calls[name])]


def _build(module: nn.Module, inputs: tuple[Any, ...], log: _ForwardLog) -> tuple[Any, set[Any]]:
    """Let torch-pruning build its graph; its warnings on bare parameters are handled by our own proofs.

    Returns:
        The graph, and the nodes through which it can't tell which entry becomes which.
    """
    graph = tp.DependencyGraph()
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            graph.build_dependency(module, inputs, forward_fn=log.run, output_transform=lambda out: out, verbose=False)
        except Exception as error:  # torch-pruning raises whatever it meets
            nodes = getattr(graph, "module2node", {}).values()
            if not any(node.dependencies for node in nodes):
                raise TraceError(
                    f"the model's channels can't be followed: {type(error).__name__}: {error}",
                    hint="give the input that it expects with --input, or report the model",
                ) from error
            return graph, {node for node in nodes if not _maps(graph, node)}
    return graph, set()


def _maps(graph: Any, node: Any) -> bool:
    """Whether torch-pruning finds the index mapping of one op (ShuffleNet's reshape makes it divide by zero)."""
    update = _MAPPINGS.get(node.type)
    try:
        if update:
            update(graph, node)
    except Exception:  # torch-pruning raises whatever it meets
        return False
    return True


_MAPPINGS = {
    OPTYPE.CONCAT: index_mapping.update_concat_index_mapping,
    OPTYPE.SPLIT: index_mapping.update_split_index_mapping,
    OPTYPE.RESHAPE: index_mapping.update_reshape_index_mapping,
    OPTYPE.UNBIND: index_mapping.update_unbind_index_mapping,
    OPTYPE.EXPAND: index_mapping.update_expand_index_mapping,
    OPTYPE.SLICE: index_mapping.update_slice_index_mapping,
}


class _Walker:
    """Walks the dependency graph and remembers which entries are already owned.

    A place is a layer's node together with the side that loses entries, told by torch-pruning's pruning function.
    """

    def __init__(self, graph: Any, module: nn.Module, log: _ForwardLog, unmapped: set[Any]) -> None:
        self.graph = graph
        self.log = log
        self.unmapped = unmapped
        self.parameters = {p: name for name, p in module.named_parameters()}
        self.owned: dict[_Place, set[int]] = defaultdict(set)
        layers = [node for node in graph.module2node.values() if node.type in _FOLLOWED]
        sizes = [size for n in layers for size in (graph.get_in_channels(n), graph.get_out_channels(n)) if size]
        self.largest = max(sizes, default=0)

    def producers(self) -> Iterator[tuple[Any, list[int]]]:
        """Layers that make channels nobody made before, each with those channels, in the order they ran."""
        nodes = [n for n in self.graph.module2node.values() if n.type in _MAKERS]
        for node in sorted(nodes, key=lambda n: self.log.order.get(n.module, 0)):
            total = self.graph.get_out_channels(node.module)
            taken = self.owned[node, self._pruner(node).prune_out_channels]
            free = [channel for channel in range(total) if channel not in taken]
            if free:
                yield node, free

    def walk(self, node: Any, free: list[int]) -> Component:
        """Follow the channels `free` of a producer to everything that depends on them."""
        component = Component(self.log.names[node.module], len(free))
        reached: dict[_Place, dict[int, int]] = defaultdict(dict)
        start = [(entry, channel) for channel, entry in enumerate(free)]
        stack: list[tuple[_Place, list[_Owned]]] = [((node, self._pruner(node).prune_out_channels), start)]
        deadline = time.monotonic() + SECONDS_PER_GROUP
        while stack and not component.reason:
            if time.monotonic() > deadline:
                component.reason = f"its channels could not be followed within {SECONDS_PER_GROUP:.0f} s"
            place, entries = stack.pop()
            fresh = _claim(reached[place], entries, component.ties)
            if place[0] in self.unmapped:
                component.reason = f"goes through {self._name(place[0])}, which can't be followed"
            elif fresh and max(entry for entry, _ in fresh) >= self._size(place):
                component.reason = f"{self._name(place[0])} has fewer entries than the channels that seem to reach it"
            elif fresh:
                component.reason = self._spread(place, fresh, stack)
        self._describe(component, reached)
        return component

    def _spread(self, place: _Place, fresh: list[_Owned], stack: list[tuple[_Place, list[_Owned]]]) -> str:
        """Put the neighbours of a place on the stack; why that was not possible, or ""."""
        try:
            stack.extend(self._neighbours(place, fresh))
        except Exception as error:  # an index mapping of torch-pruning that does not fit (LSTM)
            return f"can't be followed from {self._name(place[0])} ({type(error).__name__} in torch-pruning)"
        return ""

    def _neighbours(self, place: _Place, fresh: list[_Owned]) -> Iterator[tuple[_Place, list[_Owned]]]:
        """The places that must lose entries when this one does, with those entries."""
        node, side = place
        for dependency in node.dependencies:
            if not dependency.is_triggered_by(side):
                continue
            mappings = [mapping for mapping in dependency.index_mapping if mapping is not None]
            entries = _mapped(fresh, mappings) if mappings else fresh
            if entries:
                yield (dependency.target, dependency.handler), entries
        if node.type is OPTYPE.CONV and removes_whole_groups(node.module):
            pruner = self._pruner(node)
            other = pruner.prune_in_channels if side == pruner.prune_out_channels else pruner.prune_out_channels
            yield (node, other), fresh

    def _size(self, place: _Place) -> float:
        """Entries of a layer's side, or of the largest layer for an op.

        The dependency graph may think a place larger than that; then it has misread the model.
        """
        node, side = place
        if node.type not in _FOLLOWED:
            return self.largest
        makes = side == self._pruner(node).prune_out_channels
        size = self.graph.get_out_channels(node) if makes else self.graph.get_in_channels(node)
        return math.inf if size is None else int(size)

    def _pruner(self, node: Any) -> Any:
        return self.graph.get_pruner_of_module(node.module)

    def _describe(self, component: Component, reached: dict[_Place, dict[int, int]]) -> None:
        """Turn the reached places into members, and find what forbids a cut."""
        for place, owner in reached.items():
            node, side = place
            if self.owned[place] & owner.keys():
                component.reason = component.reason or f"shares entries of {self._name(node)} with other channels"
            self.owned[place] |= owner.keys()
            two_sided = node.type in (OPTYPE.CONV, OPTYPE.LINEAR)
            role: Role = "in" if two_sided and side != self._pruner(node).prune_out_channels else "out"
            if role == "out":
                self._follow_output(component, node, len(owner))
            if node.type in _FOLLOWED:
                self._add_member(component, node, role, owner)
            elif node.type not in _SHAPELESS:
                kind = type(node.module).__name__
                component.reason = component.reason or f"goes through {self._name(node)} ({kind}), which can't be cut"
        component.members.sort(key=lambda member: self._rank(member.layer))

    def _follow_output(self, component: Component, node: Any, entries: int) -> None:
        """Note which modules put these channels out, and whether the model itself does."""
        calls = {*self.log.made_by.get(node.grad_fn, ()), *self.log.calls_of(node.module)}
        for call in calls:
            component.carried[call] = component.carried.get(call, 0) + entries
        if node.type is OPTYPE.OUTPUT or node.grad_fn in self.log.outputs or self.log.output_calls & calls:
            component.reason = component.reason or OUTPUT_REASON

    def _add_member(self, component: Component, node: Any, role: Role, owner: dict[int, int]) -> None:
        if node.type is OPTYPE.PARAMETER:
            name = self.parameters[node.module]
            member = Member(name, role, dim=node.pruning_dim % node.module.dim(), owner=owner)
            holder = name.rpartition(".")[0]
            if isinstance(self.graph.model.get_submodule(holder), nn.RMSNorm):  # torch-pruning sees its weight only
                member = Member(holder, role, owner=owner)
        else:
            member = Member(self.log.names[node.module], role, owner=owner)
        component.members.append(member)

    def _name(self, node: Any) -> str:
        """The path of a layer or parameter, or the kind of op."""
        if node.type is OPTYPE.PARAMETER:
            return self.parameters[node.module]
        return self.log.names.get(node.module, "") or f"an op of kind {node.type.name.lower()}"

    def _rank(self, layer: str) -> int:
        return self.log.rank.get(layer, len(self.log.rank))


def _mapped(entries: list[_Owned], mappings: Iterable[Any]) -> list[_Owned]:
    """The entries behind an op that moves them, by torch-pruning's own mappings."""
    hybrids = [_HybridIndex(idx=entry, root_idx=channel) for entry, channel in entries]
    for mapping in mappings:
        hybrids = mapping(hybrids)
    return [(h.idx, h.root_idx) for h in hybrids]


def _claim(owner: dict[int, int], entries: Iterable[_Owned], ties: list[tuple[int, int]]) -> list[_Owned]:
    """Give entries to channels and return the new ones; an entry claimed by two channels ties them."""
    fresh = []
    for entry, channel in entries:
        before = owner.get(entry)
        if before is None:
            owner[entry] = channel
            fresh.append((entry, channel))
        elif before != channel:
            ties.append((before, channel))
    return fresh


def removes_whole_groups(module: nn.Module) -> bool:
    """Whether a grouped convolution loses whole conv groups, in and out together, rather than a share of each.

    With many narrow groups (ResNeXt, RegNet) whole groups are the finer step and keep the group width, which kernels
    like; with few wide ones (ShuffleNet's 3) an equal share of each group is.
    """
    if not isinstance(module, nn.modules.conv._ConvNd) or module.transposed or module.groups == 1:
        return False
    return module.in_channels == module.out_channels and module.groups > module.in_channels // module.groups
