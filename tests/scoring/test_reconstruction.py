"""Scores by what is lost when the channels that stay make up: nets whose answer is known, and exhaustive search."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from torch import nn

from peelcli.allocation.select import keep_best
from peelcli.graph.legal import Legality
from peelcli.graph.trace import trace
from peelcli.records import ChannelGraph, Subject
from peelcli.samples import Samples
from peelcli.scoring.moments import measure
from peelcli.scoring.surgeon import Reader
from peelcli.scoring.table import score
from tests.support import zoo


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def samples_of(x: torch.Tensor) -> Samples:
    return Samples(tuple((row[None],) for row in x), "drawn")


def scored(net: nn.Module, x: torch.Tensor, legality: Legality | None = None):
    """(graph, scores) of a traced network."""
    subject = Subject(net.eval(), (x[:2],), "net")
    graph = trace(subject, legality or Legality(align=1, min_keep=0.01))
    return graph, score(subject, graph, "reconstruction", 0, samples_of(x))


def mlp(hidden: int = 6) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 5))


def test_one_of_two_equal_channels_goes_first_for_nothing():
    net = mlp(hidden=4)
    with torch.no_grad():
        net[0].weight[3], net[0].bias[3] = net[0].weight[1], net[0].bias[1]
    _, scores = scored(net, drawn(2000, 4))
    channels = scores.groups[0].channels
    first, second = sorted((1, 3), key=lambda channel: channels[channel])
    assert channels[first] == min(channels)
    assert channels[first] < 0.1 * min(value for c, value in enumerate(channels) if c != first)
    assert channels[second] > 20 * channels[first]  # the other one carries both now


def test_a_channel_that_never_changes_costs_nothing():
    net = mlp()
    with torch.no_grad():
        net[0].weight[2] = 0.0  # tanh(bias): a constant, which a bias can take over
    _, scores = scored(net, drawn(200, 4))
    channels = scores.groups[0].channels
    assert channels[2] < 1e-7 * sum(channels)
    assert sorted(channels)[1] > 1e-4 * sum(channels)


def test_a_channel_that_nothing_reads_costs_nothing():
    net = mlp()
    with torch.no_grad():
        net[2].weight[:, 3] = 0.0
    channels = scored(net, drawn(200, 4))[1].groups[0].channels
    assert channels[3] == 0.0
    assert min(value for c, value in enumerate(channels) if c != 3) > 0


@pytest.mark.parametrize("name", ["mlp", "resnet", "mobilenet", "narrow_groups", "transposed_groups", "densenet"])
def test_losses_rise_in_the_order_of_removal(name):
    subject = zoo.subject(name)
    graph = trace(subject, zoo.FREELY)
    rows = torch.cat([drawn(*subject.inputs[0].shape, seed=k) for k in range(10)])
    scores = score(subject, graph, "reconstruction", 0, samples_of(rows))
    assert scores.additive
    for group, scored_group in zip(graph.groups, scores.groups, strict=True):
        by_bundle = []
        for bundle in group.bundles:
            (value,) = {scored_group.channels[channel] for channel in bundle}
            by_bundle.append(value)
        assert min(by_bundle) >= 0
        floor = max(1, group.floor // group.bundle_size)
        removable = sorted(by_bundle)[: len(by_bundle) - floor]
        assert all(a < b or a == b == 0 for a, b in pairwise(removable))
        assert scored_group.layer == pytest.approx(sum(by_bundle))


def test_against_exhaustive_search_on_four_channels():
    net, x = mlp(hidden=4), drawn(400, 4)
    graph, scores = scored(net, x)
    group, found = graph.groups[0], scores.groups[0]
    measured = measure(Subject(net, (x[:2],), "net"), samples_of(x), ("2.weight",), 0)["2.weight"]
    (piece,) = (piece for piece in group.slices if piece.role == "in")

    def loss(removed: tuple[int, ...]) -> float:
        reader = Reader.of(group, piece, measured, 8 * len(x))
        left, total = list(range(4)), 0.0
        for channel in removed:
            position = left.index(channel)
            total += float(reader.costs()[position])
            reader.remove(torch.tensor([position]), torch.tensor([p for p in range(len(left)) if p != position]))
            left.remove(channel)
        return total

    for width in (3, 2, 1):
        removed = tuple(c for c in range(4) if c not in keep_best(group, found.channels, width))
        least = min(loss(other) for other in combinations(range(4), 4 - width))
        assert loss(removed) <= 1.05 * least + 1e-12  # greedy, and here as good as the best
        curve = sum(sorted(found.channels)[: 4 - width])
        assert curve == pytest.approx(loss(tuple(sorted(removed, key=found.channels.__getitem__))), rel=1e-6)


class TwoReaders(nn.Module):
    def __init__(self, both=True):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(3, 5)
        if not both:
            nn.init.zeros_(self.b.weight)

    def forward(self, x):
        y = self.first(x).tanh()
        return torch.cat([self.a(y), self.b(y)], 1)[..., None]  # values, not class scores


def test_what_several_readers_lose_adds_up(make_group):
    net, x = TwoReaders(), drawn(100, 4)
    subject = Subject(net, (x[:2],), "net")
    both = make_group("first", 3, *((f"{name}.weight", 1, "in", ((0,), (1,), (2,))) for name in "ab"))
    alone = [make_group("first", 3, (f"{name}.weight", 1, "in", ((0,), (1,), (2,)))) for name in "ab"]
    measured = measure(subject, samples_of(x), ("a.weight", "b.weight"), 0)
    costs = [Reader.of(g, g.slices[0], measured[g.slices[0].tensor], 800).costs() for g in alone]
    (found,) = score(subject, ChannelGraph((both,), zoo_cost()), "reconstruction", 0, samples_of(x)).groups
    assert min(found.channels) == pytest.approx(float((costs[0] + costs[1]).min()))


def zoo_cost():
    return trace(zoo.subject("mlp"), zoo.FREELY).cost


def test_a_group_that_nothing_measured_reads_gets_an_even_share_and_a_note(subject, graph, samples_of_tiny):
    groups = [replace(g, slices=tuple(p for p in g.slices if p.role == "out")) for g in graph.groups[:1]]
    some = replace(graph, groups=(groups[0], graph.groups[1]))
    scores = score(subject, some, "reconstruction", 0, samples_of_tiny(subject))
    first, second = scores.groups
    assert first.layer == pytest.approx(second.layer)
    # conv1's filters are (3, 4), (0, 0) and (-1, 1): squared sizes 25 : 0 : 2
    assert first.channels == pytest.approx([second.layer * part / 27 for part in (25, 0, 2)])
    assert scores.notes == (
        "1 of 2 groups that may shrink are read by no layer whose effect on the model's main output could be measured: "
        "an even share, ranked by l2",
    )


@pytest.fixture
def samples_of_tiny(request):
    return request.getfixturevalue("samples_of")


class Heads(nn.Module):
    """The second output is no part of what the model is judged by."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.body, self.logits = nn.Linear(4, 8), nn.Linear(8, 5)
        self.inner, self.box = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        y = self.body(x).relu()
        return self.logits(y), self.box(self.inner(y).relu())


class NoGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 5)

    @torch.no_grad()
    def forward(self, x):
        return self.head(self.body(x).relu())


def test_what_only_other_outputs_read_is_not_worthless():
    graph, scores = scored(Heads(), drawn(40, 4))
    by_name = dict(zip((group.name for group in graph.groups), scores.groups, strict=True))
    assert by_name["inner"].layer == pytest.approx(by_name["body"].layer)
    assert min(by_name["inner"].channels) > 0
    assert scores.notes[0].startswith("1 of 2 groups that may shrink are read by no layer whose effect")


@pytest.mark.parametrize("net", [NoGradient(), nn.LSTM(4, 8), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2).half())])
def test_a_model_that_can_t_be_measured_is_ranked_by_its_weights(net, make_group):
    if isinstance(net, nn.Sequential):
        net = net.float()
        net.register_forward_hook(lambda *_: torch.zeros(1, 3))
    name = next(name for name, p in net.named_parameters() if p.dim() == 2)
    group = make_group("first", 8, (name, 0, "out", tuple((i,) for i in range(8))))
    subject = Subject(net.eval(), (drawn(1, 4),), "net")
    scores = score(subject, ChannelGraph((group,), zoo_cost()), "reconstruction", 0, samples_of(drawn(6, 4)))
    assert scores.groups[0].layer == pytest.approx(1.0)
    assert "ranked by l2" in scores.notes[0]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_samples_do(count):
    _, scores = scored(zoo.subject("resnet").module, drawn(count, 3, 16, 16))
    assert all(torch.tensor(group.channels).isfinite().all() for group in scores.groups)
    assert len(set(scores.groups[0].channels)) > 1


def test_wide_groups_lose_several_channels_at_a_time():
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(4, 200), nn.Tanh(), nn.Linear(200, 5))
    _, scores = scored(net, drawn(64, 4))
    channels = scores.groups[0].channels
    assert len(set(channels)) == 200
    assert scores.groups[0].layer == pytest.approx(sum(channels))


def test_a_linear_stream_that_will_be_turned_loses_directions_and_the_order_stays():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    subject = Subject(net, (torch.zeros(1, 8),), "net")
    graph = trace(subject, Legality(align=1, min_keep=0.1))
    data = Samples(tuple((torch.randn(1, 8),) for _ in range(200)), "noise")
    plain, turned = (score(subject, graph, "reconstruction", 0, data, turns=turns).groups for turns in (False, True))
    by_name = {group.name: number for number, group in enumerate(graph.groups)}
    stream, bent = by_name["0"], by_name["1"]
    assert turned[bent] == plain[bent]
    order = [sorted(range(6), key=its[stream].channels.__getitem__) for its in (plain, turned)]
    assert order[0] == order[1]
    lost = [sorted(its[stream].channels) for its in (plain, turned)]
    assert all(sum(lost[1][:n]) <= sum(lost[0][:n]) * 1.001 for n in range(1, 6))
    assert lost[1][0] < 0.01 * lost[0][1]  # five readers can't tell six directions apart
