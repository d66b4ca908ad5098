"""The whole job in five lines. `slim` is an nn.Module like `model`, and `run` is the record of what was done."""

import torch
from torchvision.models import resnet18

import peelcli as peel

model, example = resnet18(), torch.randn(1, 3, 224, 224)  # the example has a leading batch dimension
slim, run = peel.prune(model, example, flops="50%", out="slim.onnx")
print(f"{run.plan.before.macs:,} -> {run.after.macs:,} multiply-adds")
