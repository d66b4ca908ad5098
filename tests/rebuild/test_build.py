"""An exported program as layers: the same names, the same numbers, another batch."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.errors import SourceError
from peelcli.rebuild import ops
from peelcli.rebuild.build import rebuild
from tests.support.parts import Lambda


def exported(module, *inputs, dynamic=False):
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs) if dynamic else None
    return torch.export.export(module.eval(), inputs, dynamic_shapes=shapes)


def tiny_vit():
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=5
    )
    nn.init.normal_(vit.heads.head.weight)
    return vit


def check(module, *inputs, dynamic=False):
    """Rebuild it; same output and same state dict as the original, at batch 1, 2 and 3."""
    rebuilt = rebuild(exported(module, *inputs, dynamic=dynamic))
    assert rebuilt.notes == ()
    for rows in (1, 2, 3):
        given = [torch.randn(rows, *x.shape[1:]) for x in inputs]
        ours, theirs = rebuilt.module(*given), module(*given)
        assert torch.equal(ours, theirs) or (ours - theirs).abs().max() < 1e-6
    state = rebuilt.module.state_dict()
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    return rebuilt.module


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_convolutional_network_has_its_layers_again(dynamic):
    torch.manual_seed(0)
    original = torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=5).eval()
    module = check(original, torch.randn(1 + dynamic, 3, 32, 32), dynamic=dynamic)
    for name, part in original.named_modules():
        if isinstance(part, (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.ReLU6)):
            assert str(module.get_submodule(name)).startswith(type(part).__name__ + "(")
    assert type(module).__name__ == "MobileNetV2"
    assert not any("aten" in str(node.target) for node in module.graph.nodes)


@pytest.mark.parametrize("dynamic", [False, True])
def test_attention_keeps_bare_weights_and_reads_its_sizes_at_run_time(dynamic):
    module = check(tiny_vit(), torch.randn(1 + dynamic, 3, 16, 16), dynamic=dynamic)
    attention = module.get_submodule("encoder.layers.encoder_layer_0.self_attention")
    assert isinstance(attention.in_proj_weight, nn.Parameter)
    assert isinstance(attention.out_proj, nn.Linear)
    sizes = [part.sizes for part in attention.children() if isinstance(part, ops.Reshape)]
    assert (5, -1, 8) in sizes  # tokens, batch x heads, channels of a head
    for node in module.graph.nodes:  # no size is left in the graph itself
        assert node.op == "call_module" or str(node.target) not in ("reshape", "view", "expand", "unflatten", "split")


def test_sizes_in_attributes_are_what_counts():
    net = Lambda(
        lambda self, x: self.b(self.a(x).view(x.shape[0], 2, 6).flatten(1)), a=nn.Linear(4, 12), b=nn.Linear(12, 3)
    )
    module = check(net, torch.randn(1, 4))
    (reshape,) = [part for part in module.modules() if isinstance(part, ops.Reshape)]
    assert reshape.sizes == (-1, 2, 6)
    reshape.sizes = (-1, 3, 4)
    assert module(torch.randn(2, 4)).shape == (2, 3)


OPERATIONS = {
    "split": lambda self, x: torch.cat(self.a(x).split(3, 1)[::-1], 1),
    "split_sizes": lambda self, x: torch.cat(self.a(x).split([2, 4], 1)[::-1], 1),
    "chunk": lambda self, x: torch.cat(self.a(x).chunk(2, 1)[::-1], 1),
    "slice": lambda self, x: self.a(x)[:, 1:5],
    "pad": lambda self, x: F.pad(self.a(x), (0, 0, 0, 0, 1, 2)),
    "shuffle": lambda self, x: self.a(x).view(x.shape[0], 2, 3, 8, 8).transpose(1, 2).reshape(x.shape[0], 6, 8, 8),
    "expand": lambda self, x: self.a(x) + self.a.weight.sum().expand(x.shape[0], 6, 8, 8),
    "filled": lambda self, x: torch.cat([self.a(x), torch.zeros(x.shape[0], 1, 8, 8)], 1),
    "scale": lambda self, x: self.a(x) * torch.tensor([1.0, 2, 3, 4, 5, 6]).view(1, -1, 1, 1),
    "inplace": lambda self, x: F.relu_(self.a(x)).add_(1),
    "ignored": lambda self, x: (y := self.a(x), y.relu_())[0] * 2,
    "twice": lambda self, x: self.a(self.a(x)[:, :3]),
    "window": lambda self, x: (
        self.a(x).view(x.shape[0], 6, 2, 4, 8).permute(0, 2, 3, 4, 1).reshape(-1, 4, 8, 6).mean((1, 2))
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    torch.manual_seed(0)
    net = Lambda(OPERATIONS[name], a=nn.Conv2d(3, 6, 3, padding=1)).eval()
    x = torch.randn(1, 3, 8, 8)
    rebuilt = rebuild(exported(net, x))
    assert rebuilt.notes == ()
    more = torch.randn(3, 3, 8, 8)
    assert torch.equal(rebuilt.module(more), net(more))


def test_layers_of_other_kinds():
    net = nn.Sequential(
        nn.ConvTranspose2d(3, 8, 3, 2, output_padding=1), nn.GroupNorm(2, 8), nn.PReLU(8),
        nn.InstanceNorm2d(8, affine=True), nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8, affine=False),
        nn.GELU("tanh"), nn.AvgPool2d(2), nn.Upsample(scale_factor=2), nn.AdaptiveMaxPool2d(2),
        nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, 4, bias=False),
    )  # fmt: skip
    module = check(net, torch.randn(2, 3, 8, 8), dynamic=True)
    kinds = [type(module.get_submodule(str(at))) for at in range(9)]
    assert kinds == [type(part) for part in net][:9]


def test_a_norm_with_an_activation_in_it_becomes_both():
    class NormAct(nn.BatchNorm2d):
        def __init__(self, width):
            super().__init__(width)
            self.act = nn.SiLU()

        def forward(self, x):
            return self.act(super().forward(x))

    net = nn.Sequential(nn.Conv2d(3, 4, 3), NormAct(4), nn.Conv2d(4, 4, 1), NormAct(4))
    module = check(net, torch.randn(1, 3, 8, 8))
    kinds = [type(part) for part in module.modules()]
    assert (kinds.count(nn.BatchNorm2d), kinds.count(nn.SiLU)) == (2, 2)


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(11, 6)
            self.mix = nn.RMSNorm(6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x):
            return self.head(self.mix(self.words(x)))

    rebuilt = rebuild(exported(Tied(), torch.randint(0, 11, (1, 5))))
    module = rebuilt.module
    assert isinstance(module.words, nn.Embedding)
    assert isinstance(module.head, nn.Linear)
    assert module.head.weight is module.words.weight


def test_nests_come_back_and_nested_inputs_are_laid_flat():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 4)

        def forward(self, pair, scale=2):
            return {"sum": self.a(pair[0]) * scale, "rest": [pair[1], (self.a(pair[1]),)]}

    inputs = ((torch.randn(1, 3), torch.randn(1, 3)), 3)
    net = Nested().eval()
    rebuilt = rebuild(torch.export.export(net, inputs))
    assert len(rebuilt.inputs) == 2
    found, expected = rebuilt.module(*rebuilt.inputs), net(*inputs)
    assert torch.equal(found["sum"], expected["sum"])
    assert torch.equal(found["rest"][1][0], expected["rest"][1][0])


def test_parts_without_gradients_are_inlined():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            with torch.no_grad():
                y = self.a(x).relu()
            return self.b(y)

    module = check(Frozen(), torch.randn(1, 3))
    assert isinstance(module.a, nn.Linear)


def test_a_batch_that_can_not_follow_stays_fixed_and_is_told():
    net = Lambda(lambda self, x: self.a(x).reshape(2, 6), a=nn.Linear(4, 12))  # one sample as two rows
    rebuilt = rebuild(exported(net, torch.randn(1, 4)))
    assert rebuilt.notes in ((), ("the batch is fixed to 1 as it was exported",))
    assert torch.equal(rebuilt.module(rebuilt.inputs[0]), net(rebuilt.inputs[0]))
    mixing = Lambda(lambda self, x: self.a(x) - self.a(x).mean(0), a=nn.Linear(4, 12))
    assert rebuild(exported(mixing, torch.randn(1, 4))).notes == ("the batch is fixed to 1 as it was exported",)


def test_a_program_in_train_mode_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    with pytest.raises(SourceError, match="exported in train mode") as caught:
        rebuild(torch.export.export(net, (torch.randn(2, 3, 8, 8),)))
    assert "model.eval()" in caught.value.hint


def test_inputs_are_made_from_the_shapes_where_there_are_none():
    program = exported(nn.Linear(3, 2), torch.randn(2, 3), dynamic=True)
    program.example_inputs = None
    assert rebuild(program).inputs[0].shape == (2, 3)
