"""Train a small network of our own and save it whole: torch.save(model, "model.pt").

The task needs no data set: tell which of four directions the stripes in a noisy picture run.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, max_pool2d, relu


class Block(nn.Module):
    """A residual block, shape (batch, width, height, width) in and out."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        inside = relu(self.norm1(self.conv1(x)))
        return relu(x + self.norm2(self.conv2(inside)))


class StripeNet(nn.Module):
    """Pictures of shape (batch, 3, 16, 16) to scores of shape (batch, 4)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.block1 = Block(32)
        self.down = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.block2 = Block(64)
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        x = self.block1(relu(self.norm(self.stem(x))))
        x = self.block2(relu(self.down(max_pool2d(x, 2))))
        return self.head(x.mean((2, 3)))


def pictures(count, seed):
    """Striped pictures of shape (count, 3, 16, 16) and their directions, 0 to 3."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    angle = labels * torch.pi / 4 + 0.15 * torch.randn(count, generator=generator)
    wave = 0.6 + 0.6 * torch.rand(count, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    along = torch.cos(angle)[:, None, None] * columns + torch.sin(angle)[:, None, None] * rows
    stripes = torch.sin(wave[:, None, None] * along + 6.3 * torch.rand(count, 1, 1, generator=generator))
    return stripes[:, None] + 1.5 * torch.randn(count, 3, 16, 16, generator=generator), labels


def fit(model, steps, seed, rate=2e-3):
    """Train in place on fresh pictures, with a cosine schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for step in range(steps):
        images, labels = pictures(32, seed + step)
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model):
    """Share of 1,000 unseen pictures whose direction is told right."""
    images, labels = pictures(1000, seed=10**6)
    return (model.eval()(images).argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    torch.manual_seed(0)
    trained = fit(StripeNet(), steps=100, seed=0)
    torch.save(trained, "model.pt")
    print(f"model.pt: accuracy {accuracy(trained):.1%}")
