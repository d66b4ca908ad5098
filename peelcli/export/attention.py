"""Scaled dot-product attention as the products that it is made of, for exporters that trip over the fused op."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode


class WrittenOutAttention(TorchFunctionMode):
    """Replaces every call of scaled_dot_product_attention by `attention`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """softmax(query key^T * scale + mask) value, in inference.

    Args:
        query: (..., heads, tokens, width).
        key: (..., key heads, key tokens, width).
        value: (..., key heads, key tokens, value width).
        attn_mask: added to the scores, or False where a score must not count; broadcasts to (..., tokens, key tokens).
        dropout_p: ignored: the export is of a model in eval mode.
        is_causal: whether a token sees only those before it.
        scale: of the scores; 1 / sqrt(width) by default.
        enable_gqa: whether several query heads share a key head.

    Returns:
        (..., heads, tokens, value width).

    Source: Vaswani et al., arXiv:1706.03762, equation 1; the arguments are those of torch's function.
    """
    del dropout_p
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        seen = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype is torch.bool else scores + attn_mask
    return torch.matmul(scores.softmax(-1), value)
