"""Helpers on modules and tensors; meta_copy has a file of its own."""

from __future__ import annotations

import warnings
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from peelcli import tensors
from tests.support import zoo


def test_a_full_copy_shares_nothing_and_keeps_ties():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    double = tensors.full_copy(net)
    assert double[1].weight is double[0].weight
    assert double[0].weight is not net[0].weight
    assert torch.equal(double[0].weight, net[0].weight)


def test_a_full_copy_of_what_deepcopy_refuses():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = nn.utils.weight_norm(nn.Linear(3, 4))
    double = tensors.full_copy(net)
    x = torch.randn(2, 3)
    with torch.no_grad():
        double.weight_g.mul_(2)
        assert torch.allclose(double(x) - net.bias, 2 * (net(x) - net.bias), atol=1e-6)


def test_a_full_copy_with_something_replaced():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    other = nn.Parameter(torch.zeros(2, 3))
    double = tensors.full_copy(net, {id(net[0].weight): other})
    assert double[0].weight is double[1].weight is other
    assert net[0].weight.shape == (3, 3)


@pytest.mark.parametrize("weightless", [True, False])
def test_a_tracing_copy_runs_with_gradients_whatever_the_original_s_flags(weightless):
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Embedding(2, 3)).requires_grad_(False).train()
    net.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
    double = tensors.tracing_copy(net, weightless)
    assert all(p.requires_grad for p in double.parameters())
    assert not any(m.training for m in double.modules())
    assert all(t.is_meta is weightless for t in double.state_dict().values())
    assert not any(p.requires_grad for p in net.parameters())
    assert net.training


def test_integer_parameters_need_no_gradients():
    net = nn.Module()
    net.table = nn.Parameter(torch.arange(4), requires_grad=False)
    net.wave = nn.Parameter(torch.zeros(2, dtype=torch.complex64), requires_grad=False)
    double = tensors.tracing_copy(net)
    assert (double.table.requires_grad, double.wave.requires_grad) == (False, True)


def test_to_meta_keeps_shapes_types_and_all_else():
    x = {"a": torch.zeros(2, 3, dtype=torch.int32), "b": [torch.zeros(4), 7, "word"]}
    (moved,) = tensors.to_meta((x,))
    assert (moved["a"].shape, moved["a"].dtype, moved["a"].device.type) == ((2, 3), torch.int32, "meta")
    assert moved["b"][0].is_meta
    assert moved["b"][1:] == [7, "word"]


@pytest.mark.parametrize(
    ("shapes", "cut"),
    [
        (((4, 3),), ((1, 3),)),
        (((4, 3), (4,)), ((1, 3), (1,))),
        (((1, 3),), ((1, 3),)),
        (((4, 3), (5,)), ((4, 3), (5,))),  # no common batch
        (((4, 3), ()), ((4, 3), ())),
        ((), ()),
    ],
)
def test_one_sample(shapes, cut):
    inputs = tuple(torch.zeros(shape) for shape in shapes)
    single = tensors.one_sample(inputs)
    assert tuple(t.shape for t in single) == cut
    assert (single is inputs) == (shapes == cut)


def test_one_sample_of_a_nest():
    ((pair, word),) = tensors.one_sample((((torch.zeros(4, 2), torch.zeros(4)), "word"),))
    assert (pair[0].shape, pair[1].shape, word) == ((1, 2), (1,), "word")


def test_one_sample_of_images_in_a_list():
    images = [torch.zeros(3, 8, 8), torch.zeros(3, 4, 4)]
    assert [tuple(t.shape) for t in tensors.one_sample((images, None))[0]] == [(3, 8, 8)]
    single = (images[:1],)
    assert tensors.one_sample(single) is single  # its three channels are no batch
    assert tensors.is_list_of_samples(images)
    assert not any(tensors.is_list_of_samples(v) for v in ([], tuple(images), [*images, 3], [torch.zeros(1, 3, 8, 8)]))


Point = namedtuple("Point", ["x", "y"])


@dataclass
class Result:
    logits: torch.Tensor
    extra: object = None


def test_tensors_are_found_in_every_nest():
    a, b, c, d, e = (torch.full((1,), float(k)) for k in range(5))
    nest = OrderedDict(one=a, two=[b, 3, None], three=Point(c, {"k": (d,)}), four=Result(e, extra=[a]), five=Result)
    assert [int(t) for t in tensors.tensors_in(nest)] == [0, 1, 2, 3, 4, 0]
    assert tensors.tensors_in(a) == [a]
    assert tensors.tensors_in("word") == []


def test_names():
    net = zoo.subject("tied_embedding").module
    assert [name for name, _ in tensors.named_tensors(net)].count("embed.weight") == 1
    assert "out.weight" not in dict(tensors.named_tensors(net))
    names = tensors.first_names(net)
    assert names["out.weight"] == names["embed.weight"] == "embed.weight"
    assert names["up.bias"] == "up.bias"


def test_names_of_buffers():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    net[1].running_mean = net[0].running_mean
    names = tensors.first_names(net)
    assert names["1.running_mean"] == "0.running_mean"
    assert names["1.running_var"] == "1.running_var"


def test_parent_of():
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    assert tensors.parent_of(net, "0.0.weight") == (net[0][0], "weight")
    assert tensors.parent_of(net, "0") == (net, "0")


def test_a_copy_drops_what_its_modules_keep_from_eval_mode():
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.kept = nn.Parameter(torch.ones(3)), {}

        def train(self, mode: bool = True) -> nn.Module:
            if mode:
                self.kept = {}
            return super().train(mode)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + (self.bias if self.training else self.kept.setdefault("cpu", self.bias * 2))

    net = nn.Sequential(nn.Dropout(), Cached()).eval()
    net[0].train()
    net(torch.ones(3))
    for double in (tensors.full_copy(net), tensors.tracing_copy(net)):
        assert double[1].kept == {}
    assert [m.training for m in tensors.full_copy(net).modules()] == [False, True, False]
    assert "cpu" in net[1].kept


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_wide_copy_and_its_inputs(dtype):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(dtype).requires_grad_(False)
    given = (torch.ones(2, 3, dtype=dtype), {"mask": torch.ones(2, dtype=torch.int64)})
    with torch.inference_mode():
        double = tensors.wide_copy(net)
        x, more = tensors.wide_inputs(double, given)
        with tensors.differentiated(double):
            double(x).sum().backward()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert {p.dtype for p in double.parameters()} == {x.dtype, double[1].running_var.dtype} == {wide}
    assert more["mask"].dtype == torch.int64
    assert x.data_ptr() != given[0].data_ptr()
    assert not double.training
    assert double[0].weight.grad is not None
    assert net[0].weight.dtype == dtype
    assert not net[0].weight.requires_grad
