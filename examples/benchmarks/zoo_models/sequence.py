"""Networks on text, sound and series, written out here as people write their own."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from zoo_models.entry import Entry


class RootNorm(nn.Module):
    """RMSNorm as the Llama family writes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotated(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions. x: (batch, heads, tokens, size)."""
    half = x.shape[-1] // 2
    pace = 1e4 ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angles = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)[:, None] * pace
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


class GroupedAttention(nn.Module):
    """Fewer key and value heads than query heads, causal."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.q = nn.Linear(width, heads * self.size, bias=False)
        self.k = nn.Linear(width, kv_heads * self.size, bias=False)
        self.v = nn.Linear(width, kv_heads * self.size, bias=False)
        self.out = nn.Linear(heads * self.size, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q = self.q(x).view(batch, tokens, self.heads, self.size).transpose(1, 2)
        k = self.k(x).view(batch, tokens, self.kv_heads, self.size).transpose(1, 2)
        v = self.v(x).view(batch, tokens, self.kv_heads, self.size).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (rotated(k), v))
        y = F.scaled_dot_product_attention(rotated(q), k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, -1))


class GatedBlock(nn.Module):
    """Attention and a SwiGLU."""

    def __init__(self, width: int, heads: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.look = RootNorm(width), GroupedAttention(width, heads, kv_heads)
        self.norm2 = RootNorm(width)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.look(self.norm1(x))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """A small Llama with tied embeddings."""

    def __init__(self, tokens: int = 500, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(GatedBlock(width, 8, 2, 352) for _ in range(layers))
        self.norm, self.head = RootNorm(width), nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Tagger(nn.Module):
    """A label for each token: embedding, recurrent layers, two linear ones."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, 64)
        self.project = nn.Linear(64, 96)
        self.recur = kind(96, 64, num_layers=2, bidirectional=True, batch_first=True)
        self.hidden, self.head = nn.Linear(128, 96), nn.Linear(96, 9)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.recur(torch.relu(self.project(self.embed(tokens))))
        return self.head(torch.relu(self.hidden(states)))


class WaveBlock(nn.Module):
    """Dilated, gated, causal; one way on and one out."""

    def __init__(self, width: int, skip: int, dilation: int) -> None:
        super().__init__()
        self.reach = dilation
        self.filter = nn.Conv1d(width, width, 2, dilation=dilation)
        self.gate = nn.Conv1d(width, width, 2, dilation=dilation)
        self.on, self.out = nn.Conv1d(width, width, 1), nn.Conv1d(width, skip, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        past = F.pad(x, (self.reach, 0))
        y = torch.tanh(self.filter(past)) * torch.sigmoid(self.gate(past))
        return x + self.on(y), self.out(y)


class WaveNet(nn.Module):
    """Raw sound to classes for each sample."""

    def __init__(self, width: int = 48, skip: int = 96) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.blocks = nn.ModuleList(WaveBlock(width, skip, 2**k) for k in range(6))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, 64, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, total = self.first(x), 0
        for block in self.blocks:
            x, out = block(x)
            total = total + out
        return self.last(total)


class TemporalBlock(nn.Module):
    """Two dilated convolutions that look back only, and a shortcut."""

    def __init__(self, c_in: int, c_out: int, dilation: int) -> None:
        super().__init__()
        self.reach = 2 * dilation
        self.conv1 = nn.Conv1d(c_in, c_out, 3, padding=self.reach, dilation=dilation)
        self.conv2 = nn.Conv1d(c_out, c_out, 3, padding=self.reach, dilation=dilation)
        self.norm1, self.norm2 = nn.BatchNorm1d(c_out), nn.BatchNorm1d(c_out)
        self.short = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)[..., : -self.reach]))
        y = torch.relu(self.norm2(self.conv2(y)[..., : -self.reach]))
        return torch.relu(y + self.short(x))


def temporal() -> nn.Module:
    """A TCN over series of 8 values."""
    blocks = [TemporalBlock(a, b, 2**k) for k, (a, b) in enumerate(pairwise((8, 48, 48, 96, 96)))]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(96, 6))


class Pitch(nn.Module):
    """The shape of CREPE: six layers on frames of 1024 samples; the channels run fastest when they are flattened."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        widths = [1, *(capacity * factor for factor in (32, 4, 4, 4, 8, 16))]
        kernels = [512, 64, 64, 64, 64, 64]
        self.pads = [(kernel // 2 - (2 if at == 0 else 1), kernel // 2 - (2 if at == 0 else 0)) for at, kernel in
                     enumerate(kernels)]  # fmt: skip
        pairs = zip(pairwise(widths), kernels, strict=True)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, (kernel, 1), (4 if at == 0 else 1, 1)) for at, ((a, b), kernel) in enumerate(pairs)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps=1e-3) for width in widths[1:])
        self.in_features = widths[-1] * 4
        self.classifier = nn.Linear(self.in_features, 360)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames[:, None, :, None]
        for conv, norm, pad in zip(self.convs, self.norms, self.pads, strict=True):
            x = norm(F.relu(conv(F.pad(x, (0, 0, *pad)))))
            x = F.max_pool2d(x, (2, 1), (2, 1))
        x = x.permute(0, 2, 1, 3).reshape(-1, self.in_features)
        return torch.sigmoid(self.classifier(x))


def encoder() -> nn.Module:
    """Torch's own encoder layers on series that are embedded already."""
    layer = nn.TransformerEncoderLayer(96, 4, 256, batch_first=True)
    return nn.Sequential(nn.Linear(16, 96), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                         nn.Linear(96, 5))  # fmt: skip


ENTRIES = {
    "llama_style_decoder": Entry("transformer", Decoder),
    "torch_encoder": Entry("transformer", encoder),
    "lstm_tagger": Entry("other", lambda: Tagger(nn.LSTM)),
    "gru_tagger": Entry("other", lambda: Tagger(nn.GRU)),
    "wavenet": Entry("cnn", WaveNet),
    "tcn": Entry("cnn", temporal),
    "crepe_tiny": Entry("cnn", lambda: Pitch(4), ("1,1024",)),
    "crepe_full": Entry("cnn", lambda: Pitch(32), ("1,1024",)),
    "mlp": Entry("other", lambda: nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
                                                nn.Linear(256, 10))),
}  # fmt: skip
