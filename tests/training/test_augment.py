"""Images changed each time, the same ones however a batch is shared out."""

from __future__ import annotations

import pytest
import torch

from peelcli.training.augment import Augment, mixed
from tests.support.lessons import images


@pytest.mark.parametrize("ways", [("flip",), ("shift",), ("crop",), ("flip", "shift", "crop")])
def test_a_share_of_a_batch_is_changed_as_in_the_whole(ways):
    x = images(8)
    whole = Augment(ways, 3)((x,), 5, range(8))[0]
    part = Augment(ways, 3)((x[1::2],), 5, range(1, 8, 2))[0]
    assert torch.equal(whole[1::2], part)
    assert not torch.equal(whole, x)
    assert not torch.equal(whole, Augment(ways, 3)((x,), 6, range(8))[0])


def test_a_flip_mirrors_some_and_leaves_others():
    x = images(16)
    found = Augment(("flip",), 0)((x,), 0, range(16))[0]
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(found, x, strict=True)]
    assert 0 < sum(mirrored) < 16
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, found, x, strict=True))


def test_a_shift_moves_by_an_eighth_at_most():
    x = torch.arange(64.0).expand(1, 1, 64, 64).clone()  # each column its number
    for step in range(5):
        moved = Augment(("shift",), 0)((x,), step, [0])[0] - x
        assert float(moved[..., 8:56].abs().max()) <= 8.01
        assert float(moved[..., 8:56].std()) < 1e-3  # all by the same


def test_what_is_no_image_stays():
    ids = torch.tensor([[1, 2]])
    assert Augment(("flip",), 0)((ids, 3.0), 0, [0]) == (ids, 3.0)


def test_mixing_blends_with_partners_of_the_same_batch():
    x = images(6)
    (found, flag), mix = mixed((x, 2), 6, 0.4, seed=0, step=3)
    assert flag == 2
    assert torch.allclose(found, mix.share * x + (1 - mix.share) * x[mix.partners])
    assert sorted(mix.partners.tolist()) == list(range(6))
    assert mixed((x, 2), 6, 0.4, seed=0, step=3)[1].share == mix.share != mixed((x, 2), 6, 0.4, seed=0, step=4)[1].share
