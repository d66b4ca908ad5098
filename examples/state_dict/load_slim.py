"""Load slim weights again without pickle: build the original, cut it by the plan in the file, fill in the weights."""

from pathlib import Path

import torch
from model import build

from peelcli.export.safetensors import read_slim
from peelcli.surgery.prune import apply_cuts

plan, weights = read_slim(Path("slim.safetensors"))
slim = apply_cuts(build(), plan.cuts)
slim.load_state_dict(weights)
print(f"{plan.before.macs:,} -> {plan.predicted.macs:,} multiply-adds")
print(slim.eval()(torch.randn(2, 3, 32, 32)).shape)
