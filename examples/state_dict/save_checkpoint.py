"""Write a checkpoint as a training loop would: weights under a key, with the prefix that DataParallel leaves."""

import torch
from model import build

torch.manual_seed(0)
weights = {f"module.{name}": value for name, value in build().state_dict().items()}
torch.save({"epoch": 90, "state_dict": weights}, "checkpoint.pt")
