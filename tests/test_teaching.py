"""What a lesson is made of, beyond what training shows from outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import peelcli as peel
from peelcli.training import features
from tests.support.parts import Lambda, conv_bn, head

BLOCKS = ("2", "3", "4")


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def bottleneck(channels: int) -> nn.Module:
    """An inverted residual with a linear end."""
    return Lambda(
        lambda self, x: x + self.norm(self.narrow(self.deep(self.wide(x)))),
        wide=conv_bn(channels, 16, 1),
        deep=conv_bn(16, 16, groups=16),
        narrow=nn.Conv2d(16, channels, 1, bias=False),
        norm=nn.BatchNorm2d(channels),
    )


@pytest.fixture(scope="module")
def repaired(tmp_path_factory):
    """A network around one linear stream, cut in half and repaired, with the plan of the cut."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), *(bottleneck(12) for _ in BLOCKS), head(12)
    )
    with torch.no_grad():
        model.train()(images(256, seed=9))
    model.eval()
    file = tmp_path_factory.mktemp("repaired") / "slim.safetensors"
    made = peel.prune(model, images(1), flops="50%", align=1, data=images(200), allocate="uniform", out=file)
    return model, file, made


def mismatch(model: nn.Module, slim: nn.Module, pair: features.Pair) -> float:
    """Mean squared difference of a pair of layers, in the unit of the layer."""
    matcher = features.Matcher(model, slim, [pair], torch.device("cpu"))
    with matcher.watching(), torch.no_grad():
        model(images(64, seed=5)), slim(images(64, seed=5))
    matcher.measure()
    return float(matcher.loss())


def test_a_stream_in_another_basis_is_not_matched_and_what_hides_behind_it_is(repaired, monkeypatch):
    model, file, made = repaired
    chosen = []

    def noting(*arguments):
        chosen.extend(pairs(*arguments))
        return tuple(chosen)

    pairs = features.pairs
    monkeypatch.setattr(features, "pairs", noting)
    run = peel.finetune(file, images(1), teacher=model, data=images(64), steps=2, batch=16, match="features").run
    assert "layers inside" in run.tunings[0].objective
    assert [pair.layer for pair in chosen] == [f"{block}.deep.1" for block in BLOCKS]
    # Matching the stream would pull it back to channels that it has no more.
    found = {pair.layer: mismatch(model, made.model, pair) for pair in pairs(made.model, made.run.plan.cuts)}
    stream = found.pop("4.norm")
    assert stream > 2 * max(found.values()), found
