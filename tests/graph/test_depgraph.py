"""Components as the dependency graph gives them, and each surprise of torch-pruning."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from peelcli.errors import TraceError
from peelcli.graph import depgraph
from peelcli.graph.depgraph import Component, find_components
from peelcli.tensors import tracing_copy
from tests.support import zoo
from tests.support.parts import Lambda, conv_bn, head, image


def components_of(net: nn.Module, *inputs: torch.Tensor) -> dict[str, Component]:
    with torch.device("meta"):
        found = find_components(tracing_copy(net), tuple(x.to("meta") for x in inputs))
    return {component.producer: component for component in found}


def component(name: str, producer: str) -> Component:
    subject = zoo.subject(name)
    return components_of(subject.module, *subject.inputs)[producer]


def test_members_and_owners_by_hand():
    found = component("vgg_flatten", "2.0")
    assert (found.channels, found.ties, found.reason) == (12, [], "")
    assert [(m.layer, m.role, m.dim) for m in found.members] == [
        ("2.0", "out", None), ("2.1", "out", None), ("5", "in", None)
    ]  # fmt: skip
    assert found.members[0].owner == {channel: channel for channel in range(12)}
    assert found.members[2].owner == {column: column // 6 for column in range(72)}


def test_members_are_in_the_order_of_the_data_flow_and_bare_parameters_last():
    assert [m.layer for m in component("convnext", "0").members] == [
        "0", "1", "2.depthwise", "2.norm", "2.wide", "2.narrow", "3", "4", "2.scale"
    ]  # fmt: skip
    assert component("convnext", "0").members[-1].dim == 0


def test_what_each_call_carries():
    found = components_of(zoo.subject("shared_pool").module, image())
    assert found["one.0"].carried["pool", 0] == 8
    assert ("pool", 1) not in found["one.0"].carried
    assert found["two.0"].carried["pool", 1] == 12


def test_entries_that_meet_are_tied():
    found = component("chunks", "both")
    assert {tuple(sorted(tie)) for tie in found.ties} == {(c, c + 6) for c in range(6)}


def test_an_entry_goes_to_its_first_claimant_and_ties_the_second():
    owner = {3: 0}
    ties: list[tuple[int, int]] = []
    assert depgraph._claim(owner, [(3, 0), (3, 1), (4, 1), (5, 2), (5, 2), (5, 3)], ties) == [(4, 1), (5, 2)]
    assert owner == {3: 0, 4: 1, 5: 2}
    assert ties == [(0, 1), (2, 3)]


def test_channels_that_were_made_before_are_not_made_again():
    found = components_of(zoo.subject("cat_then_add").module, image())
    assert list(found) == ["one", "two", "head.2"]
    assert [m.owner for m in found["two"].members if m.layer == "wide"] == [{6 + c: c for c in range(8)}]


def test_an_index_mapping_that_fails_costs_its_groups_and_not_the_run():
    # torch-pruning 1.6.1 divides by zero in ShuffleNet's reshape while it builds the graph
    found = components_of(torchvision.models.shufflenet_v2_x0_5(), image(size=32))
    reasons = {name: c.reason for name, c in found.items()}
    assert reasons["stage2.1.branch2.0"] == ""
    assert reasons["stage2.1.branch2.5"] == "goes through an op of kind reshape, which can't be followed"
    assert reasons["stage2.0.branch2.5"].startswith("can't be followed from an op of kind split (IndexError")
    assert sum(reason == "" for reason in reasons.values()) > len(reasons) / 3


def test_lists_that_grow_beyond_every_layer_end_the_walk():
    # Swin's shifted windows: index lists that multiply with each reshape, minutes if followed
    net = torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=5)
    found = components_of(net, image(size=32))
    assert found["features.1.0.mlp.0"].reason == ""
    assert "has fewer entries than the channels that seem to reach it" in found["features.3.1.mlp.3"].reason


def test_a_walk_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(depgraph, "SECONDS_PER_GROUP", -1.0)
    subject = zoo.subject("mlp")
    reasons = [c.reason for c in components_of(subject.module, *subject.inputs).values()]
    assert reasons[0] == "its channels could not be followed within -1 s"
    assert all(group.locked for group in zoo.graph_of(subject, tracer="depgraph").groups)


def test_layers_that_can_t_be_cut_lock_what_passes_through():
    assert component("attention", "embed").reason == "goes through attn (MultiheadAttention), which can't be cut"


def test_a_bare_parameter_is_named_in_a_reason():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 20, 3, padding=1), head(20)
            self.place = nn.Parameter(torch.zeros(1, 1, 16, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x) + self.place)

    reason = components_of(Net(), image())["conv"].reason
    assert reason == "place has fewer entries than the channels that seem to reach it"


def test_what_torch_pruning_can_t_build_is_a_trace_error():
    class Refuses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    with pytest.raises(TraceError, match="the model's channels can't be followed: ValueError: no"):
        find_components(Refuses(), (image(),))


def test_no_hooks_are_left_behind():
    copy = tracing_copy(zoo.subject("auxiliary").module)
    find_components(copy, (image().to("meta"),))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in copy.modules())


def test_each_walk_starts_with_defaults_of_its_own():
    # torch-pruning's default arguments are shared mutable dicts
    net = Lambda(lambda self, x: self.head(self.conv(x) * self.scale), conv=conv_bn(3, 8), head=head(8))
    net.scale = nn.Parameter(torch.ones(8, 1, 1))
    first, second = (components_of(net, image()) for _ in range(2))
    assert first == second
