"""torchvision's detectors, whole and the part that is nothing but layers.

Their thresholds are 0: with random weights no score would pass them, and a model that finds nothing proves nothing.
Few candidates go on to the second stage, which is as many layers with fewer rows.
Inputs are images of the size that the detector resizes to, so that the figures are those of its usual work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import nn

from zoo_models.entry import Entry

SIZE = "1,3,320,320"
TWO_STAGES = {"box_score_thresh": 0.0, "rpn_post_nms_top_n_test": 50, "box_detections_per_img": 10}
ONE_STAGE = {"score_thresh": 0.0, "topk_candidates": 50}
NAMES = {
    "ssdlite320_mobilenet_v3_large": SIZE, "ssd300_vgg16": "1,3,300,300", "retinanet_resnet50_fpn": SIZE,
    "fcos_resnet50_fpn": SIZE, "fasterrcnn_mobilenet_v3_large_fpn": SIZE, "fasterrcnn_resnet50_fpn": SIZE,
    "maskrcnn_resnet50_fpn": SIZE, "keypointrcnn_resnet50_fpn": SIZE,
}  # fmt: skip


def with_operators(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Have box suppression even where torchvision's compiled operators don't fit the torch at hand."""

    @wraps(build)
    def builder(*values: Any) -> nn.Module:
        stand_in()
        return build(*values)

    return builder


@with_operators
def detector(name: str) -> nn.Module:
    """A whole detector that takes a batch of images of one size."""
    import torchvision

    short = not name.startswith("ssd")
    sizes = {"min_size": 320, "max_size": 320} if short else {}
    more = {**(TWO_STAGES if "rcnn" in name else ONE_STAGE), **sizes}
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, **more)


@with_operators
def backbone(name: str) -> nn.Module:
    """A detector's trunk and feature pyramid: images in, five levels out."""
    return detector(name).backbone


_kept: list[torch.library.Library] = []  # a Library takes its kernels back when it is collected


def stand_in() -> None:
    """A plain kernel for box suppression where there is none; RoI pooling falls back by itself."""
    import torchvision

    if _kept or torchvision.extension._has_ops():
        return
    library = torch.library.Library("torchvision", "IMPL")
    library.impl("nms", suppressed, "CPU")
    _kept.append(library)
    torchvision.ops.boxes._assert_has_ops = lambda: None  # it asks before it calls


def suppressed(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Indices of the boxes that stay, best first. boxes: (n, 4); scores: (n,)."""
    import torchvision

    order = scores.argsort(descending=True, stable=True)
    overlaps = torchvision.ops.box_iou(boxes[order], boxes[order]) > threshold
    gone = torch.zeros(len(order), dtype=torch.bool)
    for at in range(len(order)):
        if not gone[at]:
            gone[at + 1 :] |= overlaps[at, at + 1 :]
    return order[~gone]


ENTRIES = {
    **{name: Entry("cnn", partial(detector, name), (shape,)) for name, shape in NAMES.items()},
    "fasterrcnn_resnet50_fpn.backbone": Entry("cnn", partial(backbone, "fasterrcnn_resnet50_fpn"), (SIZE,)),
}
