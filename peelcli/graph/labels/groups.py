"""Units as groups: names, slices and attributes, as every later stage knows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from torch import nn

from peelcli.graph.labels.classes import Obstacle
from peelcli.graph.labels.resolve import Place, Resolved, Units, entries_by_root
from peelcli.graph.labels.run import Blend as Found
from peelcli.graph.legal import Legality, grant
from peelcli.records import Attribute, Blend, Group, Locked, Slice
from peelcli.tensors import first_names

Bundles = tuple[tuple[int, ...], ...]
Indices = tuple[tuple[int, ...], ...]


class GroupMaker:
    """Turns the units of one model into groups."""

    def __init__(self, resolved: Resolved, module: nn.Module, legality: Legality) -> None:
        self.resolved = resolved
        self.module = module
        self.legality = legality
        self._entries = {place: entries_by_root(line) for place, line in resolved.lines.items() if _kept(place)}
        self._aliases: dict[str, list[str]] = defaultdict(list)
        once = {path for path, _ in module.named_modules()}  # a module that is in two places has two paths
        for path, first in first_names(module).items():
            if _layer(path) in once:
                self._aliases[first].append(path)
        self._blends = [b for b in resolved.found.blends if resolved.extent_place(b.extent) in resolved.lines]
        for blend in self._blends:
            place = resolved.extent_place(blend.extent)
            assert place is not None
            self._entries.setdefault(place, entries_by_root(resolved.lines[place]))

    def groups(self, ignore: Sequence[str]) -> tuple[Group, ...]:
        """All groups, in the order in which their makers run."""
        names = _unique_names([_layer(units.maker[0]) or units.maker[0] for units in self.resolved.units])
        made = [self._group(units, name) for units, name in zip(self.resolved.units, names, strict=True)]
        return grant(made, self.legality, ignore)

    def _group(self, units: Units, name: str) -> Group:
        first = self._entries[("tensor", *units.maker)]
        own = sorted((entry, root) for root in units.roots for entry in first[root])
        channel_of: dict[int, list[int]] = defaultdict(list)
        for channel, (_entry, root) in enumerate(own):
            channel_of[root].append(channel)
        channels = [channel_of[root] for root in units.roots]
        tensors = sorted((p for p in units.counts if p[0] == "tensor"), key=self._rank)
        return Group(
            name=name,
            layers=tuple(dict.fromkeys(self._layer_of(str(place[1])) for place in tensors)),
            full=len(own),
            step=1,
            floor=1,
            bundles=tuple(map(tuple, channels)),
            slices=tuple(self._slice(place, units, channels, len(own)) for place in tensors),
            attributes=self._attributes(units),
            locked=None if units.obstacle is None else _locked(units.obstacle),
            blends=tuple(b for f in self._blends if (b := self._blend(f, units, channels, len(own))) is not None),
        )

    def _layer_of(self, tensor: str) -> str:
        """The module that holds a tensor, or the tensor itself where the module has more than a layer's own."""
        layer = _layer(tensor)
        module = self.module.get_submodule(layer)
        return layer if next(module.children(), None) is None and layer else tensor

    def _rank(self, place: Place) -> int:
        """When the layer of a tensor ran."""
        return self.resolved.found.ran.get(_layer(str(place[1])), len(self.resolved.found.ran))

    def _slice(self, place: Place, units: Units, channels: list[list[int]], full: int) -> Slice:
        name, dim = str(place[1]), int(str(place[2]))
        role = "in" if (name, dim) in self.resolved.found.read else "out"
        return Slice(name, dim, role, self._indices(place, units, channels, full))  # type: ignore[arg-type]

    def _indices(self, place: Place, units: Units, channels: list[list[int]], full: int) -> Indices:
        """The entries of every channel; a unit's entries are dealt out evenly where they can be."""
        entries: list[tuple[int, ...]] = [()] * full
        for root, own in zip(units.roots, channels, strict=True):
            here = self._entries[place].get(root, [])
            each, rest = divmod(len(here), len(own))
            for k, channel in enumerate(own):
                if rest:
                    entries[channel] = tuple(here) if k == 0 else ()
                else:
                    entries[channel] = tuple(here[k * each : (k + 1) * each])
        return tuple(entries)

    def _blend(self, found: Found, units: Units, channels: list[list[int]], full: int) -> Blend | None:
        place = self.resolved.extent_place(found.extent)
        if place is None or place not in units.counts:
            return None
        return Blend(found.op, found.call, found.operands, found.out, self._indices(place, units, channels, full))

    def _attributes(self, units: Units) -> tuple[Attribute, ...]:
        changes: dict[tuple[str, str, int | None], int] = defaultdict(int)
        for place, count in units.counts.items():
            if place[0] == "tensor":
                for alias in self._aliases[str(place[1])]:
                    for key, loss in self._of_layer(alias, int(str(place[2])), count):
                        changes[key] = loss
        for attr, loss in units.attributes.items():
            changes[attr.module, attr.name, attr.item] = loss
            conv = self.module.get_submodule(attr.module)
            if attr.name == "groups" and isinstance(conv, nn.modules.conv._ConvNd):
                side = "out_channels" if conv.transposed else "in_channels"
                changes[attr.module, side, None] = loss * (getattr(conv, side) // conv.groups)
        return tuple(Attribute(*key, loss) for key, loss in changes.items() if loss)

    def _of_layer(self, tensor: str, dim: int, lost: int) -> list[tuple[tuple[str, str, int | None], int]]:
        """The numbers that torch's own layers keep beside their tensors."""
        layer, _, name = tensor.rpartition(".")
        module = self.module.get_submodule(layer)
        found: list[tuple[tuple[str, str, int | None], int]] = []
        for kind, tensor_name, at, attribute, per_group in _NUMBERS:
            if isinstance(module, kind) and (name, dim) == (tensor_name, at) and hasattr(module, attribute):
                found.append(((layer, attribute, None), lost * (int(getattr(module, "groups", 1)) if per_group else 1)))
        return found


_Numbers = tuple[tuple[type[nn.Module], ...], str, int, str, bool]
_PLAIN_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NUMBERS: tuple[_Numbers, ...] = (
    (_PLAIN_CONVS, "weight", 0, "out_channels", False),
    (_PLAIN_CONVS, "weight", 1, "in_channels", True),
    (_TRANSPOSED, "weight", 0, "in_channels", False),
    (_TRANSPOSED, "weight", 1, "out_channels", True),
    ((nn.Linear,), "weight", 0, "out_features", False),
    ((nn.Linear,), "weight", 1, "in_features", False),
    ((nn.modules.batchnorm._NormBase,), "running_mean", 0, "num_features", False),
    ((nn.modules.batchnorm._NormBase,), "weight", 0, "num_features", False),
    ((nn.GroupNorm,), "weight", 0, "num_channels", False),
    ((nn.Embedding,), "weight", 1, "embedding_dim", False),
    ((nn.PReLU,), "weight", 0, "num_parameters", False),
    ((nn.RNNCellBase,), "weight_ih", 1, "input_size", False),
    ((nn.MultiheadAttention,), "in_proj_weight", 1, "kdim", False),
    ((nn.MultiheadAttention,), "in_proj_weight", 1, "vdim", False),
    ((nn.MultiheadAttention,), "k_proj_weight", 1, "kdim", False),
    ((nn.MultiheadAttention,), "v_proj_weight", 1, "vdim", False),
)


def _kept(place: Place) -> bool:
    return place[0] == "tensor"


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _unique_names(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = defaultdict(int)
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return result


def _locked(obstacle: Obstacle) -> Locked:
    place = f" ({obstacle.place})" if obstacle.place else ""
    return Locked(obstacle.reason + place, obstacle.remedy)
