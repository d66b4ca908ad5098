"""Layers of modules and the memory of their activations, on networks that can be counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from peelcli import pipeline
from peelcli.footprint import UNWEIGHTED
from peelcli.graph.memory import peak_bytes
from peelcli.records import Subject
from tests.support.parts import Lambda


def layers_of(module, *inputs):
    found = pipeline.footprint(Subject(module.eval(), inputs, "net"))
    assert sum(layer.macs for layer in found.layers) == found.macs
    assert sum(layer.params for layer in found.layers) == found.params
    return found, {layer.name: (layer.macs, layer.params, layer.width) for layer in found.layers}


def test_layers_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 4, 5))
    found, layers = layers_of(net, torch.randn(2, 3, 4, 4))
    assert layers == {"0": (4 * 8 * 27, 224, 8), "1": (0, 16, None), "3": (160, 165, 5)}
    assert found.inputs == ("2x3x4x4",)


def test_tied_weights_count_once_and_products_of_activations_have_a_line():
    def attend(self, x):
        return self.two((x @ x.transpose(1, 2)) @ self.one(x))

    one, two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    two.weight = one.weight
    _, layers = layers_of(Lambda(attend, one=one, two=two), torch.randn(1, 5, 4))
    assert layers == {"one": (2 * 5 * 16, 16, 4), UNWEIGHTED: (2 * 25 * 4, 0, None)}


def test_what_a_weight_is_computed_from_belongs_to_its_layer():
    net = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)))
    _, layers = layers_of(net, torch.randn(1, 6))
    assert layers == {"0": (0, 18 + 3 + 3, 3), UNWEIGHTED: (18, 0, None)}


def test_peak_memory_by_hand():
    """In 10; up to 20, relu beside it (a view of it is free), down to 10: the input, 20 and 20 are there together."""
    net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Flatten(), nn.Linear(20, 10))
    assert peak_bytes(net.eval(), (torch.randn(1, 10),)) == 4 * (10 + 20 + 20)
    longer = nn.Sequential(*[nn.ReLU() for _ in range(9)])
    assert peak_bytes(longer, (torch.randn(1, 10),)) == 4 * 30


def test_memory_that_a_shortcut_holds():
    def forward(self, x):
        return x.relu().relu() + x

    assert peak_bytes(Lambda(forward), (torch.randn(1, 10),)) == 4 * 30

    def held(self, x):
        a = x.relu()
        return a.relu().relu() + a

    assert peak_bytes(Lambda(held), (torch.randn(1, 10),)) == 4 * 40
