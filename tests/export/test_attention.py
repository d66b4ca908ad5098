"""Attention written out is torch's fused attention."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from peelcli.export.attention import WrittenOutAttention, attention

SEEN = torch.tensor([[True, False, True], [True, True, False], [True, True, True], [False, True, True]])


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": 0.3}, {"attn_mask": SEEN}, {"attn_mask": torch.randn(4, 3)}],
    ids=["plain", "scale", "boolean mask", "added mask"],
)
def test_it_is_what_the_fused_op_computes(options):
    query, key, value = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 3, 5), torch.randn(2, 3, 3, 6)
    torch.testing.assert_close(
        attention(query, key, value, **options), F.scaled_dot_product_attention(query, key, value, **options)
    )


def test_causal_with_shared_key_heads():
    query, key = torch.randn(2, 4, 3, 5), torch.randn(2, 2, 3, 5)
    options = {"is_causal": True, "enable_gqa": True}
    torch.testing.assert_close(
        attention(query, key, key, **options), F.scaled_dot_product_attention(query, key, key, **options)
    )


def test_one_token_worked_by_hand():
    # scores 2 * 1 and 2 * 3, scale 0.5: softmax(1, 3) = (0.1192, 0.8808); 0.1192 * 10 + 0.8808 * 20
    out = attention(torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0], [20.0]]), scale=0.5)
    assert float(out) == pytest.approx(18.808, abs=1e-3)


def test_the_mode_replaces_calls():
    x = torch.randn(1, 2, 2, 3, 4)
    with WrittenOutAttention():
        out = F.scaled_dot_product_attention(x, x, x)
    torch.testing.assert_close(out, attention(x, x, x))
