"""Scores from gradients: by hand, against explicit gradients, and against gates on the activations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from peelcli.errors import UsageError
from peelcli.graph.legal import Legality
from peelcli.graph.trace import trace
from peelcli.records import ChannelGraph, CostModel, Subject
from peelcli.samples import Samples
from peelcli.scoring.base import Material
from peelcli.scoring.gradients import WeightGradients
from peelcli.scoring.table import score

FROM_GRADIENTS = ["taylor", "fisher"]
NO_COST = CostModel((), (), ())


def samples_from(*inputs, targets=None):
    return Samples(tuple((x,) for x in inputs), "made here", targets)


class Two(nn.Sequential):
    """fc1 (1 -> 2), fc2 (2 -> 2): logits (0, 0) at input 1, and nothing to see at input 0."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(1, 2, bias=False), nn.Linear(2, 2)
        with torch.no_grad():
            self.fc1.weight.copy_(torch.tensor([[1.0], [2]]))
            self.fc2.weight.copy_(torch.tensor([[2.0, 1], [4, -1]]))
            self.fc2.bias.copy_(torch.tensor([-4.0, -2]))


@pytest.fixture
def two(make_group):
    group = make_group("fc1", 2, ("fc1.weight", 0, "out", ((0,), (1,))), ("fc2.weight", 1, "in", ((0,), (1,))))
    return Subject(Two(), (torch.ones(1, 1),), "two"), ChannelGraph((group,), NO_COST)


def test_by_hand(two):
    # dL/dz = (-1/2, 1/2) for label 0, activations (1, 2). Columns: 2 * -1/2 + 4 * 1/2 = 1 and 2 (1 * -1/2 - 1 * 1/2)
    # = -2; rows the same, since each is w * (dL/da) * x. At x = 0 all products are 0.
    subject, graph = two
    samples = samples_from(torch.ones(1, 1), torch.zeros(1, 1), targets=(0, 0))
    (taylor,) = score(subject, graph, "taylor", 0, samples).groups
    assert taylor.channels == pytest.approx([2 / 2, 4 / 2])
    assert taylor.layer == pytest.approx(1.5)
    (fisher,) = score(subject, graph, "fisher", 0, samples).groups
    assert fisher.channels == pytest.approx([1 / 2 / 2, 4 / 2 / 2])
    assert fisher.layer == pytest.approx(0.625)


def test_gradients_by_hand_and_nothing_for_what_takes_no_part(two):
    subject, graph = two
    subject.module.fc1.register_parameter("unused", nn.Parameter(torch.ones(3)))
    samples = samples_from(torch.ones(1, 1), torch.zeros(1, 1), targets=(0, 0))
    found, _ = WeightGradients(Material(subject, graph, 0, samples))
    assert sorted(found) == ["fc1.weight", "fc2.bias", "fc2.weight"]
    assert found["fc2.weight"].tolist() == [[-0.5, -1.0], [0.5, 1.0]]
    assert found["fc1.weight"].tolist() == [[1.0], [-1.0]]


class Residual(nn.Module):
    """Conv, norm, relu; a residual block with a depthwise layer; a 1x1 conv that reads and writes one stream; fc."""

    def __init__(self, probabilities=False):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.expand, self.depth = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.shrink, self.norm2 = nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)
        self.same = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4 * 25, 5)
        self.probabilities = probabilities
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for tensor in (*self.parameters(), self.norm.running_mean, self.norm2.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 2)
            self.norm.running_var.uniform_(0.5, 2, generator=generator)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.norm2(self.shrink(self.depth(self.expand(x).relu()).relu()))
        x = x + self.same(x)
        y = self.fc(x.relu().flatten(1))
        return y.softmax(1) if self.probabilities else y


@pytest.fixture
def residual():
    return Subject(Residual().double(), (torch.zeros(1, 3, 5, 5, dtype=torch.float64),), "residual")


def labels_of(module, samples):
    """What the loss compares with: the targets, or the model's own classes."""
    return samples.targets or tuple(int(module(*inputs).argmax()) for inputs in samples.inputs)


def members(group, parameter_names, shapes):
    """For each channel and tensor a mask of the entries that go with it, each entry once."""
    for channel in range(group.full):
        masks = {name: torch.zeros(shapes[name], dtype=torch.bool) for name in parameter_names}
        for piece in group.slices:
            if piece.tensor in masks:
                masks[piece.tensor].movedim(piece.dim, 0)[list(piece.indices[channel])] = True
        yield channel, masks


@pytest.mark.parametrize("targets", [None, (0, 1, 2, 3, 4, 0)])
def test_taylor_against_explicit_gradients(residual, samples_of, targets):
    graph = trace(residual, Legality(align=1))
    samples = samples_of(residual, targets=targets)
    scores = score(residual, graph, "taylor", 0, samples)
    module = residual.module.eval()
    parameters = dict(module.named_parameters())
    expected = [torch.zeros(group.full, dtype=torch.float64) for group in graph.groups]
    both = 0
    for (x,), target in zip(samples.inputs, labels_of(module, samples), strict=True):
        module.zero_grad()
        cross_entropy(module(x), torch.tensor([target])).backward()
        for total, group in zip(expected, graph.groups, strict=True):
            dims = {(p.tensor, p.dim) for p in group.slices if p.tensor in parameters}
            both += len(dims) > len({tensor for tensor, _ in dims})
            shapes = {name: p.shape for name, p in parameters.items()}
            for channel, masks in members(group, parameters, shapes):
                change = sum((parameters[n].detach() * parameters[n].grad)[mask].sum() for n, mask in masks.items())
                total[channel] += abs(change) / len(samples)
    assert both  # a group owns rows and columns of one weight here
    for total, scored in zip(expected, scores.groups, strict=True):
        assert scored.channels == pytest.approx(total.tolist(), rel=1e-6, abs=1e-12)
        assert scored.layer == pytest.approx(float(total.mean()), rel=1e-6)


def gated(module, group, x, target):
    """dL/dm of a gate on each channel of a group, multiplied on what every consumer reads."""
    gate = torch.ones(group.full, dtype=torch.float64, requires_grad=True)
    hooks = []
    for piece in group.slices:
        if piece.role == "in":
            owner = torch.zeros(sum(map(len, piece.indices)), dtype=torch.long)
            for channel, entries in enumerate(piece.indices):
                owner[list(entries)] = channel

            def multiply(_, args, owner=owner):
                (a,) = args
                return (a * gate[owner].view(1, -1, *[1] * (a.dim() - 2)),)

            consumer = module.get_submodule(piece.tensor.rpartition(".")[0])
            hooks.append(consumer.register_forward_pre_hook(multiply))
    loss = cross_entropy(module(x), torch.tensor([target]))
    for hook in hooks:
        hook.remove()
    return torch.autograd.grad(loss, gate)[0]


def test_fisher_against_gates_on_the_activations(residual, samples_of):
    graph = trace(residual, Legality(align=1))
    samples = samples_of(residual)
    scores = score(residual, graph, "fisher", 0, samples)
    module = residual.module.eval()
    checked = 0
    for group, scored in zip(graph.groups, scores.groups, strict=True):
        if any(piece.role == "in" for piece in group.slices):
            labels = labels_of(module, samples)
            pairs = zip(samples.inputs, labels, strict=True)
            squares = [gated(module, group, x, target).square() for (x,), target in pairs]
            assert scored.channels == pytest.approx((sum(squares) / 2 / len(squares)).tolist(), rel=1e-6, abs=1e-14)
            checked += 1
    assert checked >= 2


def test_fisher_of_channels_that_no_weight_reads(make_group):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.outputs(self.q(x), self.k(x))

        def outputs(self, q, k):
            return q @ k.transpose(0, 1)[:, :1] * torch.tensor([[1.0, -2.0, 0.3]], dtype=q.dtype)

    torch.manual_seed(0)
    module = Product().double()
    pieces = [(f"{name}.{part}", 0, "out", ((0,), (1,), ())) for name in "qk" for part in ("weight", "bias")]
    graph = ChannelGraph((make_group("q", 3, *pieces),), NO_COST)
    x = torch.randn(1, 3, dtype=torch.float64)
    (scored,) = score(Subject(module, (x,), "product"), graph, "fisher", 0, samples_from(x, targets=(1,))).groups
    gate = torch.ones(2, dtype=torch.float64, requires_grad=True)
    loss = cross_entropy(module.outputs(module.q(x) * gate, module.k(x)), torch.tensor([1]))
    g = torch.autograd.grad(loss, gate)[0]  # the same whether q or k is gated
    expected = (g.square() / 2).tolist()
    assert scored.channels == pytest.approx([*expected, sum(expected) / 2], rel=1e-6)


@pytest.mark.parametrize("name", FROM_GRADIENTS)
def test_probabilities_are_scored_as_their_logits(residual, samples_of, name):
    graph, samples = trace(residual, Legality(align=1)), samples_of(residual)
    logits = score(residual, graph, name, 0, samples)
    residual.module.probabilities = True
    for a, b in zip(logits.groups, score(residual, graph, name, 0, samples).groups, strict=True):
        assert b.channels == pytest.approx(a.channels, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", FROM_GRADIENTS)
def test_labels_count_where_there_are_some(residual, samples_of, name):
    graph = trace(residual, Legality(align=1))
    own = score(residual, graph, name, 0, samples_of(residual))
    assert own.notes == (
        f"{name}: the gradient over 6 samples is that of the cross entropy to the model's own most probable classes",
    )
    same = labels_of(residual.module.eval(), samples_of(residual))
    told = score(residual, graph, name, 0, samples_of(residual, targets=same))
    assert told.groups == own.groups
    assert told.notes[0].endswith("to the labels")
    other = tuple((label + 1) % 5 for label in same)
    assert score(residual, graph, name, 0, samples_of(residual, targets=other)).groups != own.groups
    some = score(residual, graph, name, 0, samples_of(residual, targets=(*same[:2], *[None] * 4)))
    assert some.groups == own.groups
    assert "the labels of 2 samples and" in some.notes[0]


@pytest.mark.parametrize("name", FROM_GRADIENTS)
def test_the_seed_decides_the_directions_of_values_only(subject, graph, residual, samples_of, name):
    samples = samples_of(subject)
    first = score(subject, graph, name, 3, samples)
    assert first == score(subject, graph, name, 3, samples)
    assert first.groups != score(subject, graph, name, 4, samples).groups
    assert "random directions" in first.notes[0]
    classes = trace(residual, Legality(align=1))
    assert score(residual, classes, name, 3, samples_of(residual)) == score(
        residual, classes, name, 4, samples_of(residual)
    )


@pytest.mark.parametrize("name", FROM_GRADIENTS)
def test_values_have_no_unit(subject, graph, samples_of, name):
    samples = samples_of(subject)
    before = score(subject, graph, name, 0, samples)
    with torch.no_grad():
        for parameter in subject.module.fc.parameters():
            parameter *= 1024
    for a, b in zip(before.groups, score(subject, graph, name, 0, samples).groups, strict=True):
        assert b.channels == pytest.approx(a.channels, rel=1e-5)


def test_tied_parameters_have_one_gradient_of_all_their_uses(make_group):
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    module[1].weight = module[0].weight
    x = torch.tensor([[1.0, -0.5]])
    pieces = [("0.weight", 0, "out", ((0,), (1,))), ("1.weight", 1, "in", ((0,), (1,)))]
    graph = ChannelGraph((make_group("0", 2, *pieces),), NO_COST)
    material = Material(Subject(module, (x,), "tied"), graph, 0, samples_from(x, targets=(1,)))
    (found,) = WeightGradients(material)
    cross_entropy(module(x), torch.tensor([1])).backward()
    assert torch.equal(found["0.weight"], module[0].weight.grad)
    assert list(found) == ["0.weight"]
    (scored,) = score(material.subject, graph, "taylor", 0, material.samples).groups
    p = module[0].weight.detach() * module[0].weight.grad
    once = [abs(p[0].sum() + p[1, 0]), abs(p[1].sum() + p[0, 1])]  # row and column, their crossing once
    assert scored.channels == pytest.approx([float(v) for v in once])


@pytest.mark.parametrize("name", FROM_GRADIENTS)
def test_half_precision_is_computed_in_float32(residual, samples_of, name):
    graph = trace(residual, Legality(align=1))
    residual.module.half()
    half = score(residual, graph, name, 0, samples_of(residual))
    assert {p.dtype for p in residual.module.parameters()} == {torch.float16}
    residual.module.float()
    assert score(residual, graph, name, 0, samples_of(residual)) == half


def one_level_down(group):
    return replace(group, slices=tuple(replace(piece, tensor=f"inner.{piece.tensor}") for piece in group.slices))


@pytest.mark.parametrize("name", FROM_GRADIENTS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_module_and_samples_stay_as_they_are(residual, samples_of, name, mode):
    class Inplace(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.drop = inner, nn.Dropout(0.5)

        def forward(self, x):
            return self.inner(self.drop(x.sub_(0.5)))

    inner = residual.module
    graph, samples = trace(residual, Legality(align=1)), samples_of(residual)
    plain = score(residual, graph, name, 0, samples_from(*(x - 0.5 for (x,) in samples.inputs)))
    module = Inplace(inner).train()
    inner.norm.eval()
    inner.fc.requires_grad_(False)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    inputs = [x.clone() for (x,) in samples.inputs]
    deeper = ChannelGraph(tuple(one_level_down(group) for group in graph.groups), NO_COST)
    with mode():
        scores = score(Subject(module, residual.inputs, "in place"), deeper, name, 0, samples)
    assert scores.groups == plain.groups
    assert module.training
    assert not inner.norm.training
    assert not inner.fc.weight.requires_grad
    assert inner.stem.weight.requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(torch.equal(x, y) for (x,), y in zip(samples.inputs, inputs, strict=True))


class Fixed(nn.Module):
    """A model whose forward is given."""

    def __init__(self, forward):
        super().__init__()
        self.fc1, self.how = nn.Linear(2, 2), forward

    def forward(self, x):
        return self.how(self.fc1(x))


@pytest.mark.parametrize("name", FROM_GRADIENTS)
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda y: y.detach(), "no gradient with respect to any parameter"),
        (lambda y: y * 0, "gradient of the loss is zero at every sample"),
        (lambda y: y * torch.nan, "not a finite number at sample 1 of made here"),
        (
            lambda y: torch.from_numpy(y.numpy() + 1),
            "can't be differentiated at sample 1 of made here: Can't call numpy",
        ),
    ],
)
def test_what_can_not_be_differentiated_is_refused_in_one_line(make_group, name, how, message):
    graph = ChannelGraph((make_group("fc1", 2, ("fc1.weight", 0, "out", ((0,), (1,)))),), NO_COST)
    x = torch.ones(1, 2)
    with pytest.raises(UsageError, match=message) as caught:
        score(Subject(Fixed(how), (x,), "fixed"), graph, name, 0, samples_from(x, x))
    assert caught.value.hint == "score by the weights instead: --score l2"
    assert "\n" not in caught.value.message


def test_labels_that_are_no_classes_are_refused(two):
    subject, graph = two
    with pytest.raises(UsageError, match="the label 7 is no class of this model, which has 2"):
        score(subject, graph, "taylor", 0, samples_from(torch.zeros(1, 1), targets=(7,)))


@pytest.mark.parametrize("name", FROM_GRADIENTS)
def test_recurrent_layers_have_gradients_in_eval_mode(make_group, name):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.rnn(x)[0][:, -1])

    graph = ChannelGraph((make_group("rnn", 3, ("fc.weight", 1, "in", ((0,), (1,), (2,)))),), NO_COST)
    x = torch.ones(1, 4, 2)
    (scored,) = score(Subject(Recurrent(), (x,), "recurrent"), graph, name, 0, samples_from(x)).groups
    assert all(value > 0 for value in scored.channels)
