"""Repair worked by hand: what can be made up for exactly is, and nothing else is touched."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.records import Cut, Subject
from peelcli.samples import Samples
from peelcli.surgery import repair as room
from peelcli.surgery.prune import apply_cuts
from peelcli.surgery.repair import Repaired, repair
from peelcli.tensors import named_tensors
from tests.support import zoo
from tests.support.parts import Lambda, conv_bn, head
from tests.support.samples import distance

PICTURE = (3, 8, 8)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def noise(*shapes: tuple[int, ...], count: int = 64, seed: int = 1) -> Samples:
    source = torch.Generator().manual_seed(seed)
    return Samples(
        tuple(tuple(torch.randn(1, *shape, generator=source) for shape in shapes) for _ in range(count)), "noise"
    )


def cut_down(net: nn.Module, inputs: tuple[Any, ...], keep: dict[str, Sequence[int]]) -> tuple[Cut, ...]:
    """Cuts of the named groups to the channels that stay; all other groups stay whole."""
    graph = zoo.graph_of(Subject(net, inputs, "net"))
    kept = {g.name: tuple(keep.get(g.name, range(g.full))) for g in graph.groups}
    assert set(keep) <= kept.keys()
    return tuple(Cut(g, len(kept[g.name]), kept[g.name], 1.0) for g in graph.groups)


def alive(*layers: nn.Module, seed: int = 0) -> nn.Sequential:
    """The layers in eval mode, with weights that the seed decides and norms away from their initial values."""
    source = torch.Generator().manual_seed(seed)
    net = nn.Sequential(*layers).eval()
    for name, tensor in named_tensors(net):
        if tensor.is_floating_point():
            bound = {"running_var": (0.5, 2.0), "running_mean": (-0.3, 0.3)}.get(name.rpartition(".")[2], (-0.5, 0.5))
            tensor.data.uniform_(*bound, generator=source)
    for norm in net.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.weight.data += 1.0
    return net


def made_twice(net: nn.Sequential, *owners: int) -> nn.Sequential:
    """The second half of the channels as the first one."""
    for tensor in (t for owner in owners for _, t in named_tensors(net[owner]) if t.dim()):
        tensor.data[len(tensor) // 2 :] = tensor.data[: len(tensor) // 2]
    return net


def repaired(net: nn.Module, cuts: Sequence[Cut], samples: Samples, seed: int = 0) -> tuple[nn.Module, Repaired]:
    slim = apply_cuts(net, cuts)
    return slim, repair(net, slim, cuts, samples, seed)


# --- exact


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_filters_that_are_there_twice(norm, bias):
    middle = [nn.BatchNorm2d(8), nn.ReLU()] if norm else [nn.ReLU()]
    net = alive(nn.Conv2d(3, 8, 3, padding=1, bias=bias), *middle, nn.Conv2d(8, 6, 3, bias=bias), nn.ReLU(), head(6))
    made_twice(net, *range(len(middle)))
    cuts = cut_down(net, (torch.randn(1, *PICTURE),), {"0": range(4)})
    held = noise(PICTURE, count=8, seed=2)
    assert distance(net, apply_cuts(net, cuts), held) > 0.05
    slim, done = repaired(net, cuts, noise(PICTURE))
    assert distance(net, slim, held) < 1e-4
    second = len(middle) + 1
    assert "0.weight" in done.kept  # nothing was wrong with it
    assert f"{second}.weight" in done.fitted
    assert done.notes() == (f"repair: {len(done.fitted)} of 3 layers fitted again",)


CONSUMERS = {
    "conv1d": (lambda: (nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 6, 3, 2)), (3, 12)),
    "conv3d": (lambda: (nn.Conv3d(3, 8, 1), nn.ReLU(), nn.Conv3d(8, 6, 2, dilation=2)), (3, 4, 4, 4)),
    "transposed": (lambda: (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3, 2, 1, 1)), (3, 6, 6)),
    "transposed, as wide as before": (lambda: (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 8, 2, 2)), PICTURE),
    "linear": (lambda: (nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 6)), (7, 5)),
    "flatten": (lambda: (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 6)), (3, 5, 5)),
    "same padding": (lambda: (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, (2, 3), padding="same")), PICTURE),
    "circular": (lambda: (nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding_mode="circular")), PICTURE),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSUMERS)
def test_every_kind_of_consumer(name):
    layers, shape = CONSUMERS[name]
    net = made_twice(alive(*layers()), 0)
    cuts = cut_down(net, (torch.randn(1, *shape),), {"0": range(4)})
    slim, done = repaired(net, cuts, noise(shape, count=512 if name == "flatten" else 64))
    assert distance(net, slim, noise(shape, count=8, seed=2)) < 2e-3  # channels that are weak meet the damping
    assert (done.short, done.skipped) == ([], {})


def test_a_constant_channel_goes_into_the_bias():
    # channels 2 and 3 give 2 and -3, whatever comes in: relu makes 2 and 0 of them
    net = alive(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    net[0].weight.data[2:] = 0.0
    net[0].bias.data[2:] = torch.tensor([2.0, -3.0])
    cuts = cut_down(net, (torch.randn(1, 5),), {"0": (0, 1)})
    slim, _ = repaired(net, cuts, noise((5,)))
    assert torch.allclose(slim[2].bias, net[2].bias + 2 * net[2].weight[:, 2], atol=1e-5)
    assert torch.allclose(slim[2].weight, net[2].weight[:, :2], atol=1e-4)


def test_a_constant_channel_goes_into_the_norm():
    # the consumer has no bias: the mean of the norm behind it takes -2 * w, as y - mean is what counts
    net = alive(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1, bias=False), nn.BatchNorm2d(3))
    net[0].weight.data[2:] = 0.0
    net[0].bias.data[2:] = torch.tensor([2.0, -3.0])
    cuts = cut_down(net, (torch.randn(1, *PICTURE),), {"0": (0, 1)})
    slim, _ = repaired(net, cuts, noise(PICTURE))
    assert torch.allclose(slim[3].running_mean, net[3].running_mean - 2 * net[2].weight[:, 2, 0, 0], atol=1e-4)
    assert torch.equal(slim[3].running_var, net[3].running_var)
    assert distance(net, slim, noise(PICTURE, count=8, seed=2)) < 1e-4


def test_neither_bias_nor_norm():
    # y = 2 x is cut, x stays: the weight 1 * 1 + 3 * 2 = 7 makes up for it without a shift
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)).eval()
    net[0].weight.data = torch.tensor([[1.0], [2.0]])
    net[1].weight.data = torch.tensor([[1.0, 3.0]])
    cuts = cut_down(net, (torch.randn(1, 1),), {"0": (0,)})
    slim, _ = repaired(net, cuts, noise((1,)))
    assert slim[0].weight.item() == 1.0
    assert slim[1].weight.item() == pytest.approx(7.0, rel=1e-3)


def test_grouped_filters_that_are_there_twice():
    # groups (0 1 2 3) and (4 5 6 7) read two producer channels twice each
    net = alive(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2), nn.ReLU(), head(4))
    for tensor in net[0].parameters():
        tensor.data[[2, 3, 6, 7]] = tensor.data[[0, 1, 4, 5]]
    cuts = cut_down(net, (torch.randn(1, *PICTURE),), {"0": (0, 1, 4, 5)})
    slim, _ = repaired(net, cuts, noise(PICTURE))
    assert (slim[2].in_channels, slim[2].groups) == (4, 2)
    assert distance(net, slim, noise(PICTURE, count=8, seed=2)) < 1e-4


def stream(norm: bool) -> Lambda:
    """A block that sees the whole of a stream and adds to it."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        y = self.two(F.relu(self.one(x)))
        x = x + (self.norm(y) if norm else y)
        return self.out(x)

    layers = {"stem": nn.Linear(4, 6), "one": nn.Linear(6, 40), "two": nn.Linear(40, 6), "norm": nn.BatchNorm1d(6)}
    parts = alive(*layers.values(), nn.Linear(6, 3))
    return Lambda(forward, **dict(zip([*layers, "out"], parts, strict=True))).eval()


@pytest.mark.parametrize("norm", [True, False])
def test_a_block_makes_up_for_the_stream_that_it_is_added_to(norm, monkeypatch):
    net = stream(norm)
    cuts = cut_down(net, (torch.randn(1, 4),), {"one": range(40)})
    slim = apply_cuts(net, cuts)
    off = F.relu(net.stem.bias.detach())  # what is missing there is another for each sample
    slim.stem.weight.data *= 0.7
    before = distance(net, slim, noise((4,), count=200, seed=2))
    assert off.shape == (6,)
    monkeypatch.setattr(room._Fitter, "can_fit", lambda self: self.product.name == "two.weight")
    with_sum = _two_alone(net, slim, cuts)
    monkeypatch.setattr(room._Fitter, "_drift", lambda *_: None)
    without = _two_alone(net, slim, cuts)
    assert with_sum < 0.5 * before
    assert with_sum < 0.7 * without


def _two_alone(net: nn.Module, slim: nn.Module, cuts: Sequence[Cut]) -> float:
    copy = apply_cuts(slim, ())
    repair(net, copy, cuts, noise((4,), count=1000), 0)
    return distance(net, copy, noise((4,), count=200, seed=2))


# --- what is not touched


def test_nothing_cut_changes_nothing():
    subject = zoo.subject("resnet")
    slim = apply_cuts(subject.module, ())
    done = repair(subject.module, slim, (), noise((3, 16, 16), count=8), 0)
    assert done.fitted == []
    assert all(torch.equal(a, b) for a, b in zip(slim.parameters(), subject.module.parameters(), strict=True))


def test_the_original_and_all_flags_stay():
    net = alive(conv_bn(3, 8), nn.Dropout(0.5), conv_bn(8, 6), head(6))
    net.train()
    net[0][1].eval()
    net[2][0].weight.requires_grad_(False)
    samples = noise(PICTURE)
    cuts = cut_down(net, (torch.randn(1, *PICTURE),), {"0.0": range(4)})
    before = {n: (t.clone(), t.requires_grad, t._version) for n, t in named_tensors(net)}
    inputs = [x.clone() for (x,) in samples.inputs]
    modes, random = [m.training for m in net.modules()], torch.random.get_rng_state()
    slim = apply_cuts(net, cuts)
    done = repair(net, slim, cuts, samples, 0)
    assert "2.0.weight" in done.fitted
    assert all(torch.equal(before[n][0], t) and before[n][1:] == (t.requires_grad, t._version)
               for n, t in named_tensors(net))  # fmt: skip
    assert [m.training for m in net.modules()] == [m.training for m in slim.modules()] == modes
    assert [t.requires_grad for t in slim.parameters()] == [t.requires_grad for t in net.parameters()]
    assert all(t.grad is None and t.is_leaf and not t.is_inference() for t in slim.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(a, x) for a, (x,) in zip(inputs, samples.inputs, strict=True))


def test_inputs_that_a_forward_changes():
    net = Lambda(lambda self, x: self.two(F.relu(self.one(x.mul_(2.0)))), one=nn.Linear(4, 8), two=nn.Linear(8, 3))
    cuts = cut_down(net.eval(), (torch.randn(1, 4),), {"one": range(4)})
    samples = noise((4,), count=40)
    wanted = [x.clone() for (x,) in samples.inputs]
    one = replace(samples, inputs=samples.inputs[:1])
    for some in (samples, one):
        slim = apply_cuts(net, cuts)
        assert "one.weight" not in repair(net, slim, cuts, some, 0).fitted  # both saw the same numbers
        assert all(torch.equal(a, x) for a, (x,) in zip(wanted, samples.inputs, strict=True))


def test_tied_weights():
    subject = zoo.subject("tied_embedding")
    graph = zoo.graph_of(subject)
    cuts = zoo.cuts_at(graph, [group.full // 2 for group in graph.groups])
    slim = apply_cuts(subject.module, cuts)
    table = slim.embed.weight.clone()
    ids = torch.randint(0, 11, (64, 1, 6), generator=torch.Generator().manual_seed(0))
    done = repair(subject.module, slim, cuts, Samples(tuple((row,) for row in ids), "tokens"), 0)
    assert slim.out.weight is slim.embed.weight
    assert torch.equal(slim.embed.weight, table)
    assert done.skipped == {"their weights are tied to others": ["embed.weight"]}
    assert done.notes()[1] == "repair: 1 layer left as cut, their weights are tied to others"


def test_a_table_that_a_forward_reads_twice():
    def forward(self: Any, ids: torch.Tensor) -> torch.Tensor:
        return F.linear(F.relu(self.two(F.relu(self.one(self.table(ids))))), self.table.weight)

    net = Lambda(forward, table=nn.Embedding(5, 4), one=nn.Linear(4, 8), two=nn.Linear(8, 4)).eval()
    cuts = cut_down(net, (torch.tensor([[1, 2]]),), {"one": range(4)})
    ids = torch.randint(0, 5, (64, 1, 6), generator=torch.Generator().manual_seed(0))
    slim, done = repaired(net, cuts, Samples(tuple((row,) for row in ids), "tokens"))
    assert torch.equal(slim.table.weight, net.table.weight)
    assert done.skipped == {"their weights are tied to others": ["table.weight"]}


def test_fixed_filters():
    class Blur(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kernel", torch.ones(8, 1, 3, 3) / 9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(x, self.kernel, groups=len(self.kernel))

    net = alive(nn.Conv2d(3, 8, 3), nn.ReLU(), Blur(), nn.Conv2d(8, 4, 1))
    cuts = cut_down(net, (torch.randn(1, *PICTURE),), {"0": range(4)})
    slim, done = repaired(net, cuts, noise(PICTURE))
    assert torch.equal(slim[2].kernel, net[2].kernel[:4])
    assert done.skipped == {"their weights are no parameters of real numbers": ["2.kernel"]}


def test_a_norm_of_two_layers_keeps_its_mean():
    subject = zoo.subject("shared_norm")
    cuts = cut_down(subject.module, subject.inputs, {"one": range(4)})
    slim = apply_cuts(subject.module, cuts)
    mean = slim.norm.running_mean.clone()
    repair(subject.module, slim, cuts, noise((3, 16, 16), count=16), 0)
    assert torch.equal(slim.norm.running_mean, mean)
