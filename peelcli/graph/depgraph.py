"""Which channels depend on each other, as torch-pruning's dependency graph finds it.

The only file that names torch_pruning. It takes the graph that torch-pruning builds from one forward pass and walks
it with its own bookkeeping: from every producer through all dependencies, carrying for each entry the channel that it
belongs to. Nothing of torch-pruning leaves this file.

Source: Fang et al., DepGraph, arXiv:2301.12900; torch-pruning 1.6.
"""

from __future__ import annotations

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
from torch_pruning.ops import OPTYPE

from peelcli.errors import TraceError
from peelcli.records import Role
from peelcli.tensors import tensors_in

SECONDS_PER_GROUP = 10.0
OUTPUT_REASON = "its channels are the model's output"
_Place = tuple[Any, Any]  # node, pruning function
_Owned = tuple[int, int]  # entry, channel
_SHAPELESS = {
    OPTYPE.CONCAT, OPTYPE.SPLIT, OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.UNBIND,
    OPTYPE.EXPAND, OPTYPE.SLICE, OPTYPE.OUTPUT,
}  # fmt: skip
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
        carried: how many entries each watched parameterless module's input has from here.
        ties: pairs of channels that can only go together.
        reason: why the component can't be pruned, or "".
    """

    producer: str
    channels: int
    members: list[Member] = field(default_factory=list)
    carried: dict[str, int] = field(default_factory=dict)
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
    graph = _build(module, inputs, log)
    walker = _Walker(graph, module, log)
    return [walker.walk(node, free) for node, free in walker.producers()]


class _ForwardLog:
    """What ran in which order, and which autograd node each module's output came from."""

    def __init__(self, module: nn.Module) -> None:
        self.names = {m: name for name, m in module.named_modules()}
        self.order: dict[nn.Module, int] = {}
        self.rank: dict[str, int] = {}
        self.made_by: dict[Any, list[str]] = {}
        self.outputs: set[Any] = set()
        self.output_layers: set[str] = set()

    def run(self, module: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
        handles = [m.register_forward_hook(self._note) for m in self.names]
        try:
            results = [t for t in tensors_in(module(*inputs)) if t.grad_fn is not None]
        finally:
            for handle in handles:
                handle.remove()
        self.outputs = {t.grad_fn for t in results}
        self.rank = {self.names[m]: position for m, position in self.order.items()}
        leaves = {self.names[m] for m in self.names if not any(m.children())}
        self.output_layers = leaves & {name for made in self.outputs for name in self.made_by.get(made, [])}
        return results

    def _note(self, module: nn.Module, _args: Any, output: Any) -> None:
        self.order.setdefault(module, len(self.order))
        for tensor in tensors_in(output)[:1]:  # torch-pruning follows a module's first output too
            self.made_by.setdefault(tensor.grad_fn, []).append(self.names[module])


def _build(module: nn.Module, inputs: tuple[Any, ...], log: _ForwardLog) -> Any:
    """Let torch-pruning build its graph; its warnings on bare parameters are handled by our own proofs."""
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            return tp.DependencyGraph().build_dependency(
                module, inputs, forward_fn=log.run, output_transform=lambda out: out, verbose=False
            )
        except Exception as error:  # torch-pruning raises whatever it meets
            raise TraceError(
                f"the model's channels can't be followed: {type(error).__name__}: {error}",
                hint="give the input that it expects with --input, or report the model",
            ) from error


class _Walker:
    """Walks the dependency graph and remembers which entries are already owned.

    A place is a layer's node together with the side that loses entries, told by torch-pruning's pruning function.
    """

    def __init__(self, graph: Any, module: nn.Module, log: _ForwardLog) -> None:
        self.graph = graph
        self.log = log
        self.parameters = {p: name for name, p in module.named_parameters()}
        self.owned: dict[_Place, set[int]] = defaultdict(set)

    def producers(self) -> Iterator[tuple[Any, list[int]]]:
        """Layers that make channels nobody made before, each with those channels, in the order they ran."""
        nodes = [n for n in self.graph.module2node.values() if n.type in (OPTYPE.CONV, OPTYPE.LINEAR)]
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
            if fresh:
                stack.extend(self._neighbours(place, fresh))
        self._describe(component, reached)
        return component

    def _neighbours(self, place: _Place, fresh: list[_Owned]) -> Iterator[tuple[_Place, list[_Owned]]]:
        """The places that must lose entries when this one does, with those entries."""
        node, side = place
        hybrids = [_HybridIndex(idx=entry, root_idx=channel) for entry, channel in fresh]
        for dependency in node.dependencies:
            if not dependency.is_triggered_by(side):
                continue
            mapped = hybrids
            for mapping in dependency.index_mapping:
                if mapping is not None:
                    mapped = mapping(mapped)
            if mapped:
                yield (dependency.target, dependency.handler), [(h.idx, h.root_idx) for h in mapped]
        if node.type is OPTYPE.CONV and removes_whole_groups(node.module):
            pruner = self._pruner(node)
            other = pruner.prune_in_channels if side == pruner.prune_out_channels else pruner.prune_out_channels
            yield (node, other), fresh

    def _pruner(self, node: Any) -> Any:
        return self.graph.get_pruner_of_module(node.module)

    def _describe(self, component: Component, reached: dict[_Place, dict[int, int]]) -> None:
        """Turn the reached places into members, and find what forbids a cut."""
        for place, owner in reached.items():
            node, side = place
            if self.owned[place] & owner.keys():
                component.reason = component.reason or f"shares entries of {node.name} with other channels"
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
        names = self.log.made_by.get(node.grad_fn, [])
        if isinstance(node.module, nn.Module) and node.module in self.log.names:
            names = [*names, self.log.names[node.module]]
        for name in dict.fromkeys(names):
            component.carried[name] = component.carried.get(name, 0) + entries
        if node.type is OPTYPE.OUTPUT or node.grad_fn in self.log.outputs or self.log.output_layers & set(names):
            component.reason = component.reason or OUTPUT_REASON

    def _add_member(self, component: Component, node: Any, role: Role, owner: dict[int, int]) -> None:
        if node.type is OPTYPE.PARAMETER:
            member = Member(self.parameters[node.module], role, dim=node.pruning_dim % node.module.dim(), owner=owner)
        else:
            member = Member(self.log.names[node.module], role, owner=owner)
        component.members.append(member)

    def _name(self, node: Any) -> str:
        return self.log.names.get(node.module, "") or str(node.name)

    def _rank(self, layer: str) -> int:
        return self.log.rank.get(layer, len(self.log.rank))


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
