"""Which model this is."""

import copy
import re

import pytest
import torch
from torch import nn

from peelcli.records import Subject
from peelcli.sources.digest import model_id


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def ids(module, name="m"):
    found = model_id(Subject(module, (), name))
    return found.architecture, found.weights


def test_two_hex_digests_and_the_name():
    found = model_id(Subject(build(), (), "net"))
    assert found.name == "net"
    assert re.fullmatch("[0-9a-f]{64}", found.architecture)
    assert re.fullmatch("[0-9a-f]{64}", found.weights)


def test_mode_flags_and_name_do_not_matter():
    module = copy.deepcopy(build()).eval().requires_grad_(False)
    assert ids(module, "other") == ids(build())


def test_one_bit_of_a_weight_matters():
    module = build()
    with torch.no_grad():
        module[0].weight[3, 2, 2, 2] += 1e-6
    assert ids(module)[0] == ids(build())[0]
    assert ids(module)[1] != ids(build())[1]


def test_a_statistic_matters():
    module = build()
    module[1].running_var[0] = 2
    assert ids(module)[1] != ids(build())[1]


@pytest.mark.parametrize(
    "change", [lambda m: m.append(nn.ReLU()), lambda m: m.half(), lambda m: m.__setitem__(2, nn.GELU())]
)
def test_classes_shapes_and_types_are_architecture(change):
    module = build()
    change(module)
    assert ids(module)[0] != ids(build())[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e4m3fn])
def test_every_type(dtype):
    module = build()
    module.register_buffer("extra", torch.arange(4).to(dtype))
    first = ids(module)
    module.extra = torch.arange(1, 5).to(dtype)
    assert ids(module)[0] == first[0]
    assert ids(module)[1] != first[1]


def test_layout_in_memory_does_not_matter():
    assert ids(build().to(memory_format=torch.channels_last)) == ids(build())


def test_tied_scalar_empty_and_bool_tensors():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    module.register_buffer("scalar", torch.tensor(1.0))
    module.register_buffer("nothing", torch.zeros(0))
    module.register_buffer("mask", torch.tensor([True, False]), persistent=False)
    assert ids(module) == ids(copy.deepcopy(module))
