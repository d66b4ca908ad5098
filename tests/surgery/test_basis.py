"""Streams in another basis: the same function, and kept channels that carry the directions that are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.records import Cut, Subject
from peelcli.samples import Samples
from peelcli.surgery import basis as room
from peelcli.surgery.basis import Basis, Sight, directions
from peelcli.surgery.prune import apply_cuts
from peelcli.surgery.repair import repair
from tests.support import zoo
from tests.support.parts import Lambda, conv_bn, head
from tests.support.samples import distance

Pair = tuple[torch.Tensor, torch.Tensor]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def samples(*shape: int, count: int = 64) -> Samples:
    return Samples(tuple((drawn(1, *shape, seed=number).float(),) for number in range(count)), "noise")


def cuts(net: nn.Module, inputs: tuple[Any, ...], keep: dict[str, Sequence[int]]) -> tuple[Cut, ...]:
    graph = zoo.graph_of(Subject(net, inputs, "net"))
    kept = {g.name: tuple(keep.get(g.name, range(g.full))) for g in graph.groups}
    assert set(keep) <= kept.keys()
    return tuple(Cut(g, len(kept[g.name]), kept[g.name], 1.0) for g in graph.groups)


def basis_of(net: nn.Module, its: Sequence[Cut], data: Samples) -> Basis:
    """As if inputs were independent of one another, and all outputs mattered alike."""

    def look(weights: set[str]) -> dict[str, Sight]:
        matrices = {name: net.get_parameter(name).detach().double() for name in weights}
        return {
            name: Sight(torch.eye(w.shape[1], dtype=torch.float64), w.reshape(*w.shape[:2], -1))
            for name, w in matrices.items()
        }

    return Basis(net, its, data, look)


# --- directions


def test_two_channels_that_are_only_read_as_their_sum():
    sight = torch.eye(2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    mix, back = directions([sight], (0,))
    torch.testing.assert_close(mix @ back, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(mix[0] / mix[0, 0], torch.ones(2, dtype=torch.float64))
    assert mix[0, 0] > 0  # nearest to what channel 0 was
    assert abs(float(torch.tensor([1.0, 1.0], dtype=torch.float64) @ back[:, 1])) < 1e-12  # what goes is not read


def test_a_channel_that_must_carry_what_another_one_did():
    sight = torch.eye(2, dtype=torch.float64), torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64))
    mix, _ = directions([sight], (1,))
    torch.testing.assert_close(mix.abs(), torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))


def test_channels_that_are_best_already_stay_as_they_are():
    sight = torch.diag(torch.tensor([4.0, 1.0, 9.0], dtype=torch.float64)), torch.eye(3, dtype=torch.float64)
    mix, back = directions([sight], (0, 2))
    torch.testing.assert_close(mix, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(back, torch.eye(3, dtype=torch.float64))


def error(kept: torch.Tensor, sights: Sequence[Pair]) -> float:
    """What readers lose that are rebuilt linearly, as well as can be, from some numbers about the stream."""
    total = 0.0
    for covariance, power in sights:
        rebuilt = covariance @ kept.T @ torch.linalg.inv(kept @ covariance @ kept.T) @ kept
        rest = torch.eye(len(covariance), dtype=torch.float64) - rebuilt
        total += float((rest @ covariance @ rest.T * power).sum())
    return total


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [1, 3, 5])
def test_no_other_numbers_tell_the_readers_more(monkeypatch, seed, width):
    monkeypatch.setattr(room, "_DAMPING", 1e-12)
    shape = drawn(6, 6, seed=seed)
    covariance = shape @ shape.T
    readers = [drawn(4, 6, seed=100 + seed), drawn(2, 6, seed=200 + seed)]
    sights = [(covariance, w.T @ w) for w in readers]
    mix, back = directions(sights, tuple(range(width)))
    torch.testing.assert_close(mix @ back, torch.eye(6, dtype=torch.float64), atol=1e-8, rtol=0)
    least = error(mix[:width], sights)
    for other in range(50):
        assert error(drawn(width, 6, seed=1000 + other), sights) >= least * (1 - 1e-9)
    for channels in torch.combinations(torch.arange(6), width):
        assert error(torch.eye(6, dtype=torch.float64)[channels], sights) >= least * (1 - 1e-9)
    root = torch.linalg.cholesky(covariance)
    losses = torch.linalg.eigvalsh(sum(root.T @ power @ root for _, power in sights))
    assert least == pytest.approx(float(losses[: 6 - width].sum()), rel=1e-6, abs=1e-9)


def test_a_weight_that_reads_a_stream_at_several_places():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    its = cuts(net, (torch.zeros(1, 1, 1, 2),), {})
    (piece,) = (p for p in its[0].group.slices if p.role == "in")
    weight = drawn(3, 4)
    covariance = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    seen, power = Sight(covariance, weight[:, :, None]).of(piece)
    torch.testing.assert_close(seen, torch.diag(torch.tensor([1.5, 3.5], dtype=torch.float64)))  # means of two places
    by_hand = (weight[:, [0, 2]].T @ weight[:, [0, 2]] + weight[:, [1, 3]].T @ weight[:, [1, 3]]) / 2
    torch.testing.assert_close(power, by_hand)


# --- turning a model


def bottlenecks() -> nn.Sequential:
    def block() -> nn.Module:
        return Lambda(
            lambda self, x: x + self.norm(self.narrow(self.wide(x))),
            wide=conv_bn(6, 12, 1), narrow=nn.Conv2d(12, 6, 1), norm=nn.BatchNorm2d(6),
        )  # fmt: skip

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), block(), block(), conv_bn(6, 8, 3), head(8)).eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.3, 0.3)
            norm.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return net


NETS = {
    "bottlenecks": (bottlenecks, (3, 8, 8)),
    "linear": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), (5,)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(2, 6, 3), nn.Conv1d(6, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 1)), (2, 9)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_turned_model_computes_the_same(name):
    make, shape = NETS[name]
    net, data = make(), samples(*shape)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    its = cuts(net, data.inputs[0], {"0": (0, 2, 5)})
    basis = basis_of(net, its, data)
    assert basis.streams == ("0",)
    turned = basis.turned(its)
    assert turned is not net
    assert distance(net, turned, data) < 1e-5
    assert not torch.equal(turned.state_dict()["0.weight"], before["0.weight"])
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_what_readers_see_only_as_a_sum_is_not_lost():
    net = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        net[1].weight[:, 1] = net[1].weight[:, 0]
    data = samples(4)
    its = cuts(net, data.inputs[0], {"0": (1,)})
    assert distance(net, apply_cuts(net, its), data) > 0.1
    assert distance(net, apply_cuts(basis_of(net, its, data).turned(its), its), data) < 1e-6


def test_repair_goes_on_from_a_turned_model_and_comes_nearer():
    net, data = bottlenecks(), samples(3, 8, 8, count=128)
    its = cuts(net, data.inputs[0], {"0": (0, 1, 2, 3)})
    found = []
    for original in (net, basis_of(net, its, data).turned(its)):
        slim = apply_cuts(original, its)
        repair(original, slim, its, data, 0)
        found.append(distance(net, slim, data))
    assert found[1] < 0.8 * found[0]


def test_norms_know_the_variance_that_they_see_and_modes_and_flags_stay():
    net, data = bottlenecks(), samples(3, 8, 8)
    net.train()
    net[3].eval()
    net[2].narrow.weight.requires_grad_(False)
    its = cuts(net, data.inputs[0], {"0": (0, 1, 2)})
    turned: Any = basis_of(net, its, data).turned(its)
    assert [m.training for m in turned.modules()] == [m.training for m in net.modules()]
    assert [p.requires_grad for p in turned.parameters()] == [p.requires_grad for p in net.parameters()]
    seen = []
    turned.eval()
    turned[2].norm.register_forward_pre_hook(lambda _norm, given: seen.append(given[0].detach()))
    with torch.no_grad():
        turned(torch.cat([x for (x,) in data.inputs]))
    torch.testing.assert_close(turned[2].norm.running_var, seen[0].var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-7)


def test_a_norm_that_is_used_without_a_call_of_it():
    def forward(self, x):
        n = self.norm
        y = F.batch_norm(self.conv(x), n.running_mean, n.running_var, n.weight, n.bias, False, 0.1, n.eps)
        return self.rest(y)

    rest = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), head(4))
    net = Lambda(forward, conv=nn.Conv2d(3, 6, 3), norm=nn.BatchNorm2d(6), rest=rest).eval()
    data = samples(3, 8, 8)
    its = cuts(net, data.inputs[0], {"conv": (0, 1, 2)})
    turned = basis_of(net, its, data).turned(its)
    assert turned is not net
    assert distance(net, turned, data) < 1e-5


def test_groups_at_full_width_are_left_alone():
    net, data = bottlenecks(), samples(3, 8, 8)
    its = cuts(net, data.inputs[0], {"2.wide.0": (0, 1, 2)})
    assert basis_of(net, its, data).turned(its) is net


def test_without_streams_nobody_looks():
    net = nn.Sequential(conv_bn(3, 6), head(6)).eval()
    its = cuts(net, (torch.zeros(1, 3, 8, 8),), {"0.0": (0, 1)})
    basis = Basis(net, its, samples(3, 8, 8), lambda _: pytest.fail("there is nothing to look at"))
    assert basis.streams == ()
    assert basis.turned(its) is net


def test_what_is_bent_where_a_pass_does_not_show_it_is_found_by_its_outputs():
    rounded = Lambda(lambda self, x: x.to(torch.int32).to(x.dtype))
    net = nn.Sequential(nn.Conv2d(3, 6, 3), rounded, nn.Conv2d(6, 4, 1), nn.Conv2d(4, 5, 1), nn.ReLU(), head(5)).eval()
    with torch.no_grad():
        net[0].weight.mul_(5.0)
    its = cuts(net, (torch.zeros(1, 3, 8, 8),), {"0": (0, 1), "2": (0, 1)})
    assert basis_of(net, its, samples(3, 8, 8)).streams == ("2",)


def test_a_stream_that_nothing_sees_stays_as_it_is():
    net, data = bottlenecks(), samples(3, 8, 8)
    its = cuts(net, data.inputs[0], {"0": (0, 1, 2)})
    assert Basis(net, its, data, lambda _: {}).turned(its) is net


@pytest.mark.parametrize("name", sorted(zoo.SOUND))
def test_the_whole_zoo_computes_the_same_in_whatever_basis(name):
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject)
    its = zoo.cuts_at(graph, zoo.some_widths(graph, 0))
    data = Samples((subject.inputs,), "its own")
    basis = basis_of(subject.module, its, data)
    assert distance(subject.module, basis.turned(its), data) < 1e-4
