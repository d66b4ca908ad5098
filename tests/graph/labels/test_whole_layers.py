"""Torch's own composed layers and small idioms of real models: what goes together in them, proven and counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from peelcli.records import Subject
from tests.support.proofs import groups_proven, seeded
from tests.support.slices import attributes_of, blocks, one_each, slices_of

TOKENS = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
MEMORY = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
IMAGE = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(2))
OWN_COUNTS = ("macs", "params")  # thop charges a softmax and the gates beside the products, for which see test_cost


# --- transformers


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_goes_by_heads_and_its_hidden_layers_channel_by_channel(norm_first):
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    net = nn.Sequential(nn.Linear(5, 8), encoder, nn.Linear(8, 3)).eval()
    groups = groups_proven(Subject(net, (TOKENS,), "net"), counts=OWN_COUNTS)
    assert list(groups) == ["0", "1.layers.0.linear1", "1.layers.1.linear1", "2"]
    assert groups["0"].bundles == blocks(2, 4)
    assert groups["1.layers.0.linear1"].bundles == one_each(12)
    for k in range(2):
        assert {
            (f"1.layers.{k}.self_attn", "num_heads", None, 1), (f"1.layers.{k}.self_attn", "embed_dim", None, 4),
            (f"1.layers.{k}.norm1", "normalized_shape", 0, 4),
        } <= attributes_of(groups["0"])  # fmt: skip


def test_a_decoder_ties_both_streams():
    decoder = nn.TransformerDecoderLayer(8, 2, 12, batch_first=True)
    net = seeded(lambda net, x, y: net.out(net.decoder(net.a(x), net.b(y))), TOKENS, MEMORY, a=nn.Linear(5, 8),
                 b=nn.Linear(6, 8), decoder=decoder, out=nn.Linear(8, 3))  # fmt: skip
    groups = groups_proven(net, counts=OWN_COUNTS)
    assert list(groups) == ["a", "decoder.linear1", "out"]
    rows = slices_of(groups["a"])["b.weight", 0, "out"]
    assert [sum((rows[c] for c in bundle), ()) for bundle in groups["a"].bundles] == list(blocks(2, 4))


def test_keys_and_values_of_another_width_are_free_of_the_heads():
    attention = nn.MultiheadAttention(8, 2, kdim=10, vdim=10, batch_first=True)
    net = seeded(lambda net, x, y: net.out(net.attn(net.a(x), *[net.b(y)] * 2)[0]), TOKENS, MEMORY,
                 a=nn.Linear(5, 8), b=nn.Linear(6, 10), attn=attention, out=nn.Linear(8, 3))  # fmt: skip
    groups = groups_proven(net, counts=OWN_COUNTS)
    assert groups["a"].bundles == blocks(2, 4)
    assert groups["b"].bundles == one_each(10)
    assert {a[1:] for a in attributes_of(groups["b"]) if a[0] == "attn"} == {("kdim", None, 1), ("vdim", None, 1)}


def test_a_class_token_and_places_go_with_the_stream():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)
            self.token, self.places = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.a(x)], 1) + self.places
            return self.b(F.layer_norm(x, (x.shape[-1],)).mean(1))

    group = groups_proven(Subject(Net().eval(), (TOKENS,), "net"))["a"]
    assert slices_of(group)["token", 2, "out"] == slices_of(group)["places", 2, "out"] == one_each(8)


# --- recurrent cells


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_a_cell_in_a_loop(kind, gates):
    def forward(net, x):
        state = x.new_zeros(x.size(0), net.cell.hidden_size)
        state = (state, state) if gates == 4 else state
        for step in range(x.size(1)):
            state = net.cell(net.a(x[:, step]), state)
        return net.out(state[0] if gates == 4 else state)

    groups = groups_proven(
        seeded(forward, TOKENS, a=nn.Linear(5, 6), cell=kind(6, 4), out=nn.Linear(4, 3)), counts=OWN_COUNTS
    )
    assert groups["cell"].bundles == tuple(tuple(c + 4 * gate for gate in range(gates)) for c in range(4))
    assert ("cell", "hidden_size", None, 1) in attributes_of(groups["cell"])
    assert ("cell", "input_size", None, 1) in attributes_of(groups["a"])


def test_the_last_state_of_both_directions():
    net = seeded(lambda net, x: net.out(torch.cat(list(net.rnn(net.a(x))[1]), -1)), TOKENS, a=nn.Linear(5, 6),
                 rnn=nn.GRU(6, 4, batch_first=True, bidirectional=True), out=nn.Linear(8, 3))  # fmt: skip
    group = groups_proven(net, counts=OWN_COUNTS)["rnn"]
    columns = slices_of(group)["out.weight", 1, "in"]
    assert [sum((columns[c] for c in bundle), ()) for bundle in group.bundles] == [(c, c + 4) for c in range(4)]


# --- idioms


def test_windows_of_an_image_leave_the_channels_alone():
    def forward(net, x):
        x = net.a(x.permute(0, 2, 3, 1))
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        return net.b(x.reshape(-1, 4, channels))

    group = groups_proven(seeded(forward, IMAGE, a=nn.Linear(3, 8), b=nn.Linear(8, 2)))["a"]
    assert (group.bundles, group.locked) == (one_each(8), None)


def test_patches_that_are_put_together_again():
    def forward(net, x):
        return net.b(F.fold(F.unfold(net.a(x), 2, stride=2), (6, 6), 2, stride=2))

    group = groups_proven(seeded(forward, IMAGE, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1)))["a"]
    assert (group.bundles, group.locked) == (one_each(4), None)


def test_cheap_channels_beside_those_that_they_are_made_from():
    # GhostNet: a depthwise conv makes as many again, and the first n of both are kept
    def forward(net, x):
        x = net.a(x)
        return net.b(torch.cat([x, net.cheap(x)], 1)[:, : net.n])

    subject = seeded(forward, IMAGE, a=nn.Conv2d(3, 4, 1), cheap=nn.Conv2d(4, 4, 3, padding=1, groups=4),
                     b=nn.Conv2d(8, 2, 1))  # fmt: skip
    subject.module.n = 8
    group = groups_proven(subject)["a"]
    assert slices_of(group)["b.weight", 1, "in"] == tuple((c, c + 4) for c in range(4))


def test_the_largest_of_each_pair_of_channels():
    net = seeded(lambda net, x: net.b(net.a(x).unflatten(-1, (-1, 2)).amax(-1)), TOKENS, a=nn.Linear(5, 8),
                 b=nn.Linear(4, 3))  # fmt: skip
    group = groups_proven(net)["a"]
    assert group.bundles == blocks(4, 2)


def test_squeeze_and_excitation_goes_with_what_it_gates():
    def forward(net, x):
        x = net.a(x)
        return net.b(x * torch.sigmoid(net.excite(F.relu(net.squeeze(x.mean((2, 3), keepdim=True))))))

    parts = {"squeeze": nn.Conv2d(8, 4, 1), "excite": nn.Conv2d(4, 8, 1)}
    groups = groups_proven(seeded(forward, IMAGE, a=nn.Conv2d(3, 8, 1), **parts, b=nn.Conv2d(8, 2, 1)))
    assert slices_of(groups["a"])["excite.weight", 0, "out"] == one_each(8)
    assert groups["squeeze"].bundles == one_each(4)


def test_a_convolution_over_the_channels_keeps_them():
    class Local(nn.Module):
        """ECA-Net's attention between neighbouring channels."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(self.conv(x.mean((2, 3))[:, None])).view(x.size(0), -1, 1, 1)

    net = nn.Sequential(nn.Conv2d(3, 8, 1), Local(), nn.Conv2d(8, 2, 1)).eval()
    locked = groups_proven(Subject(net, (IMAGE,), "net"))["0"].locked
    assert locked.reason.startswith("it varies over the image of a convolution in 1.conv (test_whole_layers.py:")
