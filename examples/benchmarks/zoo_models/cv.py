"""pytorchcv: families that the other packages don't have."""

from __future__ import annotations

from functools import partial

from torch import nn

from zoo_models.entry import Entry

NAMES = (
    "preresnet18", "mobilenet_w1", "shufflenet_g3_w1", "shufflenetv2_w1", "condensenet74_c4_g4", "darts",
    "proxylessnas_mobile", "diracnet18v2", "sqnxt23_w1", "peleenet", "ibn_resnet50", "bam_resnet18", "cbam_resnet18",
    "scnet50", "hardnet39ds", "igcv3_wd4", "espnetv2_wd2", "sparsenet121", "bagnet9", "bninception", "darknet_tiny",
    "inceptionresnetv1",
)  # fmt: skip
GIVEN = {
    "lwopenpose2d_mobilenet_cmupan_coco": "1,3,128,128",
    "lffd20x5s320v2_widerface": "1,3,128,128",
    "pyramidnet110_a48_cifar10": "1,3,32,32",
    "erfnet_cityscapes": "1,3,128,256",
    "octresnet10_ad2": "1,3,224,224",
}


def built(name: str) -> nn.Module:
    """A model by its pytorchcv name."""
    from pytorchcv.model_provider import get_model

    return get_model(name, pretrained=False)


ENTRIES = {
    **{name: Entry("cnn", partial(built, name)) for name in NAMES},
    **{name: Entry("cnn", partial(built, name), (shape,)) for name, shape in GIVEN.items()},
}
