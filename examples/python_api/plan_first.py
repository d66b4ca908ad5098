"""Decide first, look at the decision, then carry it out. A plan is data: it can be kept, compared and reviewed."""

import torch
from torchvision.models import resnet18

import peelcli as peel

model, example = resnet18(), torch.randn(1, 3, 224, 224)

found = peel.inspect(model, example)
print(f"{len(found.groups)} groups; the least that can be reached is {found.least.macs:,} of {found.full.macs:,}")

plan = peel.plan(model, example, flops="1G", params="8M", ignore=["layer1.*"], out="plan.json")
for cut in plan.cuts:
    print(f"{cut.group.name:20} {cut.width:4} of {cut.group.full:4} {'locked' if cut.group.locked else ''}")

slim, run = peel.apply(model, plan, example)  # or the path "plan.json"
loss = torch.nn.functional.cross_entropy(slim.train()(torch.randn(4, 3, 224, 224)), torch.arange(4))
loss.backward()  # the slim model trains like any other
