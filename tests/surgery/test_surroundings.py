"""What stands around a product: its norm, the sum that it ends in, and how often it is called."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.products import python_functions_open
from peelcli.surgery.surroundings import Around, Counted, look
from peelcli.surgery.walk import Walk
from tests.support import zoo
from tests.support.nets import Residual
from tests.support.parts import Lambda, conv_bn

X = torch.randn(2, 4)


def around(function: Any, x: torch.Tensor = X, **children: nn.Module) -> dict[str, Around]:
    """What stands around two linear layers, and others, in a forward."""
    layers = {"one": nn.Linear(4, 4), "two": nn.Linear(4, 4)} | children
    return look(Lambda(function, **layers).eval(), (x,))


def test_conv_and_norm_worked_by_hand():
    net = conv_bn(3, 2).eval()
    net[1].weight.data = torch.tensor([3.0, 0.0])
    net[1].running_var = torch.tensor([4.0, 1.0])
    net[1].eps = 0.0
    found = look(net, (torch.randn(2, 3, 5, 5),))
    assert list(found) == ["0.weight"]
    one = found["0.weight"]
    assert (one.calls, one.number, one.norm, one.other, one.elsewhere) == (1, 0, "1.running_mean", -1, False)
    assert one.scale.tolist() == [1.5, 0.0]
    assert one.elements == 2 * 5 * 5 * (3 + 2)


def test_a_norm_without_weights():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, affine=False, eps=3.0)).eval()
    assert look(net, (torch.randn(1, 3, 5, 5),))["0.weight"].scale.tolist() == [0.5, 0.5]


def test_linear_alone():
    assert around(lambda self, x: self.one(x))["one.weight"] == Around(1, False, 0, elements=16)


def test_residual_block():
    # relu 0, conv1 1, its norm 2 (asks for the dimensions) and 3, relu 4, conv2 5; the sum takes what relu 0 makes
    net = nn.Sequential(nn.ReLU(), Residual(8, 6, 8)).eval()
    found = look(net, (torch.randn(1, 8, 5, 5),))
    assert {name: (a.number, a.norm, a.other) for name, a in found.items()} == {
        "1.conv1.weight": (1, "1.bn1.running_mean", -1),
        "1.conv2.weight": (5, "1.bn2.running_mean", 0),
    }


def test_residual_block_on_the_input():
    """The input is the same in both models: nothing is off."""
    assert look(Residual(8, 6, 8).eval(), (torch.randn(1, 8, 5, 5),))["conv2.weight"].other == -1


def test_downsampling_aims_at_the_sum():
    found = look(Residual(8, 6, 10, 2).eval(), (torch.randn(1, 8, 6, 6),))
    assert found["conv2.weight"].other == -1  # the shortcut comes later
    assert (found["short.weight"].number, found["short.weight"].other) == (7, 6)


@pytest.mark.parametrize(
    "add",
    [
        lambda x, y: x + y, lambda x, y: y + x, torch.add, torch.Tensor.add, lambda x, y: y.add_(x),
        lambda x, y: y.__iadd__(x),
    ],
)  # fmt: skip
def test_every_way_to_add(add):
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x).relu()
        return F.relu(add(x, self.two(x)))

    assert around(forward)["two.weight"].other == 1


def test_an_addition_in_place_behind_a_norm():
    """As in torchvision's ResNet: the tensor that is read afterwards is the sum, no longer the norm's output."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.one(x), inplace=True)
        out = self.norm(self.two(x))
        out += x
        return F.relu(out, inplace=True)

    found = around(forward, norm=nn.BatchNorm1d(4))["two.weight"]
    assert (found.norm, found.other) == ("norm.running_mean", 1)


def test_the_addend_is_a_product():
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x)
        return x + self.two(F.relu(x))

    assert around(forward)["two.weight"].other == 0


@pytest.mark.parametrize(
    "add",
    [
        lambda x, y: torch.add(x, y, alpha=0.5), lambda x, y: x - y, lambda x, y: x + 2 * y, lambda x, y: x[:1] + y,
        lambda x, y: torch.cat([x + y, y]), lambda x, y: (x + y) * y, lambda x, y: (x + y, y),
        lambda x, y: (x + y, y.chunk(2, 1)), lambda x, y: x + y.sigmoid(), lambda x, y: x.clone() + y,
    ],
)  # fmt: skip
def test_no_plain_sum_or_an_output_that_is_read_twice(add):
    def forward(self: Any, x: torch.Tensor) -> Any:
        x = self.one(x).relu()
        return add(x, self.two(x))

    assert around(forward)["two.weight"].other == -1


@pytest.mark.parametrize("drop", [nn.Dropout(), nn.Dropout(inplace=True), nn.AlphaDropout()])
def test_dropout_between(drop):
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x).relu()
        return x + self.drop(self.norm(self.drop(self.two(x))))

    found = around(forward, drop=drop, norm=nn.BatchNorm1d(4))["two.weight"]
    assert found.norm == "norm.running_mean"
    assert found.other == 1


def test_a_view_of_rows():
    """Transformers' Conv1D flattens the tokens, and gives them back."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x).relu()
        return x + self.two(x.view(-1, 4)).view(x.shape)

    def mixed(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x).relu()
        return x.view(2, 12) + self.two(x).view(2, 12)

    x = torch.randn(2, 3, 4)
    assert around(forward, x)["two.weight"].other == 1
    assert around(mixed, x)["two.weight"].other == -1


def test_a_transformer_block():
    found = look(nn.Sequential(nn.ReLU(), zoo.subject("attention").module), zoo.subject("attention").inputs)
    assert found["1.down.weight"].other > found["1.attn.out_proj.weight"].number
    assert found["1.embed.weight"].other == found["1.up.weight"].other == -1


# --- norms


def test_a_norm_of_two_layers_is_no_one_s():
    found = look(zoo.subject("shared_norm").module, zoo.subject("shared_norm").inputs)
    assert found["one.weight"].norm is found["two.weight"].norm is None
    assert torch.equal(found["one.weight"].scale, found["two.weight"].scale)


def test_an_output_beside_the_norm():
    """A shift of the norm's mean would not reach what reads the output as it came."""
    found = around(lambda self, x: self.norm(y := self.one(x)) * y, norm=nn.BatchNorm1d(4))["one.weight"]
    assert found.norm is None


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4, track_running_stats=False), nn.LayerNorm(4), nn.Identity(),
        Lambda(lambda self, x: F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True)),
    ],
)  # fmt: skip
def test_no_norm_of_fixed_numbers(norm):
    found = around(lambda self, x: x + self.norm(self.one(F.relu(x))), norm=norm)["one.weight"]
    assert (found.norm, found.scale) == (None, None)


def test_a_norm_over_the_tokens_of_a_linear_layer():
    """BatchNorm1d takes dimension 1, which is not the layer's outputs, though there are as many."""
    found = around(lambda self, x: self.norm(self.one(x)), torch.randn(2, 4, 4), norm=nn.BatchNorm1d(4))
    assert (found["one.weight"].norm, found["one.weight"].scale) == (None, None)


def test_the_second_norm_ends_it():
    found = around(
        lambda self, x: (y := F.relu(x)) + self.b(self.a(self.one(y))), a=nn.BatchNorm1d(4), b=nn.BatchNorm1d(4)
    )["one.weight"]
    assert (found.norm, found.other) == ("a.running_mean", -1)


# --- calls


@pytest.mark.parametrize(("name", "weight", "calls"), [
    ("called_twice", "again.weight", 2), ("shared_head", "tower.weight", 2), ("shared_weight", "one.weight", 2),
    ("resnet", "0.0.weight", 1),
])  # fmt: skip
def test_calls_are_counted(name, weight, calls):
    subject = zoo.subject(name)
    assert look(subject.module, subject.inputs)[weight].calls == calls


def test_a_weight_that_is_read_elsewhere():
    """Tied in the forward alone: no module has it twice."""

    def forward(self: Any, ids: torch.Tensor) -> torch.Tensor:
        return F.linear(self.one(self.table(ids)), self.table.weight)

    found = around(forward, torch.tensor([[1, 2]]), table=nn.Embedding(5, 4))
    assert (found["table.weight"].elsewhere, found["one.weight"].elsewhere) == (True, False)


def test_an_unused_layer_is_not_there():
    assert list(around(lambda self, x: self.two(x))) == ["two.weight"]


def test_the_inputs_stay():
    x = torch.ones(2, 4)
    around(lambda self, x: self.one(x.mul_(2)), x)
    assert x.sum() == 8


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "attention", "c2f", "two_inputs", "unet"])
def test_walks_number_the_calls_alike(name):
    subject = zoo.subject(name)
    found = look(subject.module, subject.inputs)
    counted, numbers = Counted(), {}
    with python_functions_open(), Walk(subject.module, subject.inputs, counted) as walk:
        while (product := walk.advance()) is not None:
            numbers.setdefault(product.name, counted.count)
    assert numbers == {name: one.number for name, one in found.items()}


def test_kept_outputs():
    counted = Counted({0, 1})
    for out in (torch.ones(1), (torch.ones(1),), torch.ones(2)):
        counted(None, (), {}, out)
    assert (counted.count, list(counted.kept)) == (3, [0])
    counted.keep_only(frozenset())
    assert counted.kept == {}


@pytest.mark.parametrize(
    ("activation", "ends"),
    [
        (nn.ReLU(), (0.0, math.inf)),
        (nn.ReLU(inplace=True), (0.0, math.inf)),
        (nn.ReLU6(), (0.0, 6.0)),
        (nn.Hardtanh(-2.0, 3.0), (-2.0, 3.0)),
        (nn.Hardswish(), (-3.0, math.inf)),
        (nn.SiLU(), None),
        (nn.Identity(), None),
    ],
    ids=lambda value: str(value),
)
def test_where_what_follows_is_flat(activation: nn.Module, ends: tuple[float, float] | None):
    norm = nn.BatchNorm2d(4)
    norm.bias.data.fill_(0.5)
    found = look(
        nn.Sequential(nn.Conv2d(3, 4, 3), norm, activation, nn.Conv2d(4, 2, 1)).eval(), (torch.ones(1, 3, 5, 5),)
    )
    assert found["0.weight"].ends == ends
    assert found["0.weight"].normed(torch.zeros(1, 4)).tolist() == [[0.5] * 4]
    assert found["3.weight"].ends is None


def test_a_clamp_with_one_end():
    conv = nn.Conv2d(3, 4, 1)
    found = around(lambda net, x: net.conv(x).clamp(max=2.0), torch.ones(1, 3, 2, 2), conv=conv)
    assert found["conv.weight"].ends == (-math.inf, 2.0)


def test_what_is_taken_elsewhere_too_is_not_free_beyond_the_ends():
    def twice(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.conv(x)
        return y.relu() + y

    assert around(twice, torch.ones(1, 3, 2, 2), conv=nn.Conv2d(3, 4, 1))["conv.weight"].ends is None


def test_a_sum_before_a_relu():
    def block(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.one(x)
        return (net.two(y.relu()) + y).relu()

    found = around(block, torch.ones(1, 4, 2, 2), one=nn.Conv2d(4, 4, 1), two=nn.Conv2d(4, 4, 1))
    assert found["two.weight"].ends == (0.0, math.inf)
    assert found["one.weight"].ends is None


def test_a_part_of_a_sum_that_does_not_aim_at_it_keeps_its_own_value():
    found = look(nn.Sequential(nn.ReLU(), Residual(8, 6, 10, 2)).eval(), (torch.randn(1, 8, 6, 6),))
    assert found["1.conv2.weight"].ends is None  # its shortcut comes later: what it is added to is not known yet
    assert found["1.short.weight"].ends == (0.0, math.inf)
