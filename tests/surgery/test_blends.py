"""Ops that mix channels, over the kept ones only: each kind against what it gives on the kept entries, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from peelcli.records import Blend, Cut, Group
from peelcli.surgery.blends import KeptBlends

X = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
SCALE, BIAS = (torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (2, 3))
KEPT = (0, 2, 3, 5)


def cut(*blends: Blend, kept: tuple[int, ...] = KEPT, full: int = 6) -> Cut:
    one_each = tuple((c,) for c in range(full))
    return Cut(Group("g", ("g",), full, 1, 1, one_each, (), (), blends=blends), len(kept), kept, 1.0)


def blend(op: str, *operands: tuple[int, int], out: int = -1, call: int = 0, start: int = 0, full: int = 6) -> Blend:
    return Blend(op, call, operands, out, tuple((start + c,) for c in range(full)))


def spread(part: torch.Tensor, dim: int) -> torch.Tensor:
    """Kept entries in their places, zeros elsewhere."""
    shape = list(part.shape)
    shape[dim] = 6
    return torch.zeros(shape, dtype=part.dtype).index_copy(dim, torch.tensor(KEPT), part)


def on_kept(function: Callable[[], torch.Tensor], *cuts: Cut) -> tuple[torch.Tensor, set[tuple[str, int]]]:
    with torch.no_grad(), KeptBlends(cuts) as mode:
        out = function()
    return out, mode.used


K = list(KEPT)


@pytest.mark.parametrize(
    ("noted", "function", "wanted"),
    [
        (
            blend("native_layer_norm", (0, -1), (2, -1), (3, -1), out=2),
            lambda: F.layer_norm(X, (6,), SCALE, BIAS, 0.1),
            lambda: spread(F.layer_norm(X[..., K], (4,), SCALE[K], BIAS[K], 0.1), 2),
        ),
        (
            blend("native_layer_norm", (0, -1), (2, -1), (3, -1), out=2),
            lambda: F.layer_norm(X, (6,)),
            lambda: spread(F.layer_norm(X[..., K], (4,)), 2),
        ),
        (
            blend("native_group_norm", (0, 1), (1, 0), (2, 0), out=1),
            lambda: F.group_norm(IMAGE, 2, SCALE, BIAS),
            lambda: spread(F.group_norm(IMAGE[:, K], 2, SCALE[K], BIAS[K]), 1),
        ),
        (
            blend("native_group_norm", (0, 1), (1, 0), (2, 0), out=1),
            lambda: F.group_norm(IMAGE, 6, SCALE, BIAS),
            lambda: spread(F.group_norm(IMAGE[:, K], 4, SCALE[K], BIAS[K]), 1),  # as many groups as channels
        ),
        (
            blend("native_batch_norm", (0, 2), out=2),
            lambda: F.batch_norm(X, None, None, training=True),
            lambda: spread(F.batch_norm(X[..., K], None, None, training=True), 2),
        ),
        (blend("_softmax", (0, 2), out=2), lambda: X.softmax(-1), lambda: spread(X[..., K].softmax(-1), 2)),
        (blend("_log_softmax", (0, 2), out=2), lambda: X.log_softmax(2), lambda: spread(X[..., K].log_softmax(2), 2)),
        (blend("mean", (0, 2)), lambda: X.mean(-1, keepdim=True), lambda: X[..., K].mean(-1, keepdim=True)),
        (blend("mean", (0, 1)), lambda: IMAGE.mean((1, 2, 3)), lambda: IMAGE[:, K].mean((1, 2, 3))),
        (blend("sum", (0, 2)), lambda: X.sum(-1), lambda: X[..., K].sum(-1)),
        (blend("var", (0, 2)), lambda: X.var(-1), lambda: X[..., K].var(-1)),
        (blend("amax", (0, 2)), lambda: (-X.abs()).amax(-1), lambda: (-X[..., K].abs()).amax(-1)),
        (blend("linalg_vector_norm", (0, 2)), lambda: X.norm(dim=-1), lambda: X[..., K].norm(dim=-1)),
        (
            blend("bmm", (0, 2), (1, 1)),
            lambda: torch.bmm(X, X.transpose(1, 2)),
            lambda: X[..., K] @ X[..., K].transpose(1, 2),
        ),
    ],
    ids=lambda value: value.op if isinstance(value, Blend) else "",
)
def test_each_kind_by_hand(noted, function, wanted):
    out, used = on_kept(function, cut(noted))
    assert out.shape == function().shape
    assert torch.allclose(out, wanted(), rtol=1e-12, atol=1e-14)
    assert not torch.allclose(out, function())
    assert used == {(noted.op, 0)}


def test_only_the_call_that_was_noted():
    def twice():
        return torch.stack([X.mean(-1), X.mean(-1)])

    out, used = on_kept(twice, cut(blend("mean", (0, 2), call=1)))
    assert torch.equal(out[0], X.mean(-1))
    assert torch.allclose(out[1], X[..., K].mean(-1))
    assert used == {("mean", 1)}


def test_two_groups_that_meet_in_one_tensor():
    # a concatenation: channels 0 to 3 of one group, 4 and 5 of another; 1, 3 and 4 go
    first = cut(blend("mean", (0, 2), full=4), kept=(0, 2), full=4)
    second = cut(blend("mean", (0, 2), start=4, full=2), kept=(1,), full=2)
    out, used = on_kept(lambda: X.mean(-1), first, second)
    assert torch.allclose(out, X[..., [0, 2, 5]].mean(-1))
    assert used == {("mean", 0)}


def test_two_groups_along_two_dimensions_of_one_product():
    # rows of one group are summed up over channels of another; each of both is mixed by an op of its own
    rows, channels = cut(blend("sum", (0, 1), full=5), kept=(0, 4), full=5), cut(blend("sum", (0, 2)))
    out, _ = on_kept(lambda: X.sum((1, 2)), rows, channels)
    assert torch.allclose(out, X[:, [0, 4]][..., K].sum((1, 2)))


def test_a_channel_of_several_entries():
    wide = Blend("mean", 0, ((0, 2),), -1, ((0, 1), (2, 3), (4, 5)))
    out, _ = on_kept(lambda: X.mean(-1), cut(wide, kept=(0, 2), full=3))
    assert torch.allclose(out, X[..., [0, 1, 4, 5]].mean(-1))


def test_groups_at_full_width_change_nothing():
    out, used = on_kept(lambda: X.mean(-1), cut(blend("mean", (0, 2)), kept=tuple(range(6))))
    assert torch.equal(out, X.mean(-1))
    assert used == set()


def test_other_ops_and_places_are_left_alone():
    out, used = on_kept(lambda: X.sum(-1), cut(blend("mean", (0, 2))))
    assert torch.equal(out, X.sum(-1))
    assert used == set()


def test_calls_are_counted_anew_in_every_pass():
    noted = cut(blend("mean", (0, 2)))
    one, other = (on_kept(lambda: X.mean(-1), noted)[0] for _ in range(2))
    assert torch.equal(one, other)
