"""torchvision's classifiers, segmentation, video and optical flow."""

from __future__ import annotations

from functools import partial

from torch import nn

from zoo_models.entry import Entry

CNNS = (
    "alexnet", "vgg16", "vgg16_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121",
    "googlenet", "inception_v3", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "mnasnet1_0", "shufflenet_v2_x1_0", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "regnet_x_400mf",
    "convnext_tiny", "fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large",
)  # fmt: skip
TRANSFORMERS = ("vit_b_16", "swin_t", "swin_v2_t", "maxvit_t")
VIDEO = {"r3d_18": "cnn", "mc3_18": "cnn", "r2plus1d_18": "cnn", "s3d": "cnn"}
VIDEO_TRANSFORMERS = {"mvit_v1_b": ("1,3,16,224,224",), "swin3d_t": ("1,3,8,112,112",)}


def built(name: str) -> nn.Module:
    """A model by its torchvision name; no part of it is downloaded."""
    import torchvision

    more = {"weights_backbone": None} if name.startswith(("fcn", "deeplab", "lraspp")) else {}
    if name in ("googlenet", "inception_v3"):
        more["init_weights"] = True
    return torchvision.models.get_model(name, weights=None, **more)


ENTRIES = {
    **{name: Entry("cnn", partial(built, name)) for name in CNNS},
    **{name: Entry("transformer", partial(built, name)) for name in TRANSFORMERS},
    **{name: Entry(kind, partial(built, name), ("1,3,8,112,112",)) for name, kind in VIDEO.items()},
    **{name: Entry("transformer", partial(built, name), shape) for name, shape in VIDEO_TRANSFORMERS.items()},
    "raft_small": Entry("other", partial(built, "raft_small"), ("1,3,128,128", "1,3,128,128")),
}
ENTRIES["inception_v3"] = Entry("cnn", partial(built, "inception_v3"), ("1,3,299,299",))
ENTRIES["s3d"] = Entry("cnn", partial(built, "s3d"), ("1,3,16,224,224",))
