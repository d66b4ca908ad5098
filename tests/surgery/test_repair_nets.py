"""Repair on small networks of every shape, on samples that nothing was fitted on; and what can go wrong on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils import _pytree as pytree

from peelcli.records import Cut, Subject
from peelcli.samples import Samples
from peelcli.surgery import repair as room
from peelcli.surgery.aims import Aim
from peelcli.surgery.prune import apply_cuts
from peelcli.surgery.repair import Repaired, repair
from peelcli.tensors import named_tensors, one_sample
from tests.support import zoo
from tests.support.parts import Lambda, conv_bn, head
from tests.support.samples import distance

# How much nearer to the original each must come at half the channels; random ones are cut, so no channel is spared.
FACTOR = {
    "resnet": 0.2, "mobilenet": 0.2, "densenet": 0.2, "wide_groups": 0.2, "narrow_groups": 0.2, "conv1d": 0.5,
    "conv3d": 0.5, "vgg_flatten": 0.5, "squeezenet": 0.2, "cat_flatten": 0.5, "cat_then_add": 0.2, "c2f": 0.2,
    "depthwise_multiplier": 0.2, "group_norm": 0.2, "shared_norm": 0.2, "transposed_groups": 0.6, "unet": 1.0,
    "attention": 0.7, "convnext": 0.7, "two_inputs": 0.7, "tuple_output": 0.9, "dataclass_output": 0.2,
    "embedding": 0.5, "sequence_mlp": 0.9, "parameter_scale": 0.2, "recurrent": 0.3, "shared_head": 1.0,
    "called_twice": 0.5, "normalised_weights": 0.3, "padded_shortcut": 0.3, "shuffle": 0.3, "makes_tensors": 0.3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def samples_like(inputs: tuple[Any, ...], count: int, seed: int) -> Samples:
    """Noise in the shape of one sample; numbers of tokens as large as those that are there."""
    source = torch.Generator().manual_seed(seed)

    def another(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, generator=source).to(tensor.dtype)
        return torch.randint(0, int(tensor.max()) + 1, tensor.shape, generator=source)

    one = one_sample(inputs)
    made = (tuple(pytree.tree_map_only(torch.Tensor, another, one)) for _ in range(count))
    return Samples(tuple(made), "noise")


def halves(subject: Subject) -> tuple[Cut, ...]:
    graph = zoo.graph_of(subject)
    widths = [min(group.legal_widths(), key=lambda width: abs(2 * width - group.full)) for group in graph.groups]
    return zoo.cuts_at(graph, widths)


def before_and_after(subject: Subject, cuts: Sequence[Cut], fit: Samples) -> tuple[float, float, nn.Module, Repaired]:
    slim, held = apply_cuts(subject.module, cuts), samples_like(subject.inputs, 16, 2)
    before = distance(subject.module, slim, held)
    done = repair(subject.module, slim, cuts, fit, 0)
    return before, distance(subject.module, slim, held), slim, done


@pytest.mark.parametrize("name", FACTOR)
def test_half_the_channels(name):
    subject = zoo.subject(name)
    before, after, _, done = before_and_after(subject, halves(subject), samples_like(subject.inputs, 64, 1))
    assert after < FACTOR[name] * before
    assert done.fitted


@pytest.mark.parametrize("name", zoo.SOUND)
def test_two_samples_are_enough_for_every_network_to_run(name):
    subject = zoo.subject(name)
    fit = Samples((subject.inputs,) * 2, "itself", single=True)
    cuts = halves(subject)
    slim = apply_cuts(subject.module, cuts)
    done = repair(subject.module, slim, cuts, fit, 0)
    assert all(torch.isfinite(tensor).all() for _, tensor in named_tensors(slim))
    products = {*done.fitted, *done.kept, *(name for names in done.skipped.values() for name in names)}
    assert products or name == "no_batch"  # there a matrix product with one vector, which is none of ours
    assert len(done.notes()) == 1 + bool(done.short) + len(done.skipped)


def test_an_autoencoder():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(24, 16, 2, 2), nn.ReLU(), nn.ConvTranspose2d(16, 3, 2, 2),
    ).eval()  # fmt: skip
    subject = Subject(net, (torch.randn(1, 3, 16, 16),), "autoencoder")
    before, after, _, done = before_and_after(subject, halves(subject), samples_like(subject.inputs, 64, 1))
    assert after < 0.9 * before
    assert {"4.weight", "6.weight"} <= {*done.fitted}


def test_a_transformer_encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    net = nn.Sequential(nn.Linear(5, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)).eval()
    subject = Subject(net, (torch.randn(2, 6, 5),), "encoder")
    before, after, _, done = before_and_after(subject, halves(subject), samples_like(subject.inputs, 64, 1))
    assert after < 0.6 * before
    assert "1.layers.0.self_attn.in_proj_weight" in done.fitted


def test_gpt2():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=32, use_cache=False, bos_token_id=1, eos_token_id=2,
        initializer_range=0.2,
    )  # fmt: skip
    net = transformers.GPT2LMHeadModel(config).eval()
    subject = Subject(net, (torch.randint(0, 60, (2, 12)),), "gpt2")
    table = net.transformer.wte.weight.clone()
    before, after, slim, done = before_and_after(subject, halves(subject), samples_like(subject.inputs, 64, 1))
    assert after < 0.95 * before
    assert len(done.fitted) == 8  # the matrices of Conv1D
    assert slim.lm_head.weight is slim.transformer.wte.weight
    assert torch.equal(net.transformer.wte.weight, table)


# --- samples and modes


def test_deterministic(monkeypatch):
    monkeypatch.setattr(room, "_FEWEST", {True: 64, False: 64})  # fewer than there are, so that the seed chooses
    subject = zoo.subject("resnet")
    cuts, fit = halves(subject), samples_like(subject.inputs, 16, 1)
    one, two, other = (apply_cuts(subject.module, cuts) for _ in range(3))
    for slim, seed in ((one, 3), (two, 3), (other, 4)):
        torch.rand(seed)
        repair(subject.module, slim, cuts, fit, seed)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(named_tensors(one), named_tensors(two), strict=True))
    assert not torch.equal(one[3].conv2.weight, other[3].conv2.weight)


def test_a_forward_with_random_numbers():
    subject = zoo.subject("random_forward")
    cuts, fit = halves(subject), samples_like(subject.inputs, 16, 1)
    one, two = (apply_cuts(subject.module, cuts) for _ in range(2))
    repair(subject.module, one, cuts, fit, 3)
    repair(subject.module, two, cuts, fit, 3)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(named_tensors(one), named_tensors(two), strict=True))


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "attention"])
def test_waves(name, monkeypatch):
    subject = zoo.subject(name)
    cuts, fit = halves(subject), samples_like(subject.inputs, 64, 1)
    before, whole, _, _ = before_and_after(subject, cuts, fit)
    sizes = []
    made = room._Wave.__init__
    monkeypatch.setattr(room._Wave, "__init__", lambda *args: sizes.append(args[4]) or made(*args))
    monkeypatch.setattr(room, "_BYTES_AT_ONCE", 1)
    _, waves, _, _ = before_and_after(subject, cuts, fit)
    assert sizes == [2] * 32
    assert waves < before * 0.7
    assert waves == pytest.approx(whole, rel=0.3, abs=0.01)


def test_samples_of_several_shapes():
    subject = zoo.subject("mean_over_space")
    sizes = [(8, 8), (12, 10), (8, 8), (16, 6)] * 16
    source = torch.Generator().manual_seed(0)
    fit = Samples(tuple((torch.randn(1, 3, *size, generator=source),) for size in sizes), "noise")
    before, after, _, _ = before_and_after(subject, halves(subject), fit)
    assert after < 0.3 * before


def test_inference_mode_around():
    subject = zoo.subject("resnet")
    cuts, fit = halves(subject), samples_like(subject.inputs, 16, 1)
    plain, inside = (apply_cuts(subject.module, cuts) for _ in range(2))
    repair(subject.module, plain, cuts, fit, 0)
    with torch.inference_mode():
        repair(subject.module, inside, cuts, fit, 0)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), inside.parameters(), strict=True))
    assert not any(tensor.is_inference() for _, tensor in named_tensors(inside))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype):
    subject = zoo.subject("resnet")
    subject = Subject(subject.module.to(dtype), tuple(x.to(dtype) for x in subject.inputs), "resnet")
    before, after, slim, _ = before_and_after(subject, halves(subject), samples_like(subject.inputs, 64, 1))
    assert after < 0.3 * before
    assert {p.dtype for p in slim.parameters()} == {dtype}


def test_a_change_that_numbers_can_not_hold(monkeypatch):
    subject = zoo.subject("mlp")
    cuts = halves(subject)
    slim = apply_cuts(subject.module, cuts).half()
    module = subject.module.half()
    fit = Samples(tuple((torch.randn(1, 7).half(),) for _ in range(64)), "noise")

    def huge(x: torch.Tensor, aim: Aim, *_: object) -> room.ridge.Fit:
        outputs = aim.change.shape[2]
        return room.ridge.Fit(torch.full((1, outputs, x.shape[2]), 1e6), torch.zeros(1, outputs), 1.0, 0.0)

    monkeypatch.setattr(room.ridge, "fit", huge)
    done = repair(module, slim, cuts, fit, 0)
    assert done.fitted == []
    assert all(torch.isfinite(p).all() for p in slim.parameters())


def test_few_rows_are_told():
    net = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 3)).eval()
    subject = Subject(net, (torch.randn(1, 20),), "net")
    _, _, _, done = before_and_after(subject, halves(subject), samples_like(subject.inputs, 10, 1))
    assert done.short == ["2.weight"]
    assert "repair: 1 layer with more inputs than rows were seen: regularised; more samples help" in done.notes()


def test_train_mode_with_dropout():
    torch.manual_seed(0)
    net = nn.Sequential(conv_bn(3, 8), nn.Dropout(0.9), conv_bn(8, 8), head(8))
    subject = Subject(net.eval(), (torch.randn(1, 3, 8, 8),), "net")
    cuts, fit = halves(subject), samples_like(subject.inputs, 16, 1)
    calm, trained = apply_cuts(net, cuts), apply_cuts(net.train(), cuts)
    repair(net, trained, cuts, fit, 0)
    assert all(module.training for module in trained.modules())
    repair(net.eval(), calm, cuts, fit, 0)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(named_tensors(calm), named_tensors(trained), strict=True))


# --- ways that part


def parting(self: Any, x: torch.Tensor) -> torch.Tensor:
    """The layer after the first depends on how many channels there are."""
    y = F.relu(self.one(x))
    y = self.left(y) if y.shape[1] == 8 else self.right(y)
    return self.out(F.relu(y))


def test_models_that_go_different_ways():
    layers = {"one": nn.Linear(4, 8), "left": nn.Linear(8, 8), "right": nn.Linear(8, 8), "out": nn.Linear(8, 3)}
    net = Lambda(parting, **layers).eval()
    slim = Lambda(parting, one=nn.Linear(4, 6), left=nn.Linear(6, 8), right=nn.Linear(6, 8), out=layers["out"])
    steps = []
    fit = samples_like((torch.randn(1, 4),), 16, 1)
    slim.one.load_state_dict({"weight": net.one.weight[:6], "bias": net.one.bias[:6]})
    cut = zoo.graph_of(Subject(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).eval(), fit.inputs[0], "")).groups[0]
    pieces = tuple(type(p)(p.tensor.replace("0.", "one."), p.dim, p.role, p.indices) for p in cut.slices[:2])
    cuts = (Cut(type(cut)("one", ("one",), 8, 1, 1, cut.bundles, pieces, ()), 6, tuple(range(6)), 1.0),)
    done = repair(net, slim, cuts, fit, 0, lambda *step: steps.append(step))
    assert done.skipped == {"which the two models do not reach side by side": ["right.weight", "out.weight"]}
    assert done.kept == ["one.weight"]
    assert steps == [(1, 3)]


def test_batches_that_go_different_ways():
    """Long samples take another layer than short ones: the rows of one layer never go into another's fit."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.one(x))
        y = self.long(y) if x.shape[1] > 5 else self.short(y)
        return self.out(F.relu(y))

    torch.manual_seed(0)
    layers = {"one": nn.Linear(4, 8), "long": nn.Linear(8, 8), "short": nn.Linear(8, 8), "out": nn.Linear(8, 3)}
    net = Lambda(forward, **layers).eval()
    fit = Samples(tuple((torch.randn(1, 9 if k % 3 else 4, 4),) for k in range(60)), "noise")
    slim, steps = apply_cuts(net, ()), []
    slim.one.weight.data[4:] = 0.0  # as good as cut
    done = repair(net, slim, (), fit, 0, lambda *step: steps.append(step))
    assert done.fitted[0] == "one.weight"
    assert {*done.fitted, *done.kept} == {"one.weight", "short.weight", "out.weight"}
    assert distance(net, slim, fit) < 2e-3
    assert done.skipped == {}  # the first samples are short ones, and so are those that are looked at
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("when", [0, 1, 5])
def test_a_forward_that_raises(when, monkeypatch):
    """The error comes through, from whichever pass, and the slim model is in its mode again."""
    calls = []

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.one(x))
        calls.append(None)
        if len(calls) > when:
            raise ZeroDivisionError("in the middle")
        return self.two(y)

    net = Lambda(forward, one=nn.Linear(4, 8), two=nn.Linear(8, 3)).train()
    monkeypatch.setattr(room, "_BYTES_AT_ONCE", 1)
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        repair(net, apply_cuts(net, ()), (), samples_like((torch.randn(1, 4),), 16, 1), 0)
    assert net.training
    assert torch.backends.mha.get_fastpath_enabled()


def test_positions_that_are_others():
    """Channels that become rows: the slim model sees fewer of them, and none stands for the same thing."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x)[..., None].expand(-1, -1, 4))

    net = Lambda(forward, one=nn.Linear(4, 8), two=nn.Linear(4, 3)).eval()
    slim = Lambda(forward, one=nn.Linear(4, 6), two=nn.Linear(4, 3)).eval()
    fit = samples_like((torch.randn(1, 4),), 16, 1)
    graph = zoo.graph_of(Subject(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).eval(), fit.inputs[0], ""))
    pieces = tuple(
        type(p)(p.tensor.replace("0.", "one."), p.dim, p.role, p.indices) for p in graph.groups[0].slices[:2]
    )
    group = type(graph.groups[0])("one", ("one",), 8, 1, 1, graph.groups[0].bundles, pieces, ())
    done = repair(net, slim, (Cut(group, 6, tuple(range(6)), 1.0),), fit, 0)
    assert done.skipped == {"which see the samples at other positions in the slim model": ["two.weight"]}
