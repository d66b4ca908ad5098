"""The proof: it passes right cuts at round-off, finds wrong ones, and never passes what it can't compare."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from peelcli.records import Attribute, Check, Cut, Slice, Subject
from peelcli.surgery import verify
from peelcli.surgery.prune import apply_cuts
from tests.support import zoo
from tests.support.parts import Lambda, conv_bn, head, image


def prove(subject: Subject, cuts: tuple[Cut, ...]) -> Check:
    return verify.equivalence(subject, apply_cuts(subject.module, cuts), cuts)


def halved(name: str) -> tuple[Subject, tuple[Cut, ...]]:
    subject = zoo.subject(name)
    graph = zoo.graph_of(subject)
    widths = [legal[(len(legal) - 1) // 2] for legal in (group.legal_widths() for group in graph.groups)]
    return subject, zoo.cuts_at(graph, widths)


@pytest.mark.parametrize("name", zoo.SOUND)
def test_right_cuts_hold_at_round_off(name):
    subject, cuts = halved(name)
    check = prove(subject, cuts)
    assert (check.name, check.ok, check.tolerance) == ("masked_equivalence", True, verify.TOLERANCE)
    assert 0 <= check.value < 1e-11


def test_norms_over_kept_channels_are_said():
    assert prove(*halved("group_norm")).note == "3 ops that mix channels compared over the kept ones"
    assert prove(*halved("resnet")).note == ""


# --- deliberately wrong cuts


def edited(cuts: tuple[Cut, ...], name: str, edit: Callable[[tuple[Slice, ...]], tuple[Slice, ...]]) -> tuple[Cut, ...]:
    """The same cuts with the slices of one group changed."""
    assert any(cut.group.name == name and cut.width < cut.group.full for cut in cuts)
    return tuple(
        replace(cut, group=replace(cut.group, slices=edit(cut.group.slices))) if cut.group.name == name else cut
        for cut in cuts
    )


def on(tensor: str, change: Callable[[Slice], tuple[Slice, ...]]) -> Callable[[tuple[Slice, ...]], tuple[Slice, ...]]:
    def edit(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
        assert any(piece.tensor == tensor for piece in slices)
        return tuple(new for piece in slices for new in (change(piece) if piece.tensor == tensor else (piece,)))

    return edit


def shift(piece: Slice) -> tuple[Slice, ...]:
    """Each channel gets its neighbour's entries: never the same set, whatever is kept."""
    return (replace(piece, indices=(*piece.indices[1:], piece.indices[0])),)


def column_order(piece: Slice) -> tuple[Slice, ...]:
    """A flatten of (positions, channels) where the truth is (channels, positions)."""
    channels, positions = len(piece.indices), len(piece.indices[0])
    wrong = tuple(tuple(channel + position * channels for position in range(positions)) for channel in range(channels))
    return (replace(piece, indices=wrong),)


@pytest.mark.parametrize(
    ("name", "group", "tensor", "change"),
    [
        ("vgg_flatten", "0.0", "2.0.weight", shift),  # the consumer loses other columns than the producer rows
        ("vgg_flatten", "0.0", "0.1.running_mean", shift),
        ("vgg_flatten", "0.0", "0.1.bias", shift),
        ("vgg_flatten", "2.0", "5.weight", column_order),
        ("resnet", "2.conv2", "2.short.weight", shift),  # one of two producers of a stream
        ("mobilenet", "2.expand.0", "2.depthwise.0.weight", shift),
        ("mobilenet", "2.expand.0", "2.excite.weight", shift),
        ("densenet", "1.conv2", "4.weight", shift),
        ("convnext", "2.wide", "2.narrow.weight", shift),
        ("group_norm", "0", "1.weight", shift),
        ("unet", "down2.0", "up.weight", shift),
        ("parameter_scale", "conv", "gamma", shift),
    ],
)
def test_wrong_indices_are_found(name, group, tensor, change):
    subject, cuts = halved(name)
    check = prove(subject, edited(cuts, group, on(tensor, change)))
    assert check.ok is False
    assert check.value > 1e-5


@pytest.mark.parametrize(
    ("name", "group"), [("group_norm", "3"), ("convnext", "0"), ("rms_norm", "0"), ("mean_over_channels", "conv.0")]
)
def test_a_norm_over_other_channels_than_those_that_are_kept_is_found(name, group):
    subject, cuts = halved(name)
    (cut,) = (cut for cut in cuts if cut.group.name == group)
    blends = tuple(replace(blend, indices=blend.indices[::-1]) for blend in cut.group.blends)
    kept = tuple(range(cut.width))  # of which none is its own mirror image
    cut = replace(cut, kept=kept)
    wrong = replace(cut, group=replace(cut.group, blends=blends))
    assert prove(subject, (cut,)).ok is True
    assert prove(subject, (wrong,)).ok is False


def test_a_slice_left_out_is_found():
    subject, cuts = halved("resnet")
    check = prove(subject, edited(cuts, "1.conv1", on("1.bn1.weight", lambda _: ())))
    assert (check.ok, check.value) == (False, math.inf)
    assert check.note.startswith("the slim model does not run: RuntimeError")


def test_a_group_that_takes_the_columns_of_another_is_found():
    # a concatenation misread: the second branch's channels taken for columns at the front
    subject, cuts = halved("cat_then_add")
    check = prove(
        subject,
        edited(
            cuts,
            "two",
            on("head.2.weight", lambda s: (replace(s, indices=(*cuts[0].group.slices[-1].indices, (6,), (7,))),)),
        ),
    )
    assert check.ok is False


def test_a_wrong_attribute_is_found():
    subject, cuts = halved("mobilenet")
    wrong = tuple(
        replace(cut, group=replace(cut.group, attributes=(*cut.group.attributes, Attribute("0.0", "groups", None, -2))))
        if cut.group.name == "0.0"
        else cut
        for cut in cuts
    )
    assert prove(subject, wrong).ok is False


def test_a_cut_output_is_found():
    net = nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 4, 1)).eval()
    subject = Subject(net, (image(),), "net")
    first, last = zoo.graph_of(subject).groups
    cuts = (Cut(first, 4, (0, 1, 2, 3), 1.0), Cut(last, 2, (0, 1), 1.0))
    check = prove(subject, cuts)
    assert (check.ok, check.note) == (False, "the outputs changed shape")


def test_a_wrong_cut_of_one_output_is_found_beside_a_much_larger_one():
    def forward(self, x):
        x = self.conv(x)
        return self.large(x) * 1e9, self.small(self.mid(x))

    net = Lambda(forward, conv=conv_bn(3, 4), mid=conv_bn(4, 6), large=head(4), small=head(6)).eval()
    subject = Subject(net, (image(),), "net")
    graph = zoo.graph_of(subject)
    cuts = zoo.cuts_at(graph, [group.full if group.locked else group.full // 2 for group in graph.groups])
    assert prove(subject, cuts).ok is True
    assert prove(subject, edited(cuts, "mid.0", on("small.2.weight", shift))).ok is False


def test_not_a_number_in_a_later_output_is_found():
    def forward(self, x):
        x = self.conv(x)
        return self.one(x), torch.log(self.two(x)[:, :1] - self.two.out_channels + 7.5)

    net = Lambda(forward, conv=conv_bn(3, 4), one=nn.Conv2d(4, 2, 1), two=nn.Conv2d(4, 8, 1)).eval()
    wrong = Lambda(forward, conv=net.conv, one=net.one, two=net.two).eval()
    subject = Subject(net, (image(),), "net")
    nn.init.zeros_(net.two.weight)
    nn.init.ones_(net.two.bias)
    right = verify.equivalence(subject, net, ())
    assert right.ok is True
    slim = nn.ModuleDict({"net": wrong})["net"]
    slim.function = lambda self, x: (forward(self, x)[0], forward(self, x)[1] * torch.nan)
    check = verify.equivalence(subject, slim, ())
    assert (check.ok, check.value) == (False, math.inf)


def test_infinities_on_both_sides_are_equal():
    def forward(self, x):
        out = self.head(self.conv(x))
        return torch.where(torch.arange(5) < 2, -torch.inf, out), torch.full((3,), torch.nan)

    net = Lambda(forward, conv=conv_bn(3, 8), head=head(8)).eval()
    subject = Subject(net, (image(),), "net")
    graph = zoo.graph_of(subject)
    assert prove(subject, zoo.cuts_at(graph, (3, 5))).ok is True


@pytest.mark.parametrize("tracer", ["labels", "depgraph"])
def test_a_wrong_cut_that_silences_the_masked_original_is_not_taken_for_a_dead_network(tracer):
    # the norm keeps other channels than its consumer reads: zeros on one side, a signal on the other
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4), nn.Conv2d(4, 2, 1)).eval()
    nn.init.uniform_(net[1].weight, 0.5, 1.5)
    subject = Subject(net, (image(),), "net")
    first, last = zoo.graph_of(subject, tracer=tracer).groups
    cuts = (Cut(first, 2, (0, 1), 1.0), Cut(last, 2, (0, 1), 1.0))
    swap = lambda s: (replace(s, indices=s.indices[::-1]),)  # noqa: E731
    assert prove(subject, cuts).ok is True
    assert prove(subject, edited(cuts, "0", on("1.weight", swap))).ok is False


# --- what can't be compared


def test_an_output_that_does_not_depend_on_the_input_proves_nothing():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    nn.init.constant_(net[0].bias, -1e3)
    subject = Subject(net, (image(),), "net")
    check = prove(subject, zoo.cuts_at(zoo.graph_of(subject), (4, 2)))
    assert (check.ok, check.value) == (None, None)
    assert check.note == "the output does not depend on the input, so that nothing can be compared"


def test_indices_alone_prove_nothing():
    subject = zoo.subject("argmax_output")
    assert verify.equivalence(subject, subject.module, ()).ok is None


def test_a_random_forward_proves_nothing():
    check = prove(*halved("random_forward"))
    assert (check.ok, check.note) == (None, "forward is random: the same input gives other outputs each time")


def chaotic(rounds):
    """A network that doubles every difference so many times."""

    def forward(self, x):
        x = torch.sigmoid(self.two(torch.relu(self.one(x))))
        for _ in range(rounds):
            x = 3.999 * x * (1 - x)
        return x

    torch.manual_seed(0)
    net = Lambda(forward, one=nn.Linear(16, 1024), two=nn.Linear(1024, 8)).eval()
    subject = Subject(net, (torch.randn(2, 16),), "net")
    return subject, zoo.cuts_at(zoo.graph_of(subject), (601, 8))


def test_a_network_that_amplifies_round_off_proves_nothing():
    assert prove(*chaotic(0)).ok is True
    check = prove(*chaotic(45))
    assert check.ok is None
    assert check.note.startswith("the network amplifies round-off")


def test_where_its_own_weights_amplify_round_off_new_ones_decide():
    torch.manual_seed(0)
    layers = [layer for _ in range(60) for layer in (nn.Linear(32, 32), nn.Tanh())]
    net = nn.Sequential(*layers, nn.Linear(32, 8)).eval()
    with torch.no_grad():
        for layer in net[:-1:2]:
            layer.weight.mul_(8)  # so that differences grow from layer to layer
    subject = Subject(net, (torch.randn(2, 32),), "wild")
    cuts = zoo.cuts_at(zoo.graph_of(subject), (16,) * 60 + (8,))
    assert prove(subject, cuts).ok is True
    for number in (0, 60, 116):  # in the first, the middle and the last layers
        assert prove(subject, edited(cuts, str(number), on(f"{number + 2}.weight", shift))).ok is False


def test_a_wrong_cut_is_no_round_off():
    subject, cuts = chaotic(10)
    assert prove(subject, cuts).ok is True
    assert prove(subject, edited(cuts, "one", on("two.weight", shift))).ok is False


def test_an_original_that_does_not_run_in_float64_proves_nothing():
    net = Lambda(lambda self, x: self.head(self.conv(x).float()), conv=conv_bn(3, 8), head=head(8)).eval()
    subject = Subject(net, (image(),), "net")
    check = prove(subject, zoo.cuts_at(zoo.graph_of(subject), (4, 5)))
    assert check.ok is None
    assert check.note.startswith("the original does not run in float64: RuntimeError")


def test_tensors_that_forward_makes_are_float64_too():
    def forward(self, x):
        return self.head(self.conv(x) + self.scale(torch.ones(1, 3)).view(1, -1, 1, 1))

    net = Lambda(forward, conv=conv_bn(3, 8), scale=nn.Linear(3, 8), head=head(8)).eval()
    subject = Subject(net, (image(),), "net")
    assert prove(subject, zoo.cuts_at(zoo.graph_of(subject), (4, 5))).ok is True
    assert torch.get_default_dtype() is torch.float32


# --- networks whose signal is dead


def dying() -> tuple[Subject, tuple[Cut, ...]]:
    """BatchNorm statistics far from what comes in, as in random networks: every ReLU puts out zero."""
    net = nn.Sequential(conv_bn(3, 8), conv_bn(8, 8), conv_bn(8, 6), head(6)).eval()
    for index in (1, 2):
        net[index][1].running_mean.fill_(50.0)
    subject = Subject(net, (image(),), "net")
    return subject, zoo.cuts_at(zoo.graph_of(subject), (4, 4, 3, 5))


def test_a_dead_signal_is_brought_back():
    subject, cuts = dying()
    with torch.no_grad():
        assert torch.equal(subject.module(image()), subject.module(image()))
    check = prove(subject, cuts)
    assert check.ok is True
    assert subject.module[1][1].running_mean.min() == 50.0


def test_behind_a_dead_signal_wrong_cuts_are_found():
    subject, cuts = dying()
    assert prove(subject, edited(cuts, "1.0", on("2.0.weight", shift))).ok is False


def test_behind_zero_weights_wrong_cuts_are_found():
    subject, cuts = halved("zero_head")
    assert prove(subject, cuts).ok is True
    assert prove(subject, edited(cuts, "1.0", on("2.2.weight", shift))).ok is False
    assert subject.module[2][2].weight.abs().max() == 0


def test_a_zero_gamma_hides_nothing():
    # ResNets are often initialised so that each residual branch adds nothing
    subject, _ = halved("resnet")
    nn.init.zeros_(subject.module[3].bn2.weight)
    nn.init.zeros_(subject.module[3].bn2.bias)
    graph = zoo.graph_of(subject)
    cuts = zoo.cuts_at(graph, [group.full if group.locked else group.full // 2 for group in graph.groups])
    assert prove(subject, cuts).ok is True
    assert prove(subject, edited(cuts, "3.conv1", on("3.conv2.weight", shift))).ok is False


# --- odd types and modes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_train_mode(dtype):
    subject, cuts = halved("resnet")
    subject.module.to(dtype).train()
    subject = replace(subject, inputs=tuple(x.to(dtype) for x in subject.inputs))
    assert prove(subject, cuts).ok is True
    assert subject.module.training
    assert next(subject.module.parameters()).dtype == dtype


def test_the_same_check_twice():
    assert prove(*halved("mobilenet")) == prove(*halved("mobilenet"))


def test_integers_stay_among_the_example_s_own():
    ids = torch.tensor([[3, 9, 9, 4, 5]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    other_ids, other_mask, number, word = verify._random_like((ids, mask, torch.tensor(7), "word"), 1)
    assert set(other_ids.flatten().tolist()) <= {3, 4, 5, 9}
    assert not torch.equal(other_ids, ids)
    assert int(other_mask.sum()) == 3
    assert (int(number), word) == (7, "word")


def test_a_signal_that_dies_gets_new_weights():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), head(8)).eval()
    with torch.no_grad():
        for layer in net[:2]:
            layer.weight.mul_(1e-9)  # what comes out is all bias
            layer.bias.fill_(1.0)
    subject = Subject(net, (image(),), "faint")
    graph = zoo.graph_of(subject)
    cuts = zoo.cuts_at(graph, [g.full if g.locked else g.full // 2 for g in graph.groups])
    assert prove(subject, cuts).ok is True
    others = [cut if cut.group.locked else replace(cut, kept=(*cut.kept[1:], cut.group.full - 1)) for cut in cuts]
    assert verify.equivalence(subject, apply_cuts(net, cuts), others).ok is False  # other channels than were cut
